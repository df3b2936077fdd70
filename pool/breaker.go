package pool

import (
	"errors"
	"sync"
	"sync/atomic"

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
	// errNoVerdict is reported for what says nothing about the backend.
	errNoVerdict = errors.New("no verdict")
	errLost      = errors.New("connection lost")
)

// breaker is a gobreaker in its two-step form: allow before a dial or an
// exchange, the returned function after it. The outcome of a dial is that of
// the first exchange on its connection, so that a backend which greets and
// then never answers is found out.
type breaker struct {
	cb      *gobreaker.TwoStepCircuitBreaker[struct{}]
	changed func(from, to State)

	// gobreaker calls back under its own lock; the changes are kept here until
	// report can tell them without one.
	pending atomic.Int32
	mu      sync.Mutex // guards changes; taken under gobreaker's lock
	changes [][2]State
}

func newBreaker(name string, c config.Breaker, changed func(from, to State)) *breaker {
	b := &breaker{changed: changed}
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        name,
		MaxRequests: uint32(c.Probes),
		Timeout:     c.Open,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= uint32(c.Failures) },
		IsExcluded:  func(err error) bool { return errors.Is(err, errNoVerdict) },
		OnStateChange: func(_ string, from, to State) {
			b.mu.Lock()
			b.changes = append(b.changes, [2]State{from, to})
			b.pending.Store(int32(len(b.changes)))
			b.mu.Unlock()
		},
	})
	return b
}

func (b *breaker) allow() (done func(error), err error) {
	done, err = b.cb.Allow()
	if err != nil {
		return nil, ErrBreakerOpen
	}
	return done, nil
}

func (b *breaker) state() State { return b.cb.State() }

func (b *breaker) isOpen() bool { return b.state() == Open }

// report tells the changes since the last report. Call it without locks.
func (b *breaker) report() {
	if b.pending.Load() == 0 {
		return
	}
	b.mu.Lock()
	changes := b.changes
	b.changes = nil
	b.pending.Store(0)
	b.mu.Unlock()
	for _, c := range changes {
		b.changed(c[0], c[1])
	}
}
