package logs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// IsJournal reports whether f is the stream to the journal that systemd has
// opened for us (JOURNAL_STREAM of systemd.exec(5)).
func IsJournal(f *os.File) bool {
	var device, inode uint64
	if n, _ := fmt.Sscanf(os.Getenv("JOURNAL_STREAM"), "%d:%d", &device, &inode); n != 2 {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Dev == device && st.Ino == inode
}

// journal returns a writer that puts the priority of sd-daemon(3) in front of
// each line, which the journal takes off: "journalctl -p err" shows the errors.
func journal(w io.Writer) io.Writer {
	return hclog.NewLeveledWriter(&priority{w, "<6>"}, map[hclog.Level]io.Writer{
		hclog.Trace: &priority{w, "<7>"},
		hclog.Debug: &priority{w, "<7>"},
		hclog.Warn:  &priority{w, "<4>"},
		hclog.Error: &priority{w, "<3>"},
	})
}

type priority struct {
	w      io.Writer
	prefix string
}

func (p *priority) Write(b []byte) (int, error) {
	var out bytes.Buffer
	for text := range bytes.Lines(b) { // a stack has many
		out.WriteString(p.prefix)
		out.Write(text)
	}
	if _, err := p.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}
