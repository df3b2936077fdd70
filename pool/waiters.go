package pool

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Client is for whom a connection is wanted.
type Client struct {
	Name string // clients take turns, by this name
	Bulk bool   // comes after those that are not, and never has more than max_bulk connections
}

// waiter is an Acquire that waits for a connection.
type waiter struct {
	conn   *Conn // gets the connection
	client Client
	use    Use
	since  time.Time
	ready  chan error // buffered, so that an answer never blocks

	// Of its queue.
	round  uint64
	queued bool
	place  knot // in the round
	inLine knot // in the line of its client

	timer *time.Timer // of acquire_timeout; nil until one was needed
}

// interactiveTurns is after how many connections that went to others, while it
// could have had one, a bulk client gets one.
const interactiveTurns = 8

// wait gives c a connection in its turn. One that was handed on and turns out
// to be dead does not cost it its turn.
func (p *Pool) wait(ctx context.Context, c *Conn, use Use, client Client) error {
	p.mu.Lock()
	w := p.newWaiter()
	w.conn, w.client, w.use, w.since = c, client, use, time.Now()
	queued := p.enqueue(w)
	p.unlock()
	if !queued {
		return ErrQueueFull
	}
	defer p.free(w)
	var timeout <-chan time.Time
	if t := p.limits.AcquireTimeout; t > 0 {
		timeout = w.startTimer(t)
		defer w.timer.Stop()
	}
	for {
		if err := p.await(ctx, timeout, w); err != nil || !c.Reused() {
			return err
		}
		why := c.link.unusable(time.Now())
		if why == "" {
			return nil
		}
		p.mu.Lock()
		p.takeBack(c)
		p.forget(c.link, why)
		w.since = time.Now()
		p.queue(w).rejoin(w)
		p.unlock()
	}
}

// newWaiter uses one again, if there is one. The caller holds mu.
func (p *Pool) newWaiter() *waiter {
	n := len(p.spare)
	if n == 0 {
		return &waiter{ready: make(chan error, 1)}
	}
	w := p.spare[n-1]
	p.spare = p.spare[:n-1]
	return w
}

// free keeps a waiter that was answered, or has left, for the next one.
func (p *Pool) free(w *waiter) {
	w.conn = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spare) < maxSpare {
		p.spare = append(p.spare, w)
	}
}

func (w *waiter) startTimer(t time.Duration) <-chan time.Time {
	if w.timer == nil {
		w.timer = time.NewTimer(t)
	} else {
		w.timer.Reset(t)
	}
	return w.timer.C
}

// queue returns where w waits. The caller holds mu.
func (p *Pool) queue(w *waiter) *turns {
	if w.client.Bulk {
		return &p.bulk
	}
	return &p.interactive
}

// waiting is how many wait. The caller holds mu.
func (p *Pool) waiting() int { return p.interactive.length + p.bulk.length }

// enqueue reports false if too many wait already. Who waits for a dial or for
// the end of a connection in whose place one comes does not count. Where there
// is no place left the client goes without that has most of them, bulk clients
// first: it fills the queue for itself and not for others. The caller holds mu.
func (p *Pool) enqueue(w *waiter) bool {
	p.queue(w).join(w)
	p.serve()
	if !w.queued || p.waiting()-p.dialing-p.closing <= p.limits.MaxWaiting {
		return true
	}
	p.stat.QueueFull++
	q := &p.interactive
	if p.bulk.length > 0 {
		q = &p.bulk
	}
	if out := q.last(w.client.Name); out != w {
		p.answer(out, nil, ErrQueueFull)
		return true
	}
	q.leave(w, false)
	return false
}

// await returns when w is answered, or its time or ctx ends.
func (p *Pool) await(ctx context.Context, timeout <-chan time.Time, w *waiter) error {
	err := ErrTimeout
	select {
	case err := <-w.ready:
		return err
	case <-timeout:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.unlock()
	if !w.queued {
		return <-w.ready // answered while it gave up
	}
	p.leave(w, false)
	if err == ErrTimeout {
		p.stat.TimedOut++
		if p.full != nil {
			err = fmt.Errorf("%w: %w", ErrTimeout, p.full)
		}
	}
	return err
}

// leave takes w off the queue. The caller holds mu.
func (p *Pool) leave(w *waiter, served bool) {
	p.queue(w).leave(w, served)
	p.stat.Waits++
	p.stat.WaitTime += time.Since(w.since)
}

// answer ends a wait. The caller holds mu.
func (p *Pool) answer(w *waiter, l *link, err error) {
	if l != nil {
		p.lend(w.conn, l)
		switch {
		case w.client.Bulk || p.bulk.length == 0:
			p.passed = 0
		case p.bulkPlaces() > 0:
			p.passed++
		}
	}
	p.leave(w, l != nil)
	w.ready <- err
}

// bulkPlaces is how many connections more bulk clients may have. The caller
// holds mu.
func (p *Pool) bulkPlaces() int {
	places := p.limits.MaxBulk
	if limit := p.concurrency.limit(); limit < p.limits.MaxOpen {
		places = max(1, places*limit/p.limits.MaxOpen) // the same part of fewer
	}
	return places - p.bulkInUse
}

// inTurn goes through those who may have a connection now, in their order: the
// interactive clients, and then the bulk clients as far as there are places for
// them. Now and then it is the other way round for one, so that those do not
// wait for ever. The one that it is at may leave. The caller holds mu.
func (p *Pool) inTurn() iter.Seq[*waiter] {
	return func(yield func(*waiter) bool) {
		var ahead *waiter
		places := p.bulkPlaces()
		if places > 0 && p.passed >= interactiveTurns {
			ahead = p.bulk.first()
		}
		if ahead != nil {
			places--
			if !yield(ahead) {
				return
			}
		}
		for w := range p.interactive.all {
			if !yield(w) {
				return
			}
		}
		if places <= 0 {
			return
		}
		for w := range p.bulk.all {
			if w == ahead {
				continue
			}
			if places--; !yield(w) || places == 0 {
				return
			}
		}
	}
}

// first returns who has the next connection, or nil. The caller holds mu.
func (p *Pool) first() *waiter {
	for w := range p.inTurn() {
		return w
	}
	return nil
}

// serve gives those who wait, in their order, what there is for them: an idle
// connection, a dial that is under way, a new dial, or the place of what is
// being closed. The caller holds mu.
func (p *Pool) serve() {
	if p.waiting() == 0 {
		return
	}
	switch {
	case p.closed:
		p.failAll(ErrClosed)
	case p.Operator() != Active:
		p.failAll(ErrOutOfService)
	case p.breaker.state() == Open:
		p.stat.RejectedByBreaker += uint64(p.waiting())
		p.failAll(ErrBreakerOpen)
	}
	dialing, closing := p.dialing, p.closing
	for w := range p.inTurn() {
		if !p.mayLend() {
			p.sweepBy(p.concurrency.block())
			return
		}
		if l := p.takeIdle(w.use); l != nil {
			p.answer(w, l, nil)
			continue
		}
		switch {
		case dialing > 0:
			dialing--
		case p.inUse()+p.dialing >= p.concurrency.limit():
			return // what is dialled is for those who came before
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
	for _, q := range []*turns{&p.interactive, &p.bulk} {
		for w := range q.all {
			p.answer(w, nil, err)
		}
	}
}
