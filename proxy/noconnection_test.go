package proxy_test

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

func breakerOpen(t *testing.T, p pair) {
	down := unused(t)
	other := newBackend(t, p.backend, answer)
	s := start(t, configure(t, oneFailureOpens, down, other.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: dial", "connection refused")
	s.log.wait(t, "circuit breaker opened", "backend=b1")
	for range 3 {
		begin := time.Now()
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: circuit breaker is open")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("refused after %v", took)
		}
	}
	s.log.wait(t, "[ERROR]", "command:", "outcome=unavailable", "status=-TEMPFAIL", "backend b1: circuit breaker is open")
	if r := c.run(t, "\tbob@s2\tquota get\n"); r.status != "+" {
		t.Errorf("on the other shard: %q", r)
	}
}

// hold makes a handler that tells of each command and waits for leave to
// answer it.
func hold(h handler) (handler, chan string, chan struct{}) {
	arrived, leave := make(chan string, 100), make(chan struct{})
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		arrived <- cmd.User
		select {
		case <-leave:
			h(c, cmd)
		case <-c.Context().Done():
		}
	}, arrived, leave
}

func noConnectionInTime(t *testing.T, p pair) {
	h, arrived, leave := hold(answer)
	s, _ := startWith(t, p.backend, h, both(oneFailureOpens, func(c *config.Config) {
		first(c).Pool.MaxOpen = 1
		// Long enough for the first command's dial on a busy machine.
		first(c).Pool.AcquireTimeout = time.Second
	}))
	busy, c := s.login(t, p.client), s.login(t, p.client)
	must(t, busy.send("\talice\tquota get\n"))
	<-arrived
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: no connection became free in time")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "no connection became free in time")
	close(leave)
	if r, err := busy.reply(); err != nil || r.status != "+" {
		t.Errorf("the command that was first: %q, %v", r, err)
	}
	c.works(t)
}

func tooManyWait(t *testing.T, p pair) {
	h, arrived, leave := hold(answer)
	s, _ := startWith(t, p.backend, h, both(oneFailureOpens, func(c *config.Config) {
		first(c).Pool.MaxOpen = 1
		first(c).Pool.MaxWaiting = 0
	}))
	busy, c := s.login(t, p.client), s.login(t, p.client)
	must(t, busy.send("\talice\tquota get\n"))
	<-arrived
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: too many commands wait for a connection")
	close(leave)
	if r, err := busy.reply(); err != nil || r.status != "+" {
		t.Errorf("the command that was first: %q, %v", r, err)
	}
	c.works(t)
}

func dialFailed(t *testing.T, p pair) {
	address := unused(t)
	s := start(t, configure(t, neverOpens, address))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: dial tcp "+address, "connection refused")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "status=-TEMPFAIL", "connection refused")
	doveadmtest.NewServer(t, doveadmtest.Options{Minor: p.backend, Password: backendPassword, Handler: answer, Address: address})
	c.works(t)
}

func failover(t *testing.T, p pair) {
	second := newBackend(t, p.backend, answer)
	s := start(t, configure(t, func(c *config.Config) {
		standby := c.Shards[0].Backends[0]
		standby.Name, standby.Address = "b1-standby", second.Addr()
		c.Shards[0].Backends = append(c.Shards[0].Backends, standby)
	}, unused(t)))
	c := s.login(t, p.client)
	if r := c.works(t); len(r.logs) > 0 {
		t.Errorf("the client notices: %q", r.logs)
	}
	s.log.wait(t, "outcome=answered", "backend=b1-standby")
	second.Close()
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "connection refused")
}

func backendLoginFailed(t *testing.T, p pair) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: p.backend, Password: "another", Handler: answer})
	s := start(t, configure(t, nil, srv.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: login at "+srv.Addr(), "refused the login", "doveadm_password")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "refused the login")
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "refused the login")
	if got := srv.Commands(); len(got) > 0 {
		t.Errorf("the backend got %+v", got)
	}
}

func notADoveadmServer(t *testing.T, p pair) {
	for name, tc := range map[string]struct {
		connected func(c *doveadmtest.Conn)
		cause     string
	}{
		"closes":  {func(c *doveadmtest.Conn) { c.Close() }, "greeting: "},
		"resets":  {func(c *doveadmtest.Conn) { c.Reset() }, ""},
		"HTTP":    {func(c *doveadmtest.Conn) { c.Raw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, `invalid handshake line: \"HTTP/1.1 400`},
		"control": {func(c *doveadmtest.Conn) { c.Raw([]byte("220 \x1b[31m\x04mail\r\n")) }, `invalid handshake line: \"220 \x1b[31m\x04mail`},
	} {
		srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: p.backend, Connected: tc.connected})
		s := start(t, configure(t, nil, srv.Addr()))
		c := s.login(t, p.client)
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: ", srv.Addr(), strings.ReplaceAll(tc.cause, `\"`, `"`))
		s.log.wait(t, "[ERROR]", "outcome=unavailable", srv.Addr(), tc.cause)
		if t.Failed() {
			t.Log(name)
		}
	}
}

// A TCP connection that nobody answers.
func TestConnectTimeout(t *testing.T) {
	// A listener that accepts nothing, whose queue is full: the kernel drops
	// what would open another connection.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	defer syscall.Close(fd)
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	must(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for {
		nc, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			break
		}
		defer nc.Close()
	}
	s := start(t, configure(t, func(c *config.Config) { first(c).Timeouts.Connect = 50 * time.Millisecond }, address))
	c := s.login(t, client13)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: dial tcp "+address, "timeout")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "timeout")
}

func backendTLSFailed(t *testing.T, p pair) {
	a, other := newAuthority(t), newAuthority(t)
	srv, toBackend := a.backend(t, config.TLSImplicit, answer)
	s := start(t, configure(t, both(toBackend, neverOpens, func(c *config.Config) { first(c).TLS.CAFile = other.path("ca.crt") }), srv.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1", "TLS: ", "certificate")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "status=-TEMPFAIL")
	if n := len(srv.Commands()); n > 0 {
		t.Errorf("%d commands arrived", n)
	}
	cfg := configure(t, toBackend, srv.Addr())
	cfg.Listeners = s.cfg.Listeners
	must(t, s.Reload(cfg))
	c.works(t)
}

func neverGreets(t *testing.T, p pair) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{
		Minor: p.backend, Password: backendPassword, Handler: answer,
		Connected: func(c *doveadmtest.Conn) {
			if c.Number() == 1 {
				c.Hang()
			}
		},
	})
	s := start(t, configure(t, func(c *config.Config) { first(c).Timeouts.Handshake = 300 * time.Millisecond }, srv.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1", "does not greet", "process_limit")
	s.log.wait(t, "[WARN]", "backend accepts connections and does not greet", "process_limit")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "does not greet")
	c.works(t)
}
