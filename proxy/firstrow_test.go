package proxy_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// statusRow is a row of "mailbox status all" of releases up to 2.4.1, or with
// the column "deleted" of those from 2.4.2 on.
func statusRow(mailbox string, deleted bool) string {
	fields := strings.Fields("6 0 7 1700000000 6 1 98765432101234567890 12c8b1390e8d9f6543210a4b5c6d7e8f 1700000001")
	if deleted {
		fields = slices.Insert(fields, 2, "3")
	}
	return mailbox + "\t" + strings.Join(fields, "\t") + "\t"
}

// TestStatusAllForSeveralUsers: what a client below 1.3 means by "all" does not
// depend on the release of the backend.
func TestStatusAllForSeveralUsers(t *testing.T) {
	for _, minor := range minors {
		s, srv := startWith(t, minor, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.Name == "quota get" {
				answer(c, cmd)
				return
			}
			// As 2.4.2 and later; those before 2.4 know no "deleted".
			deleted := minor >= 3 && slices.Contains(cmd.Args, "all")
			c.Output([]byte(statusRow("INBOX", deleted) + statusRow("Sent", deleted)))
			c.Status("+")
		}, nil)
		c := s.login(t, client10)
		r := c.run(t, "\talice\tmailbox status\t-A\tall\t*\n")
		if want := "alice\t" + statusRow("INBOX", false) + "alice\t" + statusRow("Sent", false); r.status != "+" || r.output != want {
			t.Errorf("backend 1.%d: got %q %q, want %q", minor, r.output, r.status, want)
		}
		want := []string{"all", "*"}
		if minor >= 3 {
			want[0] = "messages recent uidnext uidvalidity unseen highestmodseq vsize guid firstsaved"
		}
		if got := srv.Commands()[0].Args; !slices.Equal(got, want) {
			t.Errorf("backend 1.%d: sent %q, want %q", minor, got, want)
		}
		c.works(t)
	}
}

// TestStatusAllCutAtEveryByte: the rows that a client gets are whole, however
// many columns the release of the backend has, and of a first row that does not
// show it nothing arrives.
func TestStatusAllCutAtEveryByte(t *testing.T) {
	for _, p := range []pair{{client13, 3}, {client13mute, 3}, {client14, 3}, {client13, 4}, {clientKinds[2], 3}, {client13, 2}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			for _, columns := range []int{10, 11} {
				if columns == 11 && (p.backend < 3 || p.client.minor < 3) {
					continue
				}
				statusAllCutAtEveryByte(t, p, columns)
			}
		})
	}
}

func statusAllCutAtEveryByte(t *testing.T, p pair, columns int) {
	output := statusRow("a\x01tb", columns == 11) + statusRow("INBOX", columns == 11) + statusRow("x", columns == 11)
	s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		n, err := strconv.Atoi(cmd.Args[len(cmd.Args)-1])
		must(t, err)
		// In two pieces, of which the first may hold less than is to be known.
		c.Output([]byte(output[:n/2]))
		c.Output([]byte(output[n/2 : n]))
		if n == len(output) {
			c.Status("+")
			return
		}
		c.Close()
	}, neverOpens)
	c := s.login(t, p.client)
	silent := 0
	for n := range len(output) + 1 {
		r := c.run(t, fmt.Sprintf("\talice\tmailbox status\tall\t%d\n", n))
		if n == len(output) {
			if r.output != output || r.status != "+" {
				t.Errorf("a whole reply: %q %q", r.output, r.status)
			}
			continue
		}
		c.failed(t, r, "-TEMPFAIL", "backend b1 ")
		if r.output == "" {
			silent = n
			continue
		}
		if got := strings.Count(r.output, "\t"); got%columns != 0 {
			t.Errorf("%d columns, cut at %d: %d fields: %q", columns, n, got, r.output)
		}
		if want := strings.TrimSuffix(output[:n], "\x01"); !strings.HasPrefix(r.output, want) {
			t.Errorf("%d columns, cut at %d: got %q, want it to begin with %q", columns, n, r.output, want)
		}
	}
	if first := strings.Index(output, "INBOX"); silent >= first {
		t.Errorf("%d columns: nothing arrives of the first %d bytes, more than a row of %d", columns, silent, first)
	}
}
