package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// TestIdleTimeoutIsBetweenCommands: a client that sends its input or its side
// of a tunnel slowly is not idle.
func TestIdleTimeoutIsBetweenCommands(t *testing.T) {
	const idle = 300 * time.Millisecond
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		switch cmd.Name {
		case "save":
			text, err := c.Input()
			if err != nil {
				t.Error(err)
			}
			c.Fields(text)
			c.Status("+")
		default:
			echo(c, cmd)
		}
	}
	s, _ := startWith(t, 3, h, func(c *config.Config) {
		c.Limits.IdleTimeout = idle
		c.Limits.InputTimeout = 0
	})
	c := s.login(t, client13)
	must(t, c.send("\talice\tsave\none"))
	time.Sleep(2 * idle) // a slow client
	r := c.run(t, " two\r\n.\r\n")
	if r.status != "+" || r.output != `one two`+"\x01r\x01n.\x01r\x01n\t" {
		t.Errorf("save: got %q", r)
	}

	c = s.login(t, client13)
	must(t, c.send("\talice\tdsync-server\t-ualice\none"))
	time.Sleep(2 * idle)
	must(t, c.send(" two"), c.nc.CloseWrite())
	if got := c.ended(t); !strings.Contains(got, "one two") || !strings.HasSuffix(got, "bye\n") {
		t.Errorf("tunnel: got %q", got)
	}

	c = s.login(t, client13)
	begin := time.Now()
	if got := c.ended(t); got != "" || time.Since(begin) < idle/2 {
		t.Errorf("idle: got %q after %v", got, time.Since(begin))
	}
	s.log.wait(t, "session closed", "peer="+c.nc.LocalAddr().String(), "reason=idle_timeout")
}

// TestNothingBehindAnEndedSession: a reply that was cut off where its columns
// are unknown is the last thing that a client gets, whatever it has sent ahead.
func TestNothingBehindAnEndedSession(t *testing.T) {
	arrived, seen := make(chan struct{}), make(chan struct{})
	row := strings.Repeat("x", 50_000)
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "nonsense" {
			<-arrived // else the session might end before the other is read
			c.Output([]byte("half a ro"))
			c.Close()
			return
		}
		// Some of what follows comes before the session knows that it has
		// ended, and most of it later.
		arrived <- struct{}{}
		<-seen
		for range 100 {
			c.Fields("other", row)
		}
		c.Output([]byte(strings.Repeat(row, 2) + "\t\n+\n"))
	}
	for _, k := range clientKinds {
		s, _ := startWith(t, 3, h, neverOpens)
		c := s.login(t, k)
		must(t, c.send("\ta@s1\tnonsense\n\tb@s1\tfetch\tuid text\tall\n"))
		if k.framed() {
			if _, err := c.next(); err != nil {
				t.Fatal(err)
			}
		} else if _, err := c.in.Discard(len("half a ro")); err != nil {
			t.Fatal(err)
		}
		seen <- struct{}{}
		if rest := c.ended(t); strings.Contains(rest, "other") || strings.Contains(rest, row) || strings.Contains(rest, "+") {
			t.Errorf("client %s: behind the interrupted reply: %d bytes, %.100q", k.name, len(rest), rest)
		}
		s.log.wait(t, "user=b@s1", "outcome=client-gone", "the session ended with an earlier command")
	}
}

// TestOptionBetweenCommands: a client may ask for the log channel while its
// commands run.
func TestOptionBetweenCommands(t *testing.T) {
	s, _ := startWith(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		c.Log(doveadm.LogInfo, "log of "+cmd.User)
		answer(c, cmd)
	}, nil)
	c := s.login(t, client13mute)
	const before, behind = "\ta@s1\tquota get\n\tb@s1\tquota get\n", "\tc@s1\tquota get\n\td@s1\tquota get\n"
	must(t, c.send(before+"\t\tOPTION\tlog-passthrough\n"+behind))
	for _, user := range []string{"a@s1", "b@s1", "c@s1", "d@s1"} {
		r, err := c.reply()
		must(t, err)
		if r.fields()[0] != user || r.status != "+" {
			t.Errorf("got %q, want the reply of %s", r, user)
		}
		if logged := cmp.Equal(r.logs, []string{"\x02log of " + user}); user > "c" && !logged {
			t.Errorf("%s: log %q", user, r.logs)
		}
	}
}

// TestTunnelBehindAReferral wants a connection of its own, as every tunnel.
func TestTunnelBehindAReferral(t *testing.T) {
	second := newBackend(t, 3, echo)
	firstBackend := newBackend(t, 3, refersTo(second.Addr()))
	s := start(t, configure(t, nil, firstBackend.Addr(), second.Addr()))
	c := s.login(t, client13)
	if r := c.run(t, "\tbob@s2\tquota get\n"); r.output != "bob@s2\t1\t" {
		t.Fatalf("got %q", r)
	}
	must(t, c.send("\talice\tdsync-server\t-ualice\n"), c.nc.CloseWrite())
	if got := c.ended(t); !strings.HasSuffix(got, "bye\n") {
		t.Errorf("got %q", got)
	}
	if got := second.Accepted(); got != 2 {
		t.Errorf("%d connections, want one for the tunnel alone", got)
	}
}

// TestTwoListenersOnFreePorts: port 0 is another port for each.
func TestTwoListenersOnFreePorts(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) {
		c.Listeners = append(c.Listeners, config.Listener{Name: "second", Network: "tcp", Address: "127.0.0.1:0"})
	})
	if s.Addr("main") == nil || s.Addr("second") == nil {
		t.Fatalf("listening on %v and %v", s.Addr("main"), s.Addr("second"))
	}
	for _, name := range []string{"main", "second"} {
		c := s.connectTo(t, name, 0)
		must(t, c.login(client13))
		c.works(t)
	}
	before := s.Addr("second").String()
	if err := s.Reload(s.cfg); err != nil {
		t.Fatal(err)
	}
	if got := s.Addr("second").String(); got != before {
		t.Errorf("the same configuration moved the listener from %s to %s", before, got)
	}
}

// TestWriteTimeoutOfABackend: a backend that takes nothing is told apart from
// one that does not answer.
func TestWriteTimeoutOfABackend(t *testing.T) {
	s, _ := startWith(t, 3, func(c *doveadmtest.Conn, _ *doveadm.Command) { <-c.Context().Done() },
		func(c *config.Config) { first(c).Timeouts.Write = 50 * time.Millisecond })
	c := s.login(t, client13)
	// More than sockets hold.
	c.refused(t, "\talice\tsave\n"+strings.Repeat("x", 40<<20)+"\r\n.\r\n", "-TEMPFAIL", "backend b1", "timeouts.write")
	s.log.wait(t, "[ERROR]", "command=save", "outcome=timeout", "timeouts.write")
}
