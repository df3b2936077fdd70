package pool

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// A backend has three states at the same time, each with one owner. None of
// them changes another:
//
//   - Operator: what an operator wants. It is only told.
//   - Health: what the health checks see.
//   - State: what the circuit breaker does, which knows the commands only.

// ErrOutOfService is what Acquire returns when an operator wants the backend
// to be left alone.
var ErrOutOfService = errors.New("an operator took the backend out of service")

// Operator is what an operator wants of a backend.
type Operator int32

// What an operator can want.
const (
	Active   Operator = iota
	Draining          // what runs may end, nothing new begins
	Down              // what runs is cut, nothing new begins
)

func operatorNames() []string { return []string{"active", "draining", "down"} }

func (o Operator) String() string { return operatorNames()[o] }

// MarshalText returns the name.
func (o Operator) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText takes a name.
func (o *Operator) UnmarshalText(text []byte) error {
	i, err := named(text, operatorNames())
	*o = Operator(i)
	return err
}

// Health is what the health checks see.
type Health int32

// What health checks can see.
const (
	Unknown Health = iota // no check has said anything yet, or there are none
	Up
	Failing
)

func healthNames() []string { return []string{"unknown", "up", "failing"} }

func (h Health) String() string { return healthNames()[h] }

// MarshalText returns the name.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText takes a name.
func (h *Health) UnmarshalText(text []byte) error {
	i, err := named(text, healthNames())
	*h = Health(i)
	return err
}

// named returns the place of a name among those that there are.
func named(text []byte, names []string) (int, error) {
	i := slices.Index(names, string(text))
	if i < 0 {
		return 0, fmt.Errorf("unknown state %q: use one of %s", text, strings.Join(names, ", "))
	}
	return i, nil
}

// Operator returns what an operator wants of the backend.
func (p *Pool) Operator() Operator { return Operator(p.operator.Load()) }

// SetOperator takes the backend out of service or back into it. All but
// Active fails those who wait with ErrOutOfService, so that they can go
// elsewhere, and closes idle connections; Down also cuts those in use, which
// are still to be released.
func (p *Pool) SetOperator(o Operator) {
	p.mu.Lock()
	was := Operator(p.operator.Swap(int32(o)))
	switch {
	case o != Active:
		p.retire()
	case was != Active:
		p.noteBack()
	}
	if o == Down {
		p.severed.Store(p.epoch)
	}
	p.unlock()
	if o == Down {
		p.cut()
	}
}

// Health returns what the health checks see.
func (p *Pool) Health() Health { return Health(p.health.Load()) }

// setHealth is for the health checks.
func (p *Pool) setHealth(h Health) {
	if was := Health(p.health.Swap(int32(h))); was == Failing && h == Up {
		p.noteBack()
	}
}

// Available reports whether nothing speaks against the backend: no operator,
// no health check and no breaker. It takes no lock.
func (p *Pool) Available() bool {
	return p.Operator() == Active && p.Health() != Failing && !p.breaker.isOpen()
}

// Back returns how long ago the backend came back after it had been out of
// service, failing, or behind an open breaker; if it never did, the longest
// time there is. It takes no lock.
func (p *Pool) Back() time.Duration {
	at := max(p.back.Load(), p.breaker.closedAt.Load())
	if at == 0 {
		return math.MaxInt64
	}
	return time.Since(p.born) - time.Duration(at)
}

func (p *Pool) noteBack() { p.back.Store(sinceBorn(p.born)) }

// sinceBorn is a moment as atomics keep it: never 0, and monotonic.
func sinceBorn(born time.Time) int64 { return max(int64(time.Since(born)), 1) }

// Busy returns how many commands have a connection or wait for one. It takes
// no lock.
func (p *Pool) Busy() int { return int(p.busy.Load()) }

// Inherit takes over what is known of the backend from the pool that p
// replaces, before p is used. What checks saw at another address does not
// count. The counters of Stat go on.
func (p *Pool) Inherit(old *Pool) {
	old.mu.Lock()
	before, earlier := old.before, append(slices.Clone(old.replaced), old)
	before.Closed = maps.Clone(before.Closed)
	old.mu.Unlock()
	var replaced []*Pool
	for _, o := range earlier {
		select {
		case <-o.drained:
			last := o.own()
			before.add(&last)
		default:
			replaced = append(replaced, o)
		}
	}
	p.mu.Lock()
	p.before, p.replaced = before, replaced
	p.mu.Unlock()
	p.SetOperator(old.Operator())
	if old.address == p.address {
		p.health.Store(int32(old.Health()))
	}
}
