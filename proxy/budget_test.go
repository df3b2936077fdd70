package proxy_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// A client that is too fast gets a failure that says so, its session goes on,
// the audit log has each command and the log not all of them; another client
// is not concerned.
func TestRateLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	s, _ := startWith(t, 3, answer, both(auditTo(path), func(c *config.Config) {
		other := c.Clients[0]
		other.Name = "other"
		c.Clients = append(c.Clients, other)
		c.Clients[0].Rates = config.Rates{Commands: 1, Burst: 3}
	}))
	c := s.login(t, client13)
	for range 3 {
		c.works(t)
	}
	const fast = 100
	refused := 0
	for range fast {
		if r := c.run(t, "\talice\tquota get\n"); r.status == "-TEMPFAIL" {
			refused++
			if logs := fmt.Sprint(r.logs); !strings.Contains(logs, "rate_limit of the client, 1 commands a second") {
				t.Errorf("the client is told %q", logs)
			}
		}
	}
	if refused < fast/2 {
		t.Errorf("%d of %d commands refused", refused, fast)
	}
	line := s.log.wait(t, "[WARN]", "outcome=over-rate", "rate_limit", "client="+clientName)
	if n := len(s.log.lines("outcome=over-rate")); n == 0 || n > refused {
		t.Errorf("%d lines of %d refusals, the first: %s", n, refused, line)
	}
	other := s.connect(t)
	must(t, other.loginAs("other", client13))
	other.works(t)
	eventually(t, "all are in the audit log", func() bool { return s.AuditStat().Written == 3+fast+1 })
	n := 0
	for _, r := range records(t, path) {
		if r["outcome"] == "over-rate" && r["status"] == "-TEMPFAIL" && r["backend"] == nil {
			n++
		}
	}
	if n != refused {
		t.Errorf("%d records of %d refusals", n, refused)
	}
}

// Bytes count when a command has ended.
func TestByteLimit(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) { c.Clients[0].Rates.BytesPerDay = 1 })
	c := s.login(t, client13)
	c.works(t)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "bytes_per_day of the client is used up")
}
