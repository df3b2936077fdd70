package pool

import (
	"container/list"
	"context"
	"fmt"
	"time"
)

// waiter is an Acquire that waits for a connection.
type waiter struct {
	conn  *Conn // gets the connection
	use   Use
	since time.Time
	elem  *list.Element // nil once it has left the queue
	ready chan error    // buffered, so that an answer never blocks
}

// wait gets a connection for c in its turn.
func (p *Pool) wait(ctx context.Context, c *Conn, use Use) error {
	w := &waiter{conn: c, use: use, since: time.Now(), ready: make(chan error, 1)}
	p.mu.Lock()
	queued := p.enqueue(w)
	p.unlock()
	if !queued {
		return ErrQueueFull
	}

	var timeout <-chan time.Time
	if p.limits.AcquireTimeout > 0 {
		t := time.NewTimer(p.limits.AcquireTimeout)
		defer t.Stop()
		timeout = t.C
	}
	var err error
	select {
	case err := <-w.ready:
		return err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timeout:
		err = ErrTimeout
	}

	p.mu.Lock()
	defer p.unlock()
	if w.elem == nil {
		return <-w.ready // answered while it gave up
	}
	p.leave(w)
	if err == ErrTimeout {
		p.stat.TimedOut++
		if p.full {
			err = fmt.Errorf("%w: %w", ErrTimeout, ErrNoProcess)
		}
	}
	return err
}

// enqueue reports false if too many wait already. Who waits for a dial or for
// the end of a connection in whose place one comes does not count. The caller
// holds mu.
func (p *Pool) enqueue(w *waiter) bool {
	w.elem = p.waiters.PushBack(w)
	p.serve()
	if w.elem != nil && p.waiters.Len()-p.dialing-p.closing > p.limits.MaxWaiting {
		p.waiters.Remove(w.elem)
		p.stat.QueueFull++
		return false
	}
	return true
}

// leave takes w off the queue. The caller holds mu.
func (p *Pool) leave(w *waiter) {
	p.waiters.Remove(w.elem)
	w.elem = nil
	p.stat.Waits++
	p.stat.WaitTime += time.Since(w.since)
}

// answer ends a wait. The caller holds mu.
func (p *Pool) answer(w *waiter, l *link, err error) {
	p.leave(w)
	w.conn.link = l
	w.ready <- err
}

// first returns the first in the queue or nil. The caller holds mu.
func (p *Pool) first() *waiter {
	if e := p.waiters.Front(); e != nil {
		return e.Value.(*waiter)
	}
	return nil
}

// serve gives those who wait, in their order, what there is for them: an idle
// connection, a dial that is under way, a new dial, or the place of what is
// being closed. The caller holds mu.
func (p *Pool) serve() {
	if p.waiters.Len() == 0 {
		return
	}
	switch {
	case p.closed:
		p.failAll(ErrClosed)
	case p.breaker.state() == Open:
		p.stat.RejectedByBreaker += uint64(p.waiters.Len())
		p.failAll(ErrBreakerOpen)
	}
	dialing, closing := p.dialing, p.closing
	for e := p.waiters.Front(); e != nil; {
		w := e.Value.(*waiter)
		e = e.Next()
		if l := p.takeIdle(w.use); l != nil {
			p.answer(w, l, nil)
			continue
		}
		switch {
		case dialing > 0:
			dialing--
		case p.opened() < p.limits.MaxOpen && (!p.paused() || len(p.all) == 0):
			p.startDial()
		case closing > 0:
			closing-- // a dial follows
		case len(p.idle) > 0:
			// Only used ones, and a fresh one is wanted. It is dialled when
			// the oldest has been closed.
			l := p.idle[0]
			p.dropIdle(0)
			p.forget(l, closedEvicted)
		default:
			return
		}
	}
}

// failAll ends all waits. The caller holds mu.
func (p *Pool) failAll(err error) {
	for w := p.first(); w != nil; w = p.first() {
		p.answer(w, nil, err)
	}
}
