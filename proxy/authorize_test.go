package proxy_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// TestDenied: what a client may not do is answered by the proxy with the
// reason, no backend hears of it, and the session goes on.
func TestDenied(t *testing.T) {
	for _, k := range []clientKind{client10, client13} {
		t.Run("client "+k.name, func(t *testing.T) {
			var mu sync.Mutex
			var heard []string
			s, _ := startWith(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
				mu.Lock()
				heard = append(heard, cmd.Name)
				mu.Unlock()
				answer(c, cmd)
			}, func(c *config.Config) {
				c.Clients[0].Allow = []config.Rule{{Users: []string{"alice", "*@s1"}}}
				c.Clients[0].Deny = []config.Rule{{Commands: []string{"purge"}}}
			})
			c := s.login(t, k)
			for _, test := range []struct{ line, status, cause string }{
				{"\talice\timport\tmaildir:/etc\tX\tall", "-NOPERM", `dangerous = ["files"]`},
				{"\talice\tsync\ttcp:evil", "-NOPERM", `dangerous = ["hosts"]`},
				{"\talice\tsync\tsh\t-c\tid", "-NOPERM", `dangerous = ["programs"]`},
				{"\talice\tcopy\tX\tuser\tbob\tall", "-NOPERM", "not about the other user, bob"},
				{"\talice\timport\t-p\tx=y\tmaildir:x\tX\tall", "-NOPERM", `"settings"`},
				{"\talice\twho", "-NOPERM", `commands = ["who"]`},
				{"\talice\tfs\tget\tposix\tx\t/etc/passwd", "-NOPERM", "right admin"},
				{"\talice\tpurge", "-NOPERM", "deny #1 of client panel"},
				{"\tbob\tquota get", "-NOPERM", "about other users"},
				{"\t\tquota get", "-NOPERM", "about other users"},
				{"\t*@s1\tquota get", "-NOPERM", "concerns others too"},
				{"\talice\tfetch\t-Z\ttext\tall", "-USAGE", "what this version does not know (argument -Z)"},
				{"\tbob\tfetch\t-Z\ttext\tall", "-NOPERM", "about other users"},
				{"\talice\tno-such", "-", "unknown command: no-such"},
				{"\talice\texec\tsh", "-", "unknown command: exec"},
				{"\talice\tquota get \x01n", "-", "unknown command"},
				{"\tbob\tsave\nmail\r\n.\r", "-NOPERM", "about other users"},
			} {
				status, cause := test.status, test.cause
				r := c.run(t, test.line+"\n")
				if r.status != status || k.logs() && !strings.Contains(r.log(), cause) {
					t.Errorf("%q: %s %q, want %s %q", test.line, r.status, r.logs, status, cause)
				}
				s.log.wait(t, "[WARN]", "outcome=denied", strings.ReplaceAll(cause, `"`, `\"`))
			}
			for _, line := range []string{"\tALICE\tquota get", "\tx@S1\tfetch\ttext\tall"} {
				if r := c.run(t, line+"\n"); r.status != "+" {
					t.Errorf("%q: %s %q", line, r.status, r.logs)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if strings.Join(heard, ",") != "quota get,fetch" {
				t.Errorf("the backend heard of %q", heard)
			}
		})
	}
}

// TestRightsByShard: rules may be about shards and backends.
func TestRightsByShard(t *testing.T) {
	one, two := newBackend(t, 3, answer), newBackend(t, 3, answer)
	s := start(t, configure(t, func(c *config.Config) {
		c.Clients[0].Allow = []config.Rule{{Shards: []string{"s1"}}}
	}, one.Addr(), two.Addr()))
	c := s.login(t, client13)
	for line, status := range map[string]string{"\tx@s1\tquota get\n": "+", "\tx@s2\tquota get\n": "-NOPERM", "\tnobody\tquota get\n": "-NOPERM"} {
		if r := c.run(t, line); r.status != status {
			t.Errorf("%q: %s %q, want %s", line, r.status, r.logs, status)
		}
	}
}

// TestRightsAreReloaded: a reload changes what an open session may do.
func TestRightsAreReloaded(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	c.works(t)
	s.cfg.Clients[0].Deny = []config.Rule{{}}
	must(t, s.Reload(s.cfg))
	if r := c.run(t, "\talice\tquota get\n"); r.status != "-NOPERM" {
		t.Errorf("%s %q", r.status, r.logs)
	}
}
