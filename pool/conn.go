package pool

import (
	"io"
	"net"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Outcome says how a command ended, as far as its connection and its backend
// are concerned. What the client made of it does not matter here.
type Outcome int

const (
	// Reusable: answered, with a status after which another command may
	// follow.
	Reusable Outcome = iota
	// Answered: answered, but the connection must not be used again.
	Answered
	// Abandoned: ended for a reason that says nothing about the backend.
	Abandoned
	// Failed: the backend was lost or too slow.
	Failed
)

// Conn is a connection lent out for one command.
type Conn struct {
	pool      *Pool
	client    *doveadm.ClientConn
	raw       syscall.RawConn // nil where the socket is not of the system
	epoch     uint64
	expires   time.Time // zero: never
	idleSince time.Time
	commands  int
	reused    bool // has been idle
	lent      bool

	// done reports to the breaker; nil while idle and once it has been called.
	done func(error)
}

func newConn(p *Pool, client *doveadm.ClientConn, epoch uint64, done func(error)) *Conn {
	c := &Conn{pool: p, client: client, epoch: epoch, done: done}
	if p.limits.MaxLifetime > 0 {
		c.expires = time.Now().Add(jittered(p.limits.MaxLifetime))
	}
	if sc, ok := client.NetConn().(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn()
	}
	return c
}

// Client returns the connection itself. It belongs to the caller until
// Release.
func (c *Conn) Client() *doveadm.ClientConn { return c.client }

// Reused reports whether the connection served a command or was idle before.
// The loss of such a connection may be its end that the backend had decided
// earlier, for instance at a reload.
func (c *Conn) Reused() bool { return c.reused || c.commands > 0 }

// Answering tells the breaker that the backend sends a reply, so that one long
// command does not keep a half-open breaker from closing.
func (c *Conn) Answering() { c.tell(nil) }

func (c *Conn) tell(err error) {
	if c.done != nil {
		c.done(err)
		c.done = nil
		c.pool.breaker.report()
	}
}

// Release gives the connection back. It must be called once, and the
// connection must not be used afterwards.
func (c *Conn) Release(o Outcome) {
	p := c.pool
	if !c.lent {
		panic("pool: released a connection that is not lent out")
	}
	c.lent = false
	c.commands++
	switch o {
	case Reusable, Answered:
		c.tell(nil)
	case Abandoned:
		c.tell(errNoVerdict)
	case Failed:
		if c.done == nil {
			// Answering said that all is well, which is no longer true.
			c.done, _ = p.breaker.allow()
		}
		c.tell(errLost)
	}

	why := CloseReason("")
	switch {
	case o == Failed:
		why = closedLost
	case o != Reusable || !c.client.Clean():
		why = closedUnclean
	case p.limits.MaxCommands > 0 && c.commands >= p.limits.MaxCommands:
		why = closedCommands
	case !c.expires.IsZero() && !time.Now().Before(c.expires):
		why = closedLifetime
	}
	if why == "" {
		c.client.Shrink()
	}
	p.mu.Lock()
	if o == Reusable || o == Answered {
		p.lastAnswer = time.Now()
	}
	if why != "" {
		p.forget(c, why)
		p.dialForWaiters()
	} else {
		p.place(c)
	}
	p.unlock()
	p.breaker.report()
}

// expiry returns why c may not stay idle, or how long it may.
func (c *Conn) expiry(now time.Time) (why CloseReason, left time.Duration) {
	if !c.expires.IsZero() {
		if left = c.expires.Sub(now); left <= 0 {
			return closedLifetime, 0
		}
	}
	if t := c.pool.limits.IdleTimeout; t > 0 {
		idle := c.idleSince.Add(t).Sub(now)
		if idle <= 0 {
			return closedIdle, 0
		}
		if left == 0 || idle < left {
			left = idle
		}
	}
	return "", left
}

// unusable looks at an idle connection without blocking. Anything readable
// speaks against it: the end of the stream, the log line of a process that was
// told to stop, or output that came behind a status.
func (c *Conn) unusable() CloseReason {
	if why, _ := c.expiry(time.Now()); why != "" {
		return why
	}
	if c.raw == nil {
		return c.unusableByRead()
	}
	why := closedDead
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN:
			why = ""
		case n > 0:
			why = closedStray
		}
		return true
	})
	if err != nil {
		return closedDead
	}
	return why
}

// unusableByRead is unusable for connections that are no sockets.
func (c *Conn) unusableByRead() CloseReason {
	nc := c.client.NetConn()
	nc.SetReadDeadline(time.Unix(1, 0))
	defer nc.SetReadDeadline(time.Time{})
	_, err := io.ReadFull(nc, make([]byte, 1))
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return ""
	}
	return closedDead
}
