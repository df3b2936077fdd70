package proxy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/audit/audittest"
)

// records returns the lines of an audit log.
func records(t *testing.T, path string) (all []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	for line := range bytes.Lines(b) {
		r, err := audittest.Check(line)
		if err != nil {
			t.Error(err)
		}
		all = append(all, r)
	}
	return all
}

// recorded waits for the n-th record and checks its fields.
func (s *site) recorded(t *testing.T, path string, n int, want map[string]any) {
	t.Helper()
	eventually(t, "there is a record", func() bool { return int(s.AuditStat().Written) >= n })
	all := records(t, path)
	if len(all) == 0 {
		t.Fatal("no record")
	}
	got := all[len(all)-1]
	for name, value := range want {
		if g := got[name]; g != value {
			t.Errorf("record %d: %s is %v, want %v", n, name, g, value)
		}
	}
}

func auditTo(path string) func(c *config.Config) {
	return func(c *config.Config) {
		c.Audit = config.Audit{To: config.AuditFile, Path: path, Mode: 0o600, Buffer: 1 << 20}
	}
}

// Each command leaves a record, each refused login too; a reload follows a
// rename, and may switch it off.
func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	s, _ := startWith(t, 3, answer, auditTo(path))
	c := s.login(t, client13)
	c.works(t)
	s.recorded(t, path, 1, map[string]any{
		"event": "command", "client": clientName, "listener": "main", "address": c.nc.LocalAddr().String(), "session": 1.0,
		"user": "alice", "command": "quota get", "shard": "s1", "backend": "b1", "outcome": "answered", "status": "+", "reason": nil,
	})
	c.run(t, "\tnobody\tquota get\n")
	s.recorded(t, path, 2, map[string]any{"user": "nobody", "outcome": "no-user", "status": "-NOUSER", "backend": nil, "session": 1.0})
	c.run(t, "\talice\tbatch\tx\n")
	s.recorded(t, path, 3, map[string]any{"outcome": "denied", "status": "-USAGE", "backend": nil})
	c.run(t, "\talice\tdict set\t-u\talice\tredis:password=hunter2\tpriv/x\thunter2\n")
	s.recorded(t, path, 4, map[string]any{"command": "dict set", "outcome": "answered"})

	if s.loginAs(t, "a wrong password") {
		t.Error("a wrong password is right")
	}
	s.recorded(t, path, 5, map[string]any{"event": "login-refused", "client": clientName, "outcome": "wrong", "user": nil, "session": 2.0})
	before, err := os.ReadFile(path)
	must(t, err)
	if bytes.Contains(before, []byte("hunter2")) || bytes.Contains(before, []byte("a wrong password")) {
		t.Errorf("secrets in the audit log:\n%s", before)
	}

	must(t, os.Rename(path, path+".1"), s.Reload(s.cfg))
	c.works(t)
	s.recorded(t, path, 6, map[string]any{"user": "alice"})
	if n := len(records(t, path)); n != 1 {
		t.Errorf("%d records in the new file", n)
	}
	s.cfg.Audit = config.Audit{}
	must(t, s.Reload(s.cfg))
	c.works(t)
	if n := len(records(t, path)); n != 1 {
		t.Errorf("%d records in a file that is off", n)
	}
	s.cfg.Audit = config.Audit{To: config.AuditFile, Path: filepath.Join(path, "x"), Buffer: 1}
	if err := s.Reload(s.cfg); err == nil {
		t.Error("an audit log that cannot be opened is no error")
	}
	c.works(t)
}

// on_error = "refuse": no command reaches a backend without its record.
func TestAuditRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	must(t, os.Symlink("/dev/full", path))
	s, _ := startWith(t, 3, answer, both(auditTo(path), func(c *config.Config) { c.Audit.Refuse = true }))
	c := s.login(t, client13)
	c.works(t) // nobody knows yet
	s.log.wait(t, "[ERROR]", "audit log cannot be written", "commands are refused", "no space left on device")
	for range 3 {
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "audit.on_error")
	}
	must(t, os.Remove(path))
	s.ReopenAudit()
	s.log.wait(t, "audit log is written again")
	c.works(t)
	eventually(t, "there are records", func() bool { return s.AuditStat().Written >= 2 })
}
