package pool

import (
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
	pool     *Pool
	link     *link
	bulk     bool // lent to a bulk client
	released bool

	verdict verdict // for the breaker
}

// Client returns the connection itself. It belongs to the caller until
// Release.
func (c *Conn) Client() *doveadm.ClientConn { return c.link.client }

// Cut closes the connection under whoever uses it, without waiting. It is still
// to be released. Any goroutine may call it before that.
func (c *Conn) Cut() { cut(c.link.client) }

// Severed reports whether an operator's Down has cut the connection.
func (c *Conn) Severed() bool { return c.link.epoch < c.pool.severed.Load() }

// Reused reports whether the connection served a command or was idle before.
// The loss of such a connection may be its end that the backend had decided
// earlier, for instance at a reload.
func (c *Conn) Reused() bool { return c.link.rested || c.link.commands > 0 }

// Answering tells that the backend sends a reply, so that one long command
// does not keep a half-open breaker from closing, and that a backend which
// greets nobody else is known to be full and not sick. It may be called for
// each piece of a reply, by the owner of the connection.
func (c *Conn) Answering() {
	c.pool.noteAnswer()
	if c.verdict.pending() {
		c.tell(nil)
		c.pool.breaker.report()
	}
}

// tell tells the breaker, once.
func (c *Conn) tell(err error) { c.verdict.tell(err) }

// Release gives the connection back, its deadlines cleared. It must be called
// once, and the connection must not be used afterwards.
func (c *Conn) Release(o Outcome) {
	if c.released {
		panic("pool: a connection was released twice")
	}
	c.released = true
	p, l := c.pool, c.link
	l.commands++
	switch o {
	case Reusable, Answered:
		p.noteAnswer()
		c.tell(nil)
	case Failed:
		switch {
		case p.ctx.Err() != nil || c.Severed():
			c.tell(errNoVerdict) // Close may have cut it, or an operator
		case !c.verdict.pending():
			p.breaker.tell(errLost) // Answering said that all is well
		default:
			c.tell(errLost)
		}
	default:
		c.tell(errNoVerdict)
	}

	p.busy.Add(-1)
	now := time.Now()
	why := l.spent(o, now, p.limits.MaxCommands)
	p.mu.Lock()
	p.concurrency.commandEnded(now, p.waiting() > 0)
	p.takeBack(c)
	if o == Failed && !c.Severed() {
		p.fail(errLost)
	}
	if why != "" {
		p.forget(l, why)
	} else {
		p.rest(l, now)
	}
	p.unlock()
	p.breaker.report()
}

// noteAnswer remembers that the backend said something.
func (p *Pool) noteAnswer() { p.answered.Store(int64(time.Since(p.born))) }

// answeredSince reports whether the backend said something, to any command or
// dial, after t.
func (p *Pool) answeredSince(t time.Time) bool {
	return p.answered.Load() > max(0, int64(t.Sub(p.born)))
}
