package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// goneKinds are those clients that can be told apart from one that has only
// said all that it had to say.
var goneKinds = []clientKind{{"1.1", 1, false}, client13, client14}

// silentBackend answers quota get, begins a reply to fetch, and leaves
// everything else without an answer.
func silentBackend(arrived chan<- string) handler {
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		switch cmd.Name {
		case "quota get":
			answer(c, cmd)
			return
		case "fetch":
			c.Fields("u1", "t1")
		}
		arrived <- cmd.Name
		c.Hang()
	}
}

// TestClientGoneFreesBackend: whatever a command does or waits for when its
// client closes, its connection to the backend is closed, too.
func TestClientGoneFreesBackend(t *testing.T) {
	for _, tc := range []struct {
		name, send string
		input      bool // the backend does not read it
	}{
		{name: "waiting for the first byte", send: "\talice\tsearch\tall\n"},
		{name: "in the middle of a reply", send: "\talice\tfetch\tuid text\tall\n"},
		{name: "in the middle of input", send: "\talice\tsave\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 20_000) + ".\r\n", input: true},
		{name: "sent ahead", send: "\talice\tsearch\tall\n\tbob@s1\tfetch\tuid text\tall\n\tcarol@s1\tsearch\tall\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, k := range goneKinds {
				t.Run(k.name, func(t *testing.T) {
					t.Parallel()
					arrived := make(chan string, 3)
					s, srv := startWith(t, 3, silentBackend(arrived), oneFailureOpens)
					c := s.login(t, k)
					must(t, c.send(tc.send))
					if tc.input {
						eventually(t, "the command is on its way", func() bool { return len(srv.Conns()) == 1 })
					} else {
						<-arrived
					}
					begin := time.Now()
					must(t, c.nc.Close())
					eventually(t, "the connection to the backend is closed", func() bool { return len(srv.Conns()) == 0 })
					t.Logf("after %v", time.Since(begin))
					s.log.wait(t, "[INFO]", "outcome=client-gone", "reason=\"the client closed the connection\"")
					s.login(t, client13).works(t) // by the breaker, too
				})
			}
		})
	}
}

func TestClientGoneLeavesTheQueue(t *testing.T) {
	for _, k := range goneKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h, arrived, leave := hold(answer)
			s, srv := startWith(t, 3, h, both(oneFailureOpens, func(c *config.Config) {
				first(c).Pool.MaxOpen = 1
				first(c).Pool.AcquireTimeout = 0
			}))
			busy, c := s.login(t, client13), s.login(t, k)
			must(t, busy.send("\talice\tquota get\n"))
			<-arrived
			must(t, c.send("\tnobody@s1\tquota get\n"))
			must(t, c.nc.Close())
			s.log.wait(t, "[INFO]", "user=nobody@s1", "outcome=client-gone")
			close(leave)
			if r, err := busy.reply(); err != nil || r.status != "+" {
				t.Errorf("%q, %v", r, err)
			}
			for _, cmd := range srv.Commands() {
				if cmd.User != "alice" {
					t.Errorf("the backend got %+v", cmd)
				}
			}
		})
	}
}

// A client that has said all and waits for the reply is not gone, as long as
// it takes.
func TestHalfCloseIsNotGone(t *testing.T) {
	for _, k := range clientKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			h, arrived, leave := hold(answer)
			s, _ := startWith(t, 3, h, nil)
			c, other := s.login(t, k), s.login(t, client13)
			for _, c := range []*client{c, other} {
				must(t, c.send("\talice\tquota get\n"))
				<-arrived
				must(t, c.nc.CloseWrite())
			}
			if p, err := other.next(); err != nil || p.data != "" {
				t.Errorf("%+v, %v, want a packet of nothing", p, err)
			}
			if k.framed() {
				// Of c the proxy wants to know as well.
				if _, err := c.in.Peek(1); err != nil {
					t.Error(err)
				}
			}
			close(leave)
			r, err := c.reply()
			if err != nil || r.status != "+" || len(r.fields()) != 2 {
				t.Errorf("%q, %v", r, err)
			}
			c.ended(t)
		})
	}
}

// Over TLS the end of what a client says is a message of its own.
func TestClientGoneOverTLS(t *testing.T) {
	arrived := make(chan string, 1)
	a := newAuthority(t)
	s, srv := startWith(t, 3, silentBackend(arrived), a.on(config.TLSImplicit))
	c := s.connect(t)
	must(t, c.secure(a.client()), c.login(client13))
	must(t, c.send("\talice\tsearch\tall\n"))
	<-arrived
	must(t, c.nc.Close())
	eventually(t, "the connection to the backend is closed", func() bool { return len(srv.Conns()) == 0 })
	s.log.wait(t, "[INFO]", "outcome=client-gone")
}
