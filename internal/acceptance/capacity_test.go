package acceptance

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestProcessLimit is a proxy that wants more connections than its backend has
// processes for.
func TestProcessLimit(t *testing.T) {
	t.Parallel()
	for _, v := range dovecot.Versions() {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			const limit = 2
			c := startCluster(t, 1, 1, dovecot.Options{Version: v, ProcessLimit: limit})
			s := c.servers[0]
			p := startProxy(t, racy, func(addr string) string {
				return c.config(addr, "timeouts {\n handshake = \"1s\"\n}\nbreaker {\n open = \"1s\"\n}\npool {\n max_open = 8\n acquire_timeout = \"60s\"\n}", "")
			})

			// Somebody else has all processes.
			var others []*doveadm.ClientConn
			for range limit {
				other, err := doveadm.Dial(t.Context(), s.Addr, doveadm.ClientOptions{Password: s.Password, Minor: doveadm.MaxMinor})
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
				others = append(others, other)
			}
			r := cli(t, p.Addr, clientPassword, "mailbox list", "-u", "u1-1")
			if r.ExitCode != 75 || !strings.Contains(r.Stderr, "process_limit") || !strings.Contains(r.Stderr, "does not greet") {
				t.Errorf("at its limit: %+v", r)
			}
			p.waitLog("backend accepts connections and does not greet: raise process_limit of its service doveadm, or lower max_open here")

			// One of them leaves, and that is enough for many.
			others[0].Close()
			for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(200 * time.Millisecond) {
				if _, err := loginOnce(t.Context(), p.Addr, "u1-1", "mailbox list"); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("no command works with a free process: %s", p.Log())
				}
			}
			before := strings.Count(p.Log(), "does not greet: raise")
			begin := time.Now()
			var g errgroup.Group
			for range 12 {
				g.Go(func() error {
					client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
					if err != nil {
						return err
					}
					defer client.Close()
					for range 50 {
						if _, err := runCommand(t.Context(), client, "u1-1", "mailbox list"); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Errorf("with one process for 12 clients: %v", err)
				for line := range strings.Lines(p.Log()) {
					if strings.Contains(line, "TEMPFAIL") || strings.Contains(line, "WARN") {
						t.Log(line)
					}
				}
			}
			// It tries in the beginning as often as it may, then once a second.
			dials := strings.Count(p.Log(), "does not greet: raise") - before
			if most := 8 + int(time.Since(begin)/time.Second); dials > most {
				t.Errorf("%d connections that nobody greeted, want at most %d", dials, most)
			}
		})
	}
}
