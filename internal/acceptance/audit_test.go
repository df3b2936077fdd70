package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/audit/audittest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// auditLines returns the records of an audit log once there are n of them.
func auditLines(t *testing.T, path string, n int) (all []map[string]any) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Count(b, []byte{'\n'}) >= n || time.Now().After(end) {
			for line := range bytes.Lines(b) {
				record, err := audittest.Check(line)
				if err != nil {
					t.Error(err)
					continue
				}
				all = append(all, record)
			}
			if len(all) != n {
				t.Fatalf("%d records, want %d:\n%s", len(all), n, b)
			}
			return all
		}
	}
}

// TestAudit: what the real command runs at a real Dovecot is in the audit log,
// each line as the schema says. SIGHUP opens a renamed file anew, also when the
// configuration is broken.
func TestAudit(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 2, dovecot.Options{})
	path := filepath.Join(t.TempDir(), "audit.log")
	p := startProxy(t, racy, func(addr string) string {
		return c.config(addr, "", fmt.Sprintf("audit {\n  path = %q\n}\n", path))
	})
	run := func(code int, name string, args ...string) {
		t.Helper()
		if r := cli(t, p.Addr, clientPassword, name, args...); r.ExitCode != code {
			t.Errorf("%s %q: exit code %d, %s", name, args, r.ExitCode, r.Stderr)
		}
	}
	run(0, "mailbox create", "-u", "u1-1", "Ablage ä")
	run(0, "mailbox list", "-u", "u1-1", "-8", "*")
	run(67, "mailbox list", "-u", "u1-9", "*")
	const mail = "Subject: planted-in-mail\n\nplanted-in-mail\n"
	if r := withInput(t, p.Addr, clientPassword, mail, "save", "-u", "u1-1", "-m", "INBOX"); r.ExitCode != 0 {
		t.Errorf("save: %d, %s", r.ExitCode, r.Stderr)
	}
	if r := cli(t, p.Addr, "wrong-password", "quota get", "-u", "u1-1"); r.ExitCode == 0 {
		t.Error("a wrong password is right")
	}
	want := []string{
		`command u1-1 mailbox create [-- Ablage ä] s1 mail1 answered +`,
		`command u1-1 mailbox list [-8 -- *] s1 mail1 answered +`,
		`command u1-9 mailbox list [-- *] s1 mail1 answered -NOUSER`,
		`command u1-1 save [-m INBOX --] s1 mail1 answered +`,
		`login-refused <nil> <nil> <nil> <nil> <nil> wrong <nil>`,
	}
	for i, r := range auditLines(t, path, len(want)) {
		if i < len(want) {
			got := fmt.Sprint(r["event"], " ", r["user"], " ", r["command"], " ", r["arguments"], " ", r["shard"], " ", r["backend"], " ", r["outcome"], " ", r["status"])
			if got != want[i] {
				t.Errorf("record %d: %s, want %s", i, got, want[i])
			}
		}
		if r["client"] != "doveadm" || !strings.HasPrefix(r["address"].(string), "127.0.0.1:") {
			t.Errorf("record %d is of %v at %v", i, r["client"], r["address"])
		}
		if at, err := time.Parse(time.RFC3339Nano, r["time"].(string)); err != nil || time.Since(at) > time.Hour {
			t.Errorf("record %d is of %v", i, r["time"])
		}
		if r["command"] == "save" && r["input_bytes"].(float64) < float64(len(mail)) {
			t.Errorf("%v bytes of input, want %d or, with the ends of lines as they are sent, more", r["input_bytes"], len(mail))
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"planted-in-mail", "wrong-password", clientPassword} {
		if bytes.Contains(whole, []byte(secret)) {
			t.Errorf("the audit log has %q", secret)
		}
	}

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	p.writeConfig("rubbish")
	p.signal(syscall.SIGHUP)
	p.waitLog("reload failed")
	run(0, "mailbox list", "-u", "u1-2", "*")
	if got := auditLines(t, path, 1)[0]["user"]; got != "u1-2" {
		t.Errorf("in the new file: %v", got)
	}
	auditLines(t, path+".1", len(want))
}
