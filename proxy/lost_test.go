package proxy_test

import (
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// closes makes a backend close without a reply, on connection n.
func closes(n int) handler {
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if c.Number() == n && cmd.Name != "quota get" {
			c.Log(doveadm.LogWarning, "Killed with signal 15")
			c.Close()
			return
		}
		answer(c, cmd)
	}
}

func repeated(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, closes(1), oneFailureOpens)
	c := s.login(t, p.client)
	c.works(t)
	for _, line := range []string{"fetch\ttext\tall", "quota recalc"} {
		r := c.run(t, "\talice\t"+line+"\n")
		if r.status != "+" || r.output != "alice\t2\t" || len(r.logs) > 0 {
			t.Errorf("%s: the client notices: %q", line, r)
		}
	}
	var got []string
	for _, cmd := range srv.Commands() {
		got = append(got, cmd.Name)
	}
	if diff := cmp.Diff([]string{"quota get", "fetch", "fetch", "quota recalc"}, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	s.log.wait(t, "[INFO]", "command=fetch", "outcome=answered", "retried=true")
	c.works(t)
}

func repeatedOnce(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "search" {
			c.Close() // so Dovecot answers a bad query, on any connection
			return
		}
		answer(c, cmd)
	}, oneFailureOpens)
	c := s.login(t, p.client)
	c.works(t)
	c.refused(t, "\talice\tsearch\tbad\n", "-TEMPFAIL", "backend b1 closed the connection without a reply (wrong arguments, or a crash: see its log)")
	s.log.wait(t, "[WARN]", "command=search", "outcome=unanswered", "status=-TEMPFAIL", "retried=true")
	if got := srv.Commands(); len(got) != 3 {
		t.Errorf("the backend got %+v", got)
	}
	c.works(t)
}

func notRepeated(t *testing.T, p pair) {
	for _, line := range []string{"move\tTrash\tall", "copy\tTrash\tall", "no such command", "mailbox delete\tX"} {
		s, srv := startWith(t, p.backend, closes(1), oneFailureOpens)
		c := s.login(t, p.client)
		c.works(t)
		r := c.run(t, "\talice\t"+line+"\n")
		c.failed(t, r, "-TEMPFAIL", "backend b1 closed the connection without a reply")
		s.log.wait(t, "[WARN]", "outcome=unanswered", "status=-TEMPFAIL")
		c.works(t)
		if got := srv.Commands(); len(got) != 3 {
			t.Errorf("%s: the backend got %+v", line, got)
		}
	}
}

func closedFresh(t *testing.T, p pair) {
	for name, end := range map[string]func(c *doveadmtest.Conn){"close": (*doveadmtest.Conn).Close, "reset": (*doveadmtest.Conn).Reset} {
		s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.Name == "fetch" {
				end(c)
				return
			}
			answer(c, cmd)
		}, oneFailureOpens)
		c := s.login(t, p.client)
		c.refused(t, "\talice\tfetch\tbad\tall\n", "-TEMPFAIL", "backend b1 closed the connection without a reply")
		s.log.wait(t, "[WARN]", "outcome=unanswered", "status=-TEMPFAIL")
		if got := srv.Commands(); len(got) != 1 {
			t.Errorf("%s: the backend got %+v", name, got)
		}
		c.works(t) // by the breaker, too
	}
}

func goneInTheMiddle(t *testing.T, p pair) {
	for name, end := range map[string]func(c *doveadmtest.Conn){"close": (*doveadmtest.Conn).Close, "reset": (*doveadmtest.Conn).Reset} {
		gone := make(chan struct{})
		s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.Name == "quota get" {
				answer(c, cmd)
				return
			}
			c.Fields("u1", "t1")
			c.Output([]byte("u2\tt\x01"))
			<-gone // a reset would overtake what the proxy has not read
			end(c)
		}, oneFailureOpens)
		c := s.login(t, p.client)
		must(t, c.send("\talice\tfetch\tuid text\tall\n"))
		for got := ""; !strings.Contains(got, "\x01"); {
			_, err := c.in.Peek(c.in.Buffered() + 1)
			must(t, err)
			data, err := c.in.Peek(c.in.Buffered())
			must(t, err)
			got = string(data)
		}
		close(gone)
		r, err := c.reply()
		must(t, err)
		if r.output != "u1\tt1\tu2\tt\x011\t" {
			t.Errorf("%s: output %q", name, r.output)
		}
		c.failed(t, r, "-TEMPFAIL", "backend b1 was lost in the middle of the command")
		s.log.wait(t, "[ERROR]", "outcome=lost", "status=-TEMPFAIL")
		s.log.wait(t, "circuit breaker opened") // it was told
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "circuit breaker is open")
		if got := srv.Commands(); len(got) != 1 {
			t.Errorf("%s: the backend got %+v", name, got)
		}
	}
}

func goneColumnsUnknown(t *testing.T, p pair) {
	s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name != "quota get" {
			c.Output([]byte("one\ttwo\tthr"))
			c.Close()
			return
		}
		answer(c, cmd)
	}, nil)
	c := s.login(t, p.client)
	must(t, c.send("\talice\tno such command\n"))
	r, err := c.reply()
	if err != io.EOF || r.output != "one\ttwo\tthr" {
		t.Errorf("got %q, %v, want what arrived and the end of the connection", r, err)
	}
	c.failed(t, r, "", "backend b1 was lost in the middle of the command")
	s.log.wait(t, "[ERROR]", "outcome=lost")
	s.login(t, p.client).works(t)
}

func silentTooLong(t *testing.T, p pair) {
	const limit = 300 * time.Millisecond
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		switch cmd.Name {
		case "quota get":
			answer(c, cmd)
		case "fetch":
			c.Fields("u1", "t1")
			c.Output([]byte("u2"))
			c.Hang()
		default:
			c.Hang()
		}
	}, both(neverOpens, func(c *config.Config) {
		first(c).Timeouts.Normal = config.CommandTimeouts{FirstReply: limit, Reply: limit}
	}))
	c := s.login(t, p.client)
	c.works(t)
	r := c.run(t, "\talice\tfetch\tuid text\tall\n")
	if r.output != "u1\tt1\tu2\t\t" {
		t.Errorf("output %q", r.output)
	}
	c.failed(t, r, "-TEMPFAIL", "backend b1 did not go on with its answer within 300ms (timeouts.normal.reply)")
	s.log.wait(t, "[ERROR]", "outcome=timeout", "status=-TEMPFAIL")
	c.works(t)
	// Not repeated: it may be at work still.
	c.refused(t, "\talice\tsearch\tall\n", "-TEMPFAIL", "backend b1 did not answer within 300ms (timeouts.normal.first_reply)")
	c.works(t)
	if got := srv.Commands(); len(got) != 5 {
		t.Errorf("the backend got %+v", got)
	}
	eventually(t, "the mute connections are closed", func() bool { return len(srv.Conns()) == 1 })
}

func slowerThanTheCommand(t *testing.T, p pair) {
	const limit = 300 * time.Millisecond
	s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "search" {
			answer(c, cmd)
			return
		}
		for c.Context().Err() == nil { // goes on and on
			c.Fields("1")
			time.Sleep(limit / 10)
		}
	}, both(neverOpens, func(c *config.Config) { first(c).Timeouts.Quick.Command = limit }))
	c := s.login(t, p.client)
	r := c.run(t, "\talice\tmailbox list\n")
	c.failed(t, r, "-TEMPFAIL", "backend b1 did not end its answer within 300ms (timeouts.quick.command)")
	if !strings.HasPrefix(r.output, "1\t1\t") {
		t.Errorf("output %q", r.output)
	}
	s.log.wait(t, "[ERROR]", "outcome=timeout", "status=-TEMPFAIL")
	if r := c.run(t, "\talice\tsearch\tall\n"); r.status != "+" {
		t.Errorf("a command of another class: %q", r)
	}
}

// retryBudget: a backend that loses every second command does not get each of
// them twice.
func retryBudget(t *testing.T, p pair) {
	var used sync.Map // connections
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if _, again := used.LoadOrStore(c.Number(), true); again {
			c.Close()
			return
		}
		answer(c, cmd)
	}, neverOpens)
	c := s.login(t, p.client)
	const commands = 40
	failed := 0
	for range commands {
		r := c.run(t, "\talice\tquota get\n")
		if r.status != "+" {
			c.failed(t, r, "-TEMPFAIL", "backend b1 closed the connection without a reply")
			failed++
		}
	}
	if again := len(srv.Commands()) - commands; again != 10 || failed == 0 {
		t.Errorf("%d commands were sent again, %d failed, want 10 and more than none", again, failed)
	}
	s.log.wait(t, "[WARN]", "too many commands lost their connection", "backend=b1")
}

func referral(t *testing.T, p pair) {
	send := map[string]func(c *doveadmtest.Conn){
		"at once": func(c *doveadmtest.Conn) { c.Status("-REFERRAL alice@192.0.2.1") },
		"in pieces": func(c *doveadmtest.Conn) {
			c.Output([]byte("\n"))
			c.Output([]byte("-REFERRAL alice@192.0"))
			c.Output([]byte(".2.1\n"))
		},
		"a name":      func(c *doveadmtest.Conn) { c.Status("-REFERRAL alice@mail9:24245") },
		"to nobody":   func(c *doveadmtest.Conn) { c.Status("-REFERRAL") },
		"control":     func(c *doveadmtest.Conn) { c.Status("-REFERRAL a\x01\x1b[31m@b\x04") },
		"behind rows": func(c *doveadmtest.Conn) { c.Output([]byte("u1\tt1\t\n-REFERRAL alice@192.0.2.1\n")) },
		"behind rows in pieces": func(c *doveadmtest.Conn) {
			c.Output([]byte("u1\tt1\t"))
			c.Output([]byte("\n"))
			c.Output([]byte("-REFERRAL alice@192.0.2.1\n"))
		},
	}
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "quota get" {
			answer(c, cmd)
			return
		}
		send[cmd.Args[1]](c)
	}, oneFailureOpens)
	c := s.login(t, p.client)
	for i, tc := range []struct{ query, output, reason string }{
		{"at once", "", "no backend has this address, and it is not in referrals.networks"},
		{"in pieces", "", "no backend has this address"},
		{"a name", "", "refers to alice@mail9:24245: no backend has this address, and it is not an IP address"},
		{"to nobody", "", "no backend has this address"},
		{"control", "", `refers to "a\x01\x1b[31m@b\x04": no backend`},
		{"behind rows", "u1\tt1\t", "after it has begun to answer"},
		{"behind rows in pieces", "u1\tt1\t", "after it has begun to answer"},
	} {
		r := c.run(t, "\talice\tfetch\tuid text\t"+tc.query+"\n")
		if r.output != tc.output {
			t.Errorf("%s: output %q, want %q", tc.query, r.output, tc.output)
		}
		c.failed(t, r, "-TEMPFAIL", "backend b1 refers to ", tc.reason)
		c.works(t)
		// The connection is not used again.
		if got := srv.Accepted(); got != i+2 {
			t.Errorf("%s: %d connections, want %d", tc.query, got, i+2)
		}
	}
	s.log.wait(t, "[ERROR]", "outcome=referral", "status=-TEMPFAIL")
}

func clientGone(t *testing.T, p pair, leave func(c *client)) {
	var streams atomic.Int64
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "quota get" {
			answer(c, cmd)
			return
		}
		streams.Add(1)
		row := []byte("1\t" + strings.Repeat("x", 60<<10) + "\t")
		for range 500 { // more than sockets hold
			c.Output(row)
		}
		c.Hang() // until the proxy closes
	}, oneFailureOpens)
	c := s.login(t, p.client)
	c.works(t)
	must(t, c.send("\talice\tfetch\tuid text\tall\n"))
	if _, err := c.in.Peek(100); err != nil {
		t.Fatal(err)
	}
	leave(c)
	eventually(t, "the connection to the backend is closed", func() bool { return len(srv.Conns()) == 0 })
	s.log.wait(t, "[INFO]", "command=fetch", "outcome=client-gone")
	s.login(t, p.client).works(t)
	if got := streams.Load(); got != 1 {
		t.Errorf("the command ran %d times", got)
	}
}
