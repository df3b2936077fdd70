package pool

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsconn"
)

// onLoopback returns a pool with real sockets.
func onLoopback(t *testing.T, o doveadmtest.Options, change func(b *config.Backend)) *world {
	o.Minor, o.Password = doveadm.MaxMinor, "secret"
	w := &world{srv: doveadmtest.NewServer(t, o), log: &logLines{}}
	b := defaults()
	b.Address = w.srv.Addr()
	if change != nil {
		change(&b)
	}
	w.Pool = New(b, nil, w.log.logger())
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		if err := w.Close(now); err != nil {
			t.Error(err)
		}
	})
	return w
}

// awaitReadable returns when there is something to read on a socket, which it
// leaves there: bytes, the end or an error.
func awaitReadable(t *testing.T, nc net.Conn) {
	t.Helper()
	if tc, ok := nc.(*tls.Conn); ok {
		nc = tc.NetConn().(*tlsconn.Socket).Conn
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return err != syscall.EAGAIN
	})
	if err != nil {
		t.Fatal(err)
	}
}

var deaths = map[string]struct {
	of  func(c *doveadmtest.Conn)
	why CloseReason
}{
	"end":          {func(c *doveadmtest.Conn) { c.Close() }, closedDead},
	"cut":          {func(c *doveadmtest.Conn) { c.Cut() }, closedDead},
	"reset":        {func(c *doveadmtest.Conn) { c.Reset() }, closedDead},
	"stray bytes":  {func(c *doveadmtest.Conn) { c.Raw([]byte{0}) }, closedStray},
	"second reply": {func(c *doveadmtest.Conn) { c.Status("+") }, closedStray},
	"log packet":   {func(c *doveadmtest.Conn) { c.Log(doveadm.LogWarning, "Killed with signal 15") }, closedStray},
	"log and end": {func(c *doveadmtest.Conn) {
		c.Log(doveadm.LogWarning, "Killed with signal 15")
		c.Close()
	}, closedStray},
}

// A connection that ended while it was idle is not handed out, but the next
// one, or a new one.
func TestLookAtIdle(t *testing.T) {
	overAll(t, func(t *testing.T, over transport) {
		for name, death := range deaths {
			t.Run(name, func(t *testing.T) {
				w := over.start(t, doveadmtest.Options{}, nil)
				first, second := w.acquire(t, Shared), w.acquire(t, Shared)
				run(t, first)
				run(t, second)
				dead, alive := second.Client(), first.Client()
				first.Release(Reusable)
				second.Release(Reusable)

				number := len(w.srv.Conns()) - 1 // in the order they came, as here
				death.of(w.srv.Conns()[number])
				awaitReadable(t, dead.NetConn())
				c := w.acquire(t, Shared)
				if c.Client() != alive || !c.Reused() {
					t.Errorf("not the connection that lives; reused %v", c.Reused())
				}
				run(t, c)

				d := w.acquire(t, Shared)
				if d.Reused() {
					t.Error("a new connection is reused")
				}
				run(t, d)
				c.Release(Reusable)
				d.Release(Reusable)
				if diff := cmp.Diff(map[CloseReason]uint64{death.why: 1}, w.closedFor()); diff != "" {
					t.Error(diff)
				}
				if s := w.Stat(); s.Dials != 3 || s.BreakerOpened != 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	})
}

// What ended between its last status and its release is not handed to those
// who wait, who keep their turn.
func TestLookBeforeHandingOn(t *testing.T) {
	overAll(t, func(t *testing.T, over transport) {
		for name, death := range deaths {
			t.Run(name, func(t *testing.T) {
				w := over.start(t, doveadmtest.Options{}, func(b *config.Backend) { b.Pool.MaxOpen = 1; b.Pool.AcquireTimeout = 0 })
				c := w.acquire(t, Shared)
				run(t, c)
				order := make(chan int, 3)
				var waiters sync.WaitGroup
				for i := range 3 {
					waiters.Go(func() {
						c, err := w.Acquire(t.Context(), Shared)
						if err != nil {
							t.Error(err)
							order <- -1
							return
						}
						order <- i
						run(t, c)
						c.Release(Reusable)
					})
					for w.Stat().Waiting <= i {
						runtime.Gosched()
					}
				}
				death.of(w.srv.Conns()[0])
				awaitReadable(t, c.Client().NetConn())
				c.Release(Reusable)
				for want := range 3 {
					if got := <-order; got != want {
						t.Errorf("served %d, want %d", got, want)
					}
				}
				waiters.Wait()
				if s := w.Stat(); s.Dials != 2 || s.Closed[death.why] != 1 {
					t.Errorf("%+v", s)
				}
			})
		}
	})
}

// A deadline that has passed does not make a connection look dead.
func TestLookIgnoresDeadlines(t *testing.T) {
	overAll(t, func(t *testing.T, over transport) {
		w := over.start(t, doveadmtest.Options{}, nil)
		c := w.acquire(t, Shared)
		nc := c.Client().NetConn()
		c.Release(Reusable)
		nc.SetDeadline(time.Unix(1, 0))
		d := w.acquire(t, Shared)
		if d.Client().NetConn() != nc {
			t.Error("not the idle connection")
		}
		d.Release(Reusable)
		// Nor does a look end it.
		e := w.acquire(t, Shared)
		run(t, e)
		e.Release(Reusable)
		if s := w.Stat(); s.Dials != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// As when Dovecot is stopped and started again.
func TestBackendRestarts(t *testing.T) {
	w := onLoopback(t, doveadmtest.Options{}, func(b *config.Backend) { b.Breaker = config.Breaker{Failures: 1, Open: time.Nanosecond, Probes: 1} })
	c := w.acquire(t, Shared)
	nc := c.Client().NetConn()
	c.Release(Reusable)
	w.srv.Close()
	awaitReadable(t, nc)
	w.refused(t, syscall.ECONNREFUSED)
	w.srv = doveadmtest.NewServer(t, doveadmtest.Options{Address: w.srv.Addr(), Password: "secret"})
	c = w.acquire(t, Shared)
	run(t, c)
	c.Release(Reusable)
	w.log.told(t, cannotConnect, opened, halfOpened, closedAgain)
}
