package pool

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/sony/gobreaker/v2"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// State is the state of a circuit breaker.
type State = gobreaker.State

// The states of a circuit breaker.
const (
	Closed   State = gobreaker.StateClosed
	HalfOpen State = gobreaker.StateHalfOpen
	Open     State = gobreaker.StateOpen
)

var (
	// errNoVerdict is told of what says nothing about the backend.
	errNoVerdict = errors.New("no verdict")
	errLost      = errors.New("connection lost")
)

// breaker is a gobreaker in its two-step form: allow before a command, the
// returned function after it. A greeting alone is no success, so that a
// backend which greets and then never answers is found out.
type breaker struct {
	cb       *gobreaker.TwoStepCircuitBreaker[struct{}]
	closed   atomic.Bool
	epoch    atomic.Uint64 // changes of the state so far
	failing  atomic.Bool   // a failure was told since the last success
	halfOpen atomic.Bool
	open     time.Duration
	born     time.Time
	until    atomic.Int64 // while open: when it lets a probe through, in ns since born; else 0
	closedAt atomic.Int64 // when it closed, in ns since born; 0: it never opened
	log      hclog.Logger

	// gobreaker calls back under its own lock. The changes are kept here until
	// report can tell them without one.
	pending atomic.Bool
	telling sync.Mutex // keeps the log in order; the outermost of all locks

	mu         sync.Mutex // guards what follows; the innermost of all locks
	changes    [][2]State
	opened     uint64
	probe      func(error) // the last one let through while half-open
	probeSince time.Time
}

func newBreaker(name string, c config.Breaker, log hclog.Logger) *breaker {
	b := &breaker{open: c.Open, born: time.Now(), log: log}
	b.closed.Store(true)
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:          name,
		MaxRequests:   uint32(c.Probes),
		Timeout:       c.Open,
		ReadyToTrip:   func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= uint32(c.Failures) },
		IsExcluded:    func(err error) bool { return err == errNoVerdict },
		OnStateChange: b.onChange,
	})
	return b
}

func (b *breaker) onChange(_ string, from, to State) {
	b.epoch.Add(1)
	b.closed.Store(to == Closed)
	b.halfOpen.Store(to == HalfOpen)
	b.until.Store(0)
	switch to {
	case Open:
		b.until.Store(sinceBorn(b.born) + int64(b.open))
	case Closed:
		b.closedAt.Store(sinceBorn(b.born))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changes = append(b.changes, [2]State{from, to})
	b.pending.Store(true)
	if to == Open {
		b.opened++
	}
}

// verdict is what became of something that the breaker allowed; it is told
// once. The zero value tells nobody.
type verdict struct {
	breaker *breaker
	epoch   uint64
	done    func(error) // gobreaker's; nil if the breaker was closed
}

// pending reports whether it is still to be told.
func (v *verdict) pending() bool { return v.breaker != nil }

// tell tells the breaker. While that is closed only failures matter to it, and
// the first success behind one: the others take no lock.
func (v *verdict) tell(err error) {
	b := v.breaker
	if b == nil {
		return
	}
	v.breaker = nil
	switch {
	case v.done != nil:
		v.done(err)
		v.done = nil
	case err == errNoVerdict || b.epoch.Load() != v.epoch:
		// It says nothing about the state that the breaker is in now.
	case err != nil:
		b.tell(err)
	case b.failing.Load():
		b.tell(nil)
	}
}

// allow returns what the outcome is told to, or ErrBreakerOpen.
func (b *breaker) allow() (verdict, error) {
	if epoch := b.epoch.Load(); b.closed.Load() {
		return verdict{breaker: b, epoch: epoch}, nil
	}
	done, err := b.cb.Allow()
	if err == gobreaker.ErrTooManyRequests && b.freeProbe() {
		done, err = b.cb.Allow()
	}
	if err != nil {
		return verdict{}, ErrBreakerOpen
	}
	if b.halfOpen.Load() {
		b.mu.Lock()
		b.probe, b.probeSince = done, time.Now()
		b.mu.Unlock()
	}
	return verdict{breaker: b, done: done}, nil
}

// freeProbe makes room for another probe if the last one takes longer than the
// breaker stays open: a command that is silent for an hour must not keep all
// others out. What becomes of it in the end still counts.
func (b *breaker) freeProbe() bool {
	b.mu.Lock()
	probe := b.probe
	if probe == nil || time.Since(b.probeSince) < b.open {
		b.mu.Unlock()
		return false
	}
	b.probe = nil
	b.mu.Unlock()
	probe(errNoVerdict)
	return true
}

// tell tells what became of something that was not asked for before.
func (b *breaker) tell(err error) {
	if err == nil {
		b.failing.Store(false) // before, so that a failure meanwhile is not forgotten
	}
	if done, refused := b.cb.Allow(); refused == nil {
		done(err)
	}
	if err != nil && err != errNoVerdict {
		b.failing.Store(true)
	}
}

// isOpen reports whether allow would refuse a command outright, which gobreaker
// does to the end of the last nanosecond. It takes no lock, unlike state.
func (b *breaker) isOpen() bool {
	until := b.until.Load()
	return until != 0 && sinceBorn(b.born) <= until
}

// state may be called with the pool's lock held, report must follow without.
func (b *breaker) state() State {
	if b.closed.Load() {
		return Closed // which it remains until something is told
	}
	return b.cb.State()
}

func (b *breaker) timesOpened() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.opened
}

// report logs the changes since the last report. Call it without locks.
func (b *breaker) report() {
	if !b.pending.Load() {
		return
	}
	b.telling.Lock()
	defer b.telling.Unlock()
	b.mu.Lock()
	changes := b.changes
	b.changes = nil
	b.pending.Store(false)
	b.mu.Unlock()
	for _, c := range changes {
		switch from, to := c[0], c[1]; to {
		case Open:
			b.log.Error("circuit breaker opened: commands for this backend fail at once", "was", from.String(), "next_try_in", b.open.String())
		case HalfOpen:
			b.log.Info("circuit breaker is half-open: the next command tries the backend")
		case Closed:
			b.log.Info("circuit breaker closed: the backend answers again")
		}
	}
}
