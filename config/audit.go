package config

import (
	"io/fs"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Where the audit log goes to.
const (
	AuditFile    = "file"
	AuditSyslog  = "syslog"
	AuditJournal = "journal"
)

// Audit is the audit block. The zero value is no audit log.
type Audit struct {
	To      string      // AuditFile, AuditSyslog or AuditJournal; empty: there is none
	Path    string      // of the file, or of the socket of syslog or the journal
	Mode    fs.FileMode // of the file
	MaxSize int64       // of the file in bytes, above which a new one is begun; 0: no limit
	Keep    int         // full files that are kept
	Buffer  int64       // bytes of records that wait to be written
	// Refuse: no command runs while its record could not be written.
	Refuse bool
}

func (u *Audit) block() block {
	return block{
		name: "audit",
		doc: "A record of each command: who ran it, from where, for whom, and what became of it; of each login that was refused, too. " +
			"It is one JSON object a line. Without the block there is none. [audit.md](audit.md) has more.",
		example: `
audit {
  path     = "/var/log/doveadm-proxy/audit.log"
  max_size = "100MiB"
  on_error = "refuse"
}`,
		attrs: []attr{
			{
				name: "to", field: choice(&u.To, AuditFile, AuditSyslog, AuditJournal), def: `"file"`,
				doc: "`file`, or the local `syslog` (RFC 5424, facility authpriv), or systemd's `journal`.",
			},
			{
				name: "path", field: path(&u.Path, anywhere), example: `"/var/log/doveadm-proxy/audit.log"`,
				doc: "The file, which is made if it is not there. A file needs one; for syslog and the journal it is the socket, `/dev/log` and `/run/systemd/journal/socket` where nothing is said.",
			},
			{
				name: "mode", field: socketMode(&u.Mode), def: `"0640"`,
				doc: "Permissions of a file that is made.",
			},
			{
				name: "max_size", field: sizeOrNone(&u.MaxSize), example: `"100MiB"`,
				doc: "A file that would become larger is renamed to `.1`, and a new one begun. Without the attribute it grows until something else renames it; a reload (SIGHUP) opens it anew.",
			},
			{
				name: "keep", field: count(&u.Keep, 1), def: `10`,
				doc: "How many files `max_size` leaves besides the one that is written: `.1` is the newest.",
			},
			{
				name: "buffer", field: size(&u.Buffer), def: `"4MiB"`,
				doc: "Records that wait to be written. If the disk or the reader of the socket is so slow that they become more, or cannot be written to at all, `on_error` holds.",
			},
			{
				name: "on_error", field: onError(&u.Refuse), def: `"continue"`,
				doc: "What happens while records cannot be written. `continue`: commands run, and those of their records that find no place in the buffer are lost and counted. `refuse`: commands get `-TEMPFAIL`, until it works again.",
			},
		},
	}
}

// onError is what happens while the audit log cannot be written.
func onError(refuse *bool) field {
	word := "continue"
	f := choice(&word, "continue", "refuse")
	set, get := f.set, f.get
	f.set = func(v value) *problem {
		p := set(v)
		*refuse = word == "refuse"
		return p
	}
	f.get = func() cty.Value {
		if *refuse {
			word = "refuse"
		}
		return get()
	}
	return f
}

// sizeOrNone is a size that may be left out, which is 0.
func sizeOrNone(bytes *int64) field {
	f := size(bytes)
	get := f.get
	f.get = func() cty.Value {
		if *bytes == 0 {
			return cty.NilVal
		}
		return get()
	}
	return f
}

// anywhere is the path of something that need not be there yet: systemd makes
// the directory of the log when it starts the service.
func anywhere(string) error { return nil }

func (l *loader) auditLog(b *hclsyntax.Block) {
	at := l.block(l.audit.block(), b, nil)
	if l.audit.Path != "" {
		return
	}
	switch l.audit.To {
	case AuditSyslog:
		l.audit.Path = "/dev/log"
	case AuditJournal:
		l.audit.Path = "/run/systemd/journal/socket"
	default:
		if !at.has("path") {
			l.missingIn(b.Range(), b.DefRange(), "No path", `An audit log in a file needs the file: path = "/var/log/doveadm-proxy/audit.log"`)
		}
	}
}
