package acceptance

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// TestDsync moves a mailbox of 5,000 mails through the proxy, in both
// directions; a second run finds nothing to do.
func TestDsync(t *testing.T) {
	t.Parallel()
	const mails = 5000
	c := startCluster(t, 2, 1, dovecot.Options{})
	far := c.servers[0]
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })
	near := dovecottest.Start(t, dovecot.Options{
		Name: "near", Users: []string{"u1-1"},
		Config: fmt.Sprintf("doveadm_password = %s\n", clientPassword),
	})
	var all [][]byte
	for i := range mails {
		all = append(all, dovecot.Message("u1-1", fmt.Sprintf("mail %d", i)))
	}
	if err := near.SaveMail("u1-1", "INBOX", all...); err != nil {
		t.Fatal(err)
	}
	if err := near.SaveMail("u1-1", "Big", []byte("Subject: big\n\n"+strings.Repeat("0123456789abcdef\n", 1<<18))); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		r, err := near.Doveadm(ctx, args...)
		if err != nil || r.ExitCode != 0 {
			t.Fatalf("%q: %v, %+v", args, err, r)
		}
		return r.Stdout
	}
	count := func(s *dovecot.Server) string {
		t.Helper()
		r, err := s.Doveadm(t.Context(), "-f", "flow", "mailbox", "status", "-u", "u1-1", "messages guid", "*")
		if err != nil || r.ExitCode != 0 {
			t.Fatal(err, r)
		}
		return r.Stdout
	}
	// texts returns all mail of the user, in the order of its ids.
	texts := func(s *dovecot.Server) string {
		t.Helper()
		r, err := s.Doveadm(t.Context(), "-f", "flow", "fetch", "-u", "u1-1", "guid uid flags text", "mailbox", "INBOX", "all")
		if err != nil || r.ExitCode != 0 {
			t.Fatal(err, r.Stderr)
		}
		return r.Stdout
	}

	to := "tcp:" + p.Addr
	run("backup", "-u", "u1-1", to)
	if a, b := count(near), count(far); a != b || !strings.Contains(a, fmt.Sprintf("messages=%d", mails)) {
		t.Fatalf("here %s, there %s", a, b)
	}
	// A second run changes nothing, which a log of the tunnel shows: it is
	// short.
	run("backup", "-u", "u1-1", to)
	p.waitLog("command=dsync-server")
	var sizes []string
	for line := range strings.Lines(p.Log()) {
		if strings.Contains(line, "command=dsync-server") {
			if !strings.Contains(line, "outcome=answered") {
				t.Errorf("logged %s", line)
			}
			_, size, _ := strings.Cut(line, "bytes=")
			sizes = append(sizes, strings.TrimSpace(size))
		}
	}
	t.Logf("bytes from the far side: %v", sizes)

	// And back: what the far side got in the meantime.
	if r := withInput(t, far.Addr, far.Password, string(dovecot.Message("u1-1", "came later")), "save", "-u", "u1-1"); r.ExitCode != 0 {
		t.Fatal(r)
	}
	run("backup", "-R", "-u", "u1-1", to)
	if a, b := count(near), count(far); a != b || !strings.Contains(a, fmt.Sprintf("messages=%d", mails+1)) {
		t.Fatalf("after the way back: here %s, there %s", a, b)
	}
	if a, b := texts(near), texts(far); a != b {
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		t.Errorf("the mails differ at byte %d: here %q, there %q", i, a[max(0, i-200):min(len(a), i+200)], b[max(0, i-200):min(len(b), i+200)])
	}
	run("sync", "-u", "u1-1", to)
	if a, b := count(near), count(far); a != b {
		t.Fatalf("after sync: here %s, there %s", a, b)
	}
	// A user that is not there fails as it does directly.
	if err := mustBeQuota(loginOnce(t.Context(), p.Addr, "u1-1", "quota get")); err != nil {
		t.Error(err)
	}
}
