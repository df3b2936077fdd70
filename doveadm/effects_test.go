package doveadm

import (
	"slices"
	"strings"
	"testing"
)

func TestEffects(t *testing.T) {
	for _, test := range []struct {
		command string
		args    string // separated by spaces; _ is a space in an argument
		danger  string
		cause   string
		other   string
		all     bool // Everyone
	}{
		{command: "quota get"},
		{command: "fetch", args: "text mailbox INBOX subject user"},
		{command: "fetch", args: "-- --no-option all"},
		{command: "fetch", args: "--no-option=/etc/passwd text all", danger: "unknown", cause: "--no-option=/etc/passwd"},
		{command: "fetch", args: "text all -Z", danger: "unknown", cause: "-Z"},
		{command: "mailbox list", args: "-s8Z", danger: "unknown", cause: "-s8Z"},
		{command: "save", args: "-m INBOX"},

		{command: "copy", args: "Dest mailbox INBOX all"},
		{command: "copy", args: "Dest user bob all", danger: "users", cause: "source-user", other: "bob"},
		{command: "move", args: "Dest USER bob all", danger: "users", cause: "source-user", other: "bob"},
		{command: "copy", args: "-- Dest user bob all", danger: "users", cause: "source-user", other: "bob"},
		{command: "copy", args: "Dest user * all", danger: "users", cause: "source-user", all: true},
		{command: "copy", args: "Dest from user bob"},
		{command: "copy", args: "Dest user"},
		{command: "copy", args: "Dest --source-user=bob all", danger: "users", cause: "source-user", all: true},
		{command: "copy", args: "Dest --source-u bob all", danger: "users", cause: "source-user", all: true},
		{command: "copy", args: "--destination-mailbox=Dest user bob all", danger: "users", cause: "source-type", all: true},
		{command: "copy", args: "--query=user --query=bob Dest", danger: "users", cause: "source-type", all: true},

		{command: "import", args: "maildir:/etc Dest all", danger: "files", cause: "source-location"},
		{command: "import", args: "imapc: Dest all", danger: "files, hosts", cause: "source-location"},
		{command: "import", args: "-U bob maildir:~ Dest all", danger: "files, users", cause: "source-user", other: "bob"},
		{command: "import", args: "-sUbob maildir:~ Dest all", danger: "files, users", cause: "source-user", other: "bob"},
		{command: "import", args: "maildir:~ Dest all -U bob", danger: "files, users", cause: "source-user", other: "bob"},
		{command: "import", args: "maildir:~ Dest all --source-user=bob -U carol", danger: "files, users", cause: "source-user", other: "bob", all: true},
		{command: "import", args: "-p imapc_host=evil maildir:~ Dest all", danger: "files, settings", cause: "source-option"},
		{command: "import", args: "--source-location=imapc: Dest all", danger: "files, hosts", cause: "source-location"},

		{command: "sync", args: "-1 tcp:evil:1", danger: "hosts", cause: "destination"},
		{command: "sync", args: "tcps:evil", danger: "hosts", cause: "destination"},
		{command: "backup", args: "remote:evil", danger: "hosts, programs", cause: "destination"},
		{command: "backup", args: "remoteprefix:x@evil", danger: "hosts, programs", cause: "destination"},
		{command: "backup", args: "evil", danger: "hosts, programs", cause: "destination"},
		{command: "backup", args: "bob@evil", danger: "hosts, programs", cause: "destination"},
		{command: "backup", args: "/bin/sh", danger: "programs", cause: "destination"},
		{command: "backup", args: "sh_-c_id", danger: "programs", cause: "destination"},
		{command: "backup", args: "ssh evil dsync", danger: "programs", cause: "destination"},
		{command: "backup", args: "maildir:/tmp/x", danger: "files", cause: "destination"},
		{command: "backup", args: "imapc:", danger: "files, hosts", cause: "destination"},
		{command: "backup", args: "-d", danger: "hosts", cause: "default-destination"},
		{command: "backup", args: "-r /tmp/log", danger: "files", cause: "rawlog"},
		{command: "backup", args: "-fPr/tmp/log maildir:x", danger: "files", cause: "rawlog"},
		{command: "backup", args: "-p mail_path=/x maildir:x", danger: "files, settings", cause: "destination-option"},
		{command: "backup", args: "--destination=tcp:evil", danger: "files, hosts, programs", cause: "destination"},
		{command: "backup"},
		// Options end at the first positional argument.
		{command: "backup", args: "tcp:evil -d", danger: "programs", cause: "destination"},

		{command: "dsync-server"},
		{command: "dsync-server", args: "-T 10"},
		{command: "dsync-server", args: "-r /tmp/x", danger: "files", cause: "rawlog"},
		{command: "dsync-server", args: "--raw=/tmp/x", danger: "files", cause: "rawlog"},

		{command: "fs get", args: "posix prefix /etc/passwd", danger: "files, hosts", all: true},
		{command: "mail fs get", args: "x /etc/passwd", danger: "files"},
		{command: "mail fs put", args: "x /etc/passwd y", danger: "files"},
		{command: "dict get", args: "-u bob file:/etc/passwd priv/x", danger: "files, hosts, users", cause: "user", other: "bob", all: true},
		{command: "who", all: true},
		{command: "who", args: "-a /run/x", danger: "files", cause: "socket-path", all: true},
		{command: "kick", args: "-f x", all: true},
		{command: "director map", args: "-f /etc/passwd", danger: "files", cause: "users-file", all: true},
		{command: "mailbox mutf7", args: "x"},
		{command: "dump", args: "index /etc/passwd", danger: "files, unknown", all: true},
		{command: "exec", args: "sh", danger: "programs, unknown", all: true},
		{command: "no-such", args: "-F /etc/passwd", danger: "unknown", all: true},
	} {
		c, _ := LookupCommand(test.command)
		var args []string
		for _, arg := range strings.Fields(test.args) {
			args = append(args, strings.ReplaceAll(arg, "_", " "))
		}
		got := c.Effects(args)
		if got.Danger.String() != test.danger || got.Cause != test.cause || got.OtherUser != test.other || got.Everyone != test.all {
			t.Errorf("%s %s: %+v, want %+v", test.command, args, got, test)
		}
	}
}

func TestEffectsDoNotAllocate(t *testing.T) {
	c, _ := LookupCommand("import")
	args := []string{"-s", "--source-user=bob", "-p", "a=b", "maildir:x", "Dest", "all"}
	if n := testing.AllocsPerRun(100, func() { c.Effects(args) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Every parameter of the table, which is compared with the option lists of real
// servers elsewhere, has been judged: it is dangerous, or it stands here.
func TestEveryParameterIsJudged(t *testing.T) {
	harmless := strings.Fields(`
		activate all all-mailbox all-namespaces allow-empty-mailbox-name args ask-new-password ask-old-password
		auth-info by-msgid clear-password decision delete-empty-mailbox description dest-host dest-parent-mailbox
		destination-mailbox difference exact exclude-mailbox expand-field expire-secs exporter exporter-include
		field fields fieldstr filter flag flagstr force force-flush from-utf8 fsck full-sync group-by guid
		hash hash-map head host id ignore-active ignore-arg ip key key-prefix language last-used legacy-dsync
		lock-timeout mailbox mailbox-guid mailbox-mask mask match-me max-parallel max-recent metadata
		min-first-recent-uid min-highest-modseq min-highest-pvt-modseq min-next-uid mutf7 name namespace netmask
		new-name new-password newname no-cache no-userdb-lookup no-value object-ids old-password oldname
		oneway-sync passdb-field port prefix prepend-prefix priority purge-remote query queue re-encrypt-box-keys
		received-date recurse recursive replicator-notify require-empty reset reverse reverse-sync right
		scriptname separate-connections separator service show-config since state subscribe subscriptions
		sync-flags sync-max-size sync-since-time sync-until-time tag text timeout timestamp to-utf8 total-sum
		trans-flags type uid uid-validity unsafe user user-key user-key-only user-map user-mask userdb-only utf8
		value vhost-count`)
	// Positional arguments of a command that is dangerous whatever they are.
	always := strings.Fields(`
		destination-path dict-uri filter-name fs-args fs-driver input-path log-dir path queue-dir root-dir source-path`)
	var used []string
	for _, c := range Commands() {
		for _, p := range c.Params {
			used = append(used, p.Long)
			isHarmless, isAlways := slices.Contains(harmless, p.Long), slices.Contains(always, p.Long)
			// Mail commands have a filter-name that is one of the server's settings.
			named := p.Long == "filter-name" && strings.HasPrefix(c.Name, "mail dict ")
			switch {
			case p.Danger == 0 && !isHarmless && !isAlways:
				t.Errorf("%s: the danger of %s has not been judged", c.Name, p.Long)
			case isAlways && c.Danger&OpensFiles == 0 && !named:
				t.Errorf("%s: %s opens files, but the command does not", c.Name, p.Long)
			case p.Kind == ParamFile && p.Danger&OpensFiles == 0:
				t.Errorf("%s: %s is a file and opens none", c.Name, p.Long)
			case strings.HasPrefix(p.Long, "socket-path") && p.Danger&(OpensFiles|ReachesHosts) == 0:
				t.Errorf("%s: %s reaches nothing", c.Name, p.Long)
			}
		}
		if c.Kind == GlobalCommand && c.Right != RightAdmin && c.Name != "mailbox mutf7" {
			t.Errorf("%s is for the whole server, but needs the right %s", c.Name, c.Right)
		}
		if c.Kind == MailCommand && c.Repeat == RepeatReadOnly && c.Right == RightWrite {
			t.Errorf("%s only reads, but is needs the right %s", c.Name, c.Right)
		}
		if c.Repeat != RepeatReadOnly && c.Right == RightRead {
			t.Errorf("%s changes something, but is needs the right %s", c.Name, c.Right)
		}
	}
	for _, name := range slices.Concat(harmless, always) {
		if !slices.Contains(used, name) {
			t.Errorf("%s is judged, but no command has it", name)
		}
	}
}

// Whatever stands around a dangerous option, in whichever way it is written, it
// is found.
func FuzzEffects(f *testing.F) {
	f.Add("import", "-sU\tbob\tmaildir:x\tDest\tall", "Dest")
	f.Add("sync", "-1f\t-r\t/tmp/x\ttcp:evil", "")
	f.Add("copy", "Dest\tuser\tbob\tall", "")
	f.Add("kick", "-f\t-a\t/x", "bob")
	f.Fuzz(func(t *testing.T, name, line, before string) {
		c, _ := LookupCommand(name)
		args := strings.Split(line, "\t")
		e := c.Effects(args)
		if e.Danger&TouchesUsers != 0 && e.OtherUser == "" && !e.Everyone {
			t.Fatalf("%s %q touches users, but none: %+v", name, args, e)
		}
		if c.Danger&^e.Danger != 0 {
			t.Fatalf("%s %q lost a danger of the command: %+v", name, args, e)
		}
		var head []string // a positional argument, where options may follow it
		if !c.OptionsFirst && before != "" && before[0] != '-' {
			head = []string{before}
		}
		for _, p := range c.Params {
			if p.Positional || p.common != notCommon || p.Danger == 0 {
				continue
			}
			spellings := [][]string{{"--" + p.Long + "=x"}, {"--" + p.Long, "x"}}
			if p.Kind == ParamFlag {
				spellings = [][]string{{"--" + p.Long}}
			}
			if p.Short != 0 {
				spellings = append(spellings, []string{"-" + string(rune(p.Short)) + "x"}, []string{"-" + string(rune(p.Short)), "x"})
			}
			for _, spelling := range spellings {
				if e := c.Effects(slices.Concat(head, spelling, args)); p.Danger&^e.Danger != 0 {
					t.Fatalf("%s %q behind %q: %s is not found", name, spelling, head, p.Long)
				}
			}
		}
	})
}
