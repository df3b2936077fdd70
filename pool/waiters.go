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
	elem  *list.Element // nil while not in the queue
	ready chan error    // buffered, so that an answer never blocks
}

// wait gives c a connection in its turn. One that was handed on and turns out
// to be dead does not cost it its turn.
func (p *Pool) wait(ctx context.Context, c *Conn, use Use) error {
	if t := p.limits.AcquireTimeout; t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t, ErrTimeout)
		defer cancel()
	}
	w := &waiter{conn: c, use: use, since: time.Now(), ready: make(chan error, 1)}
	p.mu.Lock()
	queued := p.enqueue(w)
	p.unlock()
	if !queued {
		return ErrQueueFull
	}
	for {
		if err := p.await(ctx, w); err != nil || !c.Reused() {
			return err
		}
		why := c.link.unusable(time.Now())
		if why == "" {
			return nil
		}
		p.mu.Lock()
		p.forget(c.link, why)
		w.since = time.Now()
		w.elem = p.waiters.PushFront(w)
		p.unlock()
	}
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

// await returns when w is answered or ctx ends.
func (p *Pool) await(ctx context.Context, w *waiter) error {
	select {
	case err := <-w.ready:
		return err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.unlock()
	if w.elem == nil {
		return <-w.ready // answered while it gave up
	}
	p.leave(w)
	err := context.Cause(ctx)
	if err == ErrTimeout {
		p.stat.TimedOut++
		if p.full {
			err = fmt.Errorf("%w: %w", ErrTimeout, ErrNoProcess)
		}
	}
	return err
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
	case p.Operator() != Active:
		p.failAll(ErrOutOfService)
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
