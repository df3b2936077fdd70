package acceptance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestSameBytes compares what the real doveadm command prints, and how it
// exits, through the proxy and directly.
func TestSameBytes(t *testing.T) {
	t.Parallel()
	const backends = 3
	users := 2
	if *whole {
		users = 50
	}
	c := startCluster(t, backends, users, dovecot.Options{})
	for _, s := range c.servers {
		if err := s.Seed(3); err != nil {
			t.Fatal(err)
		}
		// The first look at a mailbox makes its indexes and counts mails as
		// recent: let neither of the two that are compared be the first.
		for _, look := range [][]string{{"mailbox", "status", "-A", "all", "*"}, {"fetch", "-A", "uid hdr.subject text", "all"}} {
			if r, err := s.Doveadm(t.Context(), look...); err != nil || r.ExitCode != 0 {
				t.Fatal(err, r.Stderr)
			}
		}
	}
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })

	type command struct {
		name string
		args []string
	}
	// commands returns what is run for a user.
	commands := func(user string) []command {
		u := func(name string, args ...string) command { return command{name, append([]string{"-u", user}, args...)} }
		return []command{
			u("quota get"),
			u("mailbox list"),
			u("mailbox status", "all", "*"),
			u("fetch", "uid hdr.subject text", "all"),
			u("search", "all"),
			u("search", "mailbox", "Archive", "subject", "old"),
			u("fetch", "uid", "mailbox", "NoSuchMailbox", "all"),
			u("mailbox status", "messages", "NoSuchMailbox"),
		}
	}
	same := func(s *dovecot.Server, cmd command) error {
		direct := cli(t, s.Addr, s.Password, cmd.name, cmd.args...)
		proxied := cli(t, p.Addr, clientPassword, cmd.name, cmd.args...)
		for _, r := range []*dovecot.Result{&direct, &proxied} {
			r.Time = 0
		}
		direct.Stderr = comparable(direct.Stderr, s.Addr)
		proxied.Stderr = comparable(proxied.Stderr, p.Addr)
		if diff := cmp.Diff(direct, proxied); diff != "" {
			return fmt.Errorf("%s %q (-direct +through the proxy):\n%s", cmd.name, cmd.args, diff)
		}
		return nil
	}

	var g errgroup.Group
	g.SetLimit(4)
	for i, s := range c.servers {
		nobody := fmt.Sprintf("u%d-nobody", i+1)
		everybody := append([]string{nobody}, s.Users...)
		for _, user := range everybody {
			for _, cmd := range commands(user) {
				g.Go(func() error { return same(s, cmd) })
			}
		}
		// Without a user: doveadm takes the one of its environment, and some
		// mistakes it finds itself.
		for _, cmd := range []command{
			{"quota get", nil},
			{"mailbox list", nil},
			{"mailbox status", []string{"messages", "INBOX"}},
			{"fetch", nil},
			{"search", []string{"-u", s.Users[0], "nosuchkey"}},
			{"mailbox create", []string{"-u", s.Users[0], "INBOX"}},
		} {
			g.Go(func() error { return same(s, cmd) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	// A comparison of two empty outputs would prove nothing.
	r := cli(t, p.Addr, clientPassword, "fetch", "-u", "u2-2", "hdr.subject", "all")
	if want := "hdr.subject: message 1 for u2-2\n"; !strings.Contains(r.Stdout, want) {
		t.Errorf("fetch printed %q", r.Stdout)
	}
}
