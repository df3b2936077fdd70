// Package pool keeps the authenticated connections to one backend: how many
// there are, who waits for one, which may be used again, and whether the
// backend is asked at all (its circuit breaker).
//
//	conn, err := p.Acquire(ctx, pool.Shared)
//	if err != nil { ... } // nothing was sent
//	defer func() { conn.Release(outcome) }()
//
// Every open connection is one process of the backend, out of 100 that it
// shares with its own administrators. So connections are few, busy ones are
// preferred to new ones, and idle ones do not last.
package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// The errors of Acquire. With each of them nothing was sent to the backend.
// Other errors are those of a dial.
var (
	ErrClosed      = errors.New("pool is closed")
	ErrBreakerOpen = errors.New("circuit breaker is open")
	ErrQueueFull   = errors.New("too many commands wait for a connection")
	ErrTimeout     = errors.New("no connection became free in time")
)

// Use says what a connection is wanted for.
type Use int

const (
	// Shared takes any connection.
	Shared Use = iota
	// Fresh takes only a connection on which no command has run. Commands that
	// are not for a mail user need one: on Dovecot 2.3 they would run with the
	// rights of the last user, and their output may come behind their status.
	Fresh
)

// DialFunc opens a logged-in connection.
type DialFunc func(ctx context.Context) (*doveadm.ClientConn, error)

// Pool is the connections to one backend. All methods may be called from any
// goroutine.
type Pool struct {
	name    string
	limits  config.Pool
	dial    DialFunc
	log     hclog.Logger
	breaker *breaker

	ctx    context.Context // of dials and maintenance; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // dials and maintenance
	wake   chan struct{}  // tells maintenance that there is something to expire

	acquired atomic.Uint64

	// mu guards what follows. No I/O happens under it and no other lock is
	// taken but the breaker's. It is released by unlock.
	mu         sync.Mutex
	garbage    []*Conn // forgotten; unlock closes them
	closed     bool
	drained    chan struct{} // closed when the last connection is gone after Close
	all        map[*Conn]struct{}
	idle       []*Conn // the most recently used is the last
	dialing    int
	waiters    list.List // of *waiter, first come first served
	epoch      uint64    // connections of an older epoch are not used again
	lastAnswer time.Time // of the backend to any command
	fullUntil  time.Time // the last dial found no process free: no new connections until then
	stat       Stat      // its counters
}

// waiter is an Acquire that waits for a connection.
type waiter struct {
	use   Use
	ready chan grant // buffered, so that granting never blocks
}

type grant struct {
	conn *Conn
	err  error
}

// fullPause is how long a pool does not add connections after its backend
// showed that it has no process left.
const fullPause = time.Second

// New returns the pool of a backend. Nothing is dialled before it is needed,
// unless min_idle asks for it. A nil dial uses Dial.
func New(b config.Backend, dial DialFunc, log hclog.Logger) *Pool {
	if dial == nil {
		dial = func(ctx context.Context) (*doveadm.ClientConn, error) { return Dial(ctx, b) }
	}
	p := &Pool{
		name:    b.Name,
		limits:  b.Pool,
		dial:    dial,
		log:     log.With("backend", b.Name),
		wake:    make(chan struct{}, 1),
		drained: make(chan struct{}),
		all:     make(map[*Conn]struct{}),
		stat:    Stat{Closed: make(map[CloseReason]uint64)},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.breaker = newBreaker(b.Name, b.Breaker, p.breakerChanged)
	p.wg.Go(p.maintain)
	return p
}

// Name returns the backend's name.
func (p *Pool) Name() string { return p.name }

// Acquire returns a connection for one command; the caller releases it. It
// waits at most acquire_timeout, and less if ctx ends.
func (p *Pool) Acquire(ctx context.Context, use Use) (*Conn, error) {
	c, err := p.acquireIdle(use)
	if c == nil && err == nil {
		c, err = p.acquireSlow(ctx, use)
	}
	switch {
	case err == nil:
		c.lent = true
		p.acquired.Add(1)
	case errors.Is(err, ErrBreakerOpen):
		p.count(&p.stat.RejectedByBreaker)
	case errors.Is(err, ErrQueueFull):
		p.count(&p.stat.QueueFull)
	case errors.Is(err, ErrTimeout):
		p.count(&p.stat.TimedOut)
	}
	return c, err
}

// acquireIdle returns neither a connection nor an error if there is none idle
// that is of use.
func (p *Pool) acquireIdle(use Use) (*Conn, error) {
	for {
		p.mu.Lock()
		c := p.popIdle(use)
		p.unlock()
		if c == nil {
			return nil, nil
		}
		if reason := c.unusable(); reason != "" {
			p.mu.Lock()
			p.forget(c, reason)
			p.unlock()
			continue
		}
		done, err := p.breaker.allow()
		p.breaker.report()
		if err != nil {
			p.mu.Lock()
			p.place(c)
			p.unlock()
			return nil, err
		}
		c.done = done
		return c, nil
	}
}

// popIdle returns the most recently used idle connection, if it is one that
// use can have. The caller holds mu.
func (p *Pool) popIdle(use Use) *Conn {
	n := len(p.idle)
	if p.closed || use == Fresh || n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// acquireSlow dials or waits.
func (p *Pool) acquireSlow(ctx context.Context, use Use) (*Conn, error) {
	w := &waiter{use: use, ready: make(chan grant, 1)}
	start := time.Now()
	p.mu.Lock()
	elem, err := p.enqueue(w)
	p.unlock()
	p.breaker.report()
	if err != nil {
		return nil, err
	}

	var timeout <-chan time.Time
	if p.limits.AcquireTimeout > 0 {
		t := time.NewTimer(p.limits.AcquireTimeout)
		defer t.Stop()
		timeout = t.C
	}
	var g grant
	select {
	case g = <-w.ready:
	case <-ctx.Done():
		g.err = context.Cause(ctx)
	case <-timeout:
		g.err = ErrTimeout
	}

	p.mu.Lock()
	defer p.unlock()
	if g.conn == nil {
		select {
		case late := <-w.ready:
			// Granted while we gave up.
			if late.conn != nil {
				g = late
			}
		default:
			p.waiters.Remove(elem)
		}
	}
	p.stat.Waits++
	p.stat.WaitTime += time.Since(start)
	if g.err == ErrTimeout && !p.fullUntil.IsZero() {
		g.err = fmt.Errorf("%w: %w", ErrTimeout, ErrNoProcess)
	}
	return g.conn, g.err
}

// enqueue adds w to the waiters and starts a dial for it where there is room.
// The caller holds mu.
func (p *Pool) enqueue(w *waiter) (*list.Element, error) {
	if p.closed {
		return nil, ErrClosed
	}
	if p.breaker.isOpen() {
		return nil, ErrBreakerOpen
	}
	elem := p.waiters.PushBack(w)
	p.evictFor(w.use)
	if !p.dialForWaiters() {
		p.waiters.Remove(elem)
		return nil, ErrBreakerOpen
	}
	if p.waiters.Len()-p.dialing > p.limits.MaxWaiting {
		p.waiters.Remove(elem)
		return nil, ErrQueueFull
	}
	return elem, nil
}

// evictFor makes room for a fresh connection. The caller holds mu.
func (p *Pool) evictFor(use Use) {
	if use == Fresh && len(p.idle) > 0 && p.opened() >= p.limits.MaxOpen {
		c := p.idle[0]
		p.idle = p.idle[1:]
		p.forget(c, closedEvicted)
	}
}

// opened counts connections, those being dialled included. The caller holds
// mu.
func (p *Pool) opened() int { return len(p.all) + p.dialing }

// dialForWaiters starts as many dials as there are waiters without one and
// room for. It reports whether the breaker let it. The caller holds mu.
func (p *Pool) dialForWaiters() bool {
	for !p.closed && p.dialing < p.waiters.Len() && p.opened() < p.limits.MaxOpen {
		if len(p.all) > 0 && time.Now().Before(p.fullUntil) {
			break // those who wait get the connections that there are
		}
		if !p.startDial() {
			return false
		}
	}
	return true
}

// unlock unlocks mu and closes what was forgotten under it.
func (p *Pool) unlock() {
	garbage := p.garbage
	p.garbage = nil
	p.mu.Unlock()
	for _, c := range garbage {
		c.client.Close()
	}
}

// startDial starts one dial if the breaker allows it. The caller holds mu.
func (p *Pool) startDial() bool {
	done, err := p.breaker.allow()
	if err != nil {
		return false
	}
	p.dialing++
	p.stat.Dials++
	epoch := p.epoch
	p.wg.Go(func() { p.dialOne(epoch, done) })
	return true
}

// dialOne belongs to the pool and not to a waiter: a waiter that leaves does
// not waste the connection.
func (p *Pool) dialOne(epoch uint64, done func(error)) {
	start := time.Now()
	client, err := p.dial(p.ctx)
	if err == nil {
		c := newConn(p, client, epoch, done)
		p.mu.Lock()
		p.dialing--
		p.stat.DialTime += time.Since(start)
		p.all[c] = struct{}{}
		p.fullUntil = time.Time{}
		p.place(c)
		p.unlock()
		p.breaker.report()
		return
	}
	p.dialFailed(start, err, done)
}

// dialFailed tells the breaker and whoever waits.
func (p *Pool) dialFailed(start time.Time, err error, done func(error)) {
	stopped := p.ctx.Err() != nil
	p.mu.Lock()
	p.dialing--
	p.stat.DialErrors++
	kind := classify(err)
	full := kind == noGreeting && p.lastAnswer.After(start)
	if kind == noGreeting {
		p.stat.NoGreeting++
		p.fullUntil = time.Now().Add(fullPause)
	}
	var retired int
	if kind == refused {
		// Processes of a stopped Dovecot live on with their connections and
		// answer from a configuration that is no more.
		retired = p.retireIdle()
	}
	var verdict error
	switch {
	case stopped:
		verdict = errNoVerdict
	case full:
		// It answers others: it is not sick, it has no process left.
		verdict = errNoVerdict
	default:
		verdict = err
	}
	if !full || len(p.all) == 0 {
		p.failFirstWaiter(fmt.Errorf("backend %s: %w", p.name, err))
	}
	p.finishIfDrained()
	p.unlock()

	switch {
	case stopped:
	case kind == noGreeting:
		p.log.Warn("backend accepted a connection and does not greet: raise process_limit of its service doveadm, or lower max_open here", "error", err, "answers_others", full)
	default:
		p.log.Warn("cannot connect to backend", "error", err, "idle_closed", retired)
	}
	done(verdict)
	p.breaker.report()

	p.mu.Lock()
	p.dialForWaiters()
	p.unlock()
	p.breaker.report()
}

// failFirstWaiter ends the wait of the first in the queue. The caller holds mu.
func (p *Pool) failFirstWaiter(err error) {
	if e := p.waiters.Front(); e != nil {
		p.waiters.Remove(e)
		e.Value.(*waiter).ready <- grant{err: err}
	}
}

// place gives a connection to the first waiter or lays it to the idle ones.
// The caller holds mu.
func (p *Pool) place(c *Conn) {
	if p.closed || c.epoch != p.epoch {
		p.forget(c, closedRetired)
		return
	}
	if e := p.waiters.Front(); e != nil {
		w := e.Value.(*waiter)
		if w.use == Fresh && c.commands > 0 {
			p.forget(c, closedEvicted)
			p.dialForWaiters()
			return
		}
		if c.done == nil {
			done, err := p.breaker.allow()
			if err != nil {
				p.layIdle(c)
				return
			}
			c.done = done
		}
		p.waiters.Remove(e)
		w.ready <- grant{conn: c}
		return
	}
	if c.done != nil {
		// Dialled for somebody who left: the backend greeted, that is a
		// success.
		c.done(nil)
		c.done = nil
	}
	p.layIdle(c)
}

// layIdle adds c to the idle connections. The caller holds mu.
func (p *Pool) layIdle(c *Conn) {
	c.idleSince = time.Now()
	c.reused = true
	p.idle = append(p.idle, c)
	if len(p.idle) > p.limits.MaxIdle {
		oldest := p.idle[0]
		p.idle = append(p.idle[:0], p.idle[1:]...)
		p.forget(oldest, closedSurplus)
	}
	if len(p.idle) == 1 {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// forget takes c out of the pool's books and closes it. The caller holds mu;
// c is neither idle nor in use.
func (p *Pool) forget(c *Conn, why CloseReason) {
	delete(p.all, c)
	p.stat.Closed[why]++
	if c.done != nil {
		c.done(errNoVerdict)
		c.done = nil
	}
	p.garbage = append(p.garbage, c)
	p.finishIfDrained()
}

func (p *Pool) finishIfDrained() {
	if p.closed && len(p.all) == 0 && p.dialing == 0 {
		select {
		case <-p.drained:
		default:
			close(p.drained)
		}
	}
}

func (p *Pool) count(n *uint64) {
	p.mu.Lock()
	*n++
	p.mu.Unlock()
}

// retireIdle closes what is idle and bars what is in use from being used
// again. The caller holds mu.
func (p *Pool) retireIdle() int {
	p.epoch++
	idle := p.idle
	p.idle = nil
	for _, c := range idle {
		p.forget(c, closedRetired)
	}
	return len(idle)
}

// breakerChanged is called without any lock.
func (p *Pool) breakerChanged(from, to State) {
	switch to {
	case Open:
		p.log.Error("circuit breaker opened: commands for this backend fail at once", "from", from)
		p.mu.Lock()
		p.stat.BreakerOpened++
		for p.waiters.Len() > 0 {
			p.failFirstWaiter(ErrBreakerOpen)
		}
		p.unlock()
	case HalfOpen:
		p.log.Info("circuit breaker is half-open: trying the backend")
	case Closed:
		p.log.Info("circuit breaker closed: the backend answers again")
		p.mu.Lock()
		p.serveWaiters()
		p.unlock()
	}
}

// serveWaiters gives idle connections and dials to those who wait. The caller
// holds mu.
func (p *Pool) serveWaiters() {
	for p.waiters.Len() > 0 {
		c := p.popIdle(Shared)
		if c == nil {
			break
		}
		before := p.waiters.Len()
		if p.place(c); p.waiters.Len() == before {
			break
		}
	}
	p.dialForWaiters()
}

// Retire closes the idle connections, and the others as they are released.
// New ones are opened as they are needed.
func (p *Pool) Retire() {
	p.mu.Lock()
	p.retireIdle()
	p.unlock()
}

// Close refuses new commands, fails those who wait and closes idle
// connections. It returns when the connections in use are released too; if
// ctx ends first it cuts them and returns the cause.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.cancel()
		p.retireIdle()
		for p.waiters.Len() > 0 {
			p.failFirstWaiter(ErrClosed)
		}
		p.finishIfDrained()
	}
	p.unlock()

	var err error
	select {
	case <-p.drained:
	case <-ctx.Done():
		err = fmt.Errorf("backend %s: connections still in use: %w", p.name, context.Cause(ctx))
		p.mu.Lock()
		for c := range p.all {
			c.client.Close()
		}
		p.unlock()
	}
	p.wg.Wait()
	return err
}

// maintain closes expired idle connections and keeps min_idle.
func (p *Pool) maintain() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		if next := p.sweep(); next > 0 {
			timer.Reset(next)
		}
		p.breaker.report()
	}
}

// refillInterval is how often a pool that is short of min_idle tries again.
const refillInterval = time.Second

// sweep returns when to sweep again, 0 for when there is something idle.
func (p *Pool) sweep() time.Duration {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	var next time.Duration
	sooner := func(d time.Duration) {
		if d > 0 && (next == 0 || d < next) {
			next = d
		}
	}
	kept := p.idle[:0]
	var expired []*Conn
	var reasons []CloseReason
	for _, c := range p.idle {
		if why, left := c.expiry(now); why != "" {
			expired = append(expired, c)
			reasons = append(reasons, why)
		} else {
			kept = append(kept, c)
			sooner(left)
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	for i, c := range expired {
		p.forget(c, reasons[i])
	}
	if p.limits.MinIdle > 0 {
		for len(p.idle)+p.dialing < p.limits.MinIdle && p.opened() < p.limits.MaxOpen {
			if now.Before(p.fullUntil) || !p.startDial() {
				break
			}
		}
		sooner(refillInterval)
	}
	return next
}

// jittered returns d less up to a tenth of it, so that connections opened
// together do not end together.
func jittered(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}
