package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

const smuggled = "\tbob\tmailbox create\tSMUGGLED\r\n"

// TestPluginMissing: a backend without Pigeonhole would take a script for
// commands. It never sees it.
func TestPluginMissing(t *testing.T) {
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if strings.HasPrefix(cmd.Name, "sieve") {
			c.Log(doveadm.LogError, "doveadm: Client sent unknown command: "+cmd.Name)
			c.Status("-")
			return
		}
		answer(c, cmd)
	}
	s, srv := startWith(t, 2, h, nil)
	c := s.login(t, client13)
	c.refused(t, "\talice\tsieve put\tvacation\n"+smuggled+"\r\n.\r\n", "-", "Pigeonhole")
	c.works(t)
	for _, cmd := range srv.Commands() {
		if cmd.Name == "sieve put" || cmd.User == "bob" {
			t.Errorf("the backend got %+v", cmd)
		}
	}
}

// TestEarlyAnswer: a backend that answers before it has read the input, small
// or large, gets no more of it, and its connection no further command.
func TestEarlyAnswer(t *testing.T) {
	for _, size := range []int{10, 32 << 20} {
		answered := make(chan struct{})
		got := make(chan error, 1)
		h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.Name != "save" {
				answer(c, cmd)
				return
			}
			c.Status("-NOUSER")
			// Until here no more was written than the sockets take.
			<-answered
			_, err := c.Input()
			got <- err
		}
		s, srv := startWith(t, 2, h, nil)
		c := s.login(t, client13)
		if r := c.run(t, "\talice\tsave\n"+strings.Repeat("x", size)+"\r\n.\r\n"); r.status != "-NOUSER" {
			t.Errorf("status %s", r.status)
		}
		close(answered)
		if err := <-got; size > 1<<20 && err == nil {
			t.Errorf("all of a large input was written, behind the status")
		}
		c.works(t)
		for _, cmd := range srv.Commands() {
			if cmd.Name != "save" && cmd.Name != "quota get" {
				t.Errorf("the backend got %+v", cmd)
			}
		}
	}
}

// TestInputLost: a backend that dies in the middle of an input.
func TestInputLost(t *testing.T) {
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "save" {
			c.Close()
			return
		}
		answer(c, cmd)
	}
	s, srv := startWith(t, 2, h, neverOpens)
	c := s.login(t, client13)
	c.works(t)
	for _, size := range []int{10, 10 << 20} {
		c.refused(t, "\talice\tsave\n"+strings.Repeat("x", size)+"\r\n.\r\n", "-TEMPFAIL", "backend b1")
		c.works(t)
	}
	saves := 0
	for _, cmd := range srv.Commands() {
		if cmd.Name == "save" {
			saves++
		}
	}
	if saves != 2 {
		t.Errorf("%d commands for 2", saves)
	}
}

// TestInputLimits: too large, too slow, no room.
func TestInputLimits(t *testing.T) {
	big := strings.Repeat("x", 500_000) + "\r\n.\r\n"
	t.Run("max_input", func(t *testing.T) {
		s, srv := startWith(t, 2, answer, func(c *config.Config) { c.Limits.MaxInput = 100_000 })
		c := s.login(t, client13)
		c.refused(t, "\talice\tsave\n"+big, "-TEMPFAIL", "limits.max_input")
		c.works(t)
		if n := len(srv.Commands()); n != 1 {
			t.Errorf("the backend got %d commands", n)
		}
	})
	t.Run("max_spool", func(t *testing.T) {
		s, _ := startWith(t, 2, answer, func(c *config.Config) { c.Limits.MaxSpool = 100_000 })
		c := s.login(t, client13)
		c.refused(t, "\talice\tsave\n"+big, "-TEMPFAIL", "limits.max_spool")
		c.works(t)
	})
	t.Run("input_timeout", func(t *testing.T) {
		s, _ := startWith(t, 2, answer, func(c *config.Config) { c.Limits.InputTimeout = 50 * time.Millisecond })
		c := s.login(t, client13)
		c.refused(t, "\talice\tsave\nhalf a mail", "-TEMPFAIL", "limits.input_timeout")
		c.ended(t)
	})
}
