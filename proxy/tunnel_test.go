package proxy_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// echo is a backend whose dsync-server sends back what it gets, with a log line
// first, and ends with "bye" when the client has no more to say.
func echo(c *doveadmtest.Conn, cmd *doveadm.Command) {
	if cmd.Name != "dsync-server" {
		answer(c, cmd)
		return
	}
	c.Output([]byte("\n+\nhello\n"))
	c.Log(doveadm.LogInfo, "tunnel begins")
	text, _ := c.Rest()
	c.Output([]byte(text))
	c.Output([]byte("bye\n"))
	c.Close()
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	for _, minor := range minors {
		for _, k := range clientKinds {
			s, srv := startWith(t, minor, echo, nil)
			c := s.login(t, k)
			line := "\talice\tdsync-server\t-ualice\n"
			if k.minor >= 3 {
				line = "x\tproxy-ttl=1\talice\tdsync-server\t-ualice\n"
			}
			text := "raw\x00\x03\n.\n\talice\tstop\n" + strings.Repeat("y", 300_000)
			must(t, c.send(line+text))
			c.nc.CloseWrite()
			var got, logs strings.Builder
			for {
				p, err := c.next()
				if err == io.EOF {
					break
				}
				must(t, err)
				if p.channel == 'L' {
					logs.WriteString(p.data)
				} else {
					got.WriteString(p.data)
				}
			}
			if want := "\n+\nhello\n" + text + "bye\n"; got.String() != want {
				t.Errorf("client %s, backend 1.%d: got %d bytes, want %d: %.100q", k.name, minor, got.Len(), len(want), got.String())
			}
			if want := k.logs() && minor > 0; strings.Contains(logs.String(), "tunnel begins") != want {
				t.Errorf("client %s, backend 1.%d: log %q", k.name, minor, logs.String())
			}
			if cmds := srv.Commands(); len(cmds) != 1 || cmds[0].User != "alice" {
				t.Errorf("the backend got %+v", cmds)
			}
		}
	}
}

// TestTunnelLimits: idle, more than max_tunnels, refused, and a shutdown.
func TestTunnelLimits(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		s, _ := startWith(t, 2, echo, func(c *config.Config) { first(c).Timeouts.Tunnel = 50 * time.Millisecond })
		c := s.login(t, client13)
		must(t, c.send("\talice\tdsync-server\t-ualice\n"))
		c.ended(t)
		s.log.wait(t, "outcome=timeout", "timeouts.tunnel")
	})
	t.Run("max_tunnels", func(t *testing.T) {
		s, _ := startWith(t, 2, echo, func(c *config.Config) {
			first(c).Pool.MaxTunnels = 1
			first(c).Pool.AcquireTimeout = 50 * time.Millisecond
		})
		one := s.login(t, client13)
		must(t, one.send("\talice\tdsync-server\t-ualice\n"))
		if _, err := one.next(); err != nil {
			t.Fatal(err)
		}
		two := s.login(t, client13)
		two.refused(t, "\talice\tdsync-server\t-ualice\n", "-TEMPFAIL", "pool.max_tunnels")
		two.works(t)
		one.nc.CloseWrite()
		one.ended(t)
		must(t, two.send("\talice\tdsync-server\t-ualice\n"))
		if p, err := two.next(); err != nil || !strings.HasPrefix(p.data, "\n+\n") {
			t.Errorf("after the first: %q, %v", p.data, err)
		}
	})
	t.Run("max_tunnels of bulk clients", func(t *testing.T) {
		s, _ := startWith(t, 2, echo, func(c *config.Config) {
			first(c).Pool.MaxTunnels = 2
			first(c).Pool.AcquireTimeout = time.Second
			c.Clients[0].Priority = config.PriorityBulk
			other := c.Clients[0]
			other.Name, other.Priority = "other", config.PriorityInteractive
			c.Clients = append(c.Clients, other)
		})
		begins := func(c *client) {
			t.Helper()
			must(t, c.send("\talice\tdsync-server\t-ualice\n"))
			if p, err := c.next(); err != nil || !strings.HasPrefix(p.data, "\n+\n") {
				t.Fatalf("%q, %v", p.data, err)
			}
		}
		one, two, other := s.login(t, client13), s.login(t, client13), s.connect(t)
		must(t, other.loginAs("other", client13))
		begins(one)
		two.refused(t, "\talice\tdsync-server\t-ualice\n", "-TEMPFAIL", "pool.max_tunnels")
		begins(other)
		one.nc.CloseWrite()
		one.ended(t)
		begins(two)
	})
	t.Run("refused by the backend", func(t *testing.T) {
		s, _ := startWith(t, 2, func(c *doveadmtest.Conn, cmd *doveadm.Command) { c.Status("-NOUSER") }, nil)
		c := s.login(t, client13)
		for range 2 {
			if r := c.run(t, "\talice\tdsync-server\t-ualice\n"); r.status != "-NOUSER" {
				t.Errorf("status %s", r.status)
			}
		}
	})
}
