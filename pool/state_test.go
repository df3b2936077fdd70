package pool

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// TestDraining: what runs may end, those who wait are sent elsewhere, nothing
// new begins, and nothing is left open.
func TestDraining(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 2 }, func(t *testing.T, w *world) {
		busy := w.acquire(t, Shared)
		w.acquire(t, Shared).Release(Reusable) // idle
		other := w.acquire(t, Shared)
		waiting := w.begin(t, Shared)
		waiting.waits(t)
		other.Release(Reusable)
		waiting.got(t).Release(Reusable) // idle

		waits := w.acquire(t, Shared)
		late := w.begin(t, Shared)
		late.waits(t)
		w.SetOperator(Draining)
		late.failed(t, ErrOutOfService)
		w.refused(t, ErrOutOfService)
		run(t, busy) // not cut
		busy.Release(Reusable)
		if busy.Severed() {
			t.Error("cut by a drain")
		}
		waits.Release(Reusable)
		synctest.Wait()
		if s := w.Stat(); s.Open != 0 || s.Operator != Draining || s.Breaker != Closed {
			t.Errorf("drained: %+v", s)
		}

		w.SetOperator(Active)
		w.acquire(t, Shared).Release(Reusable)
	})
}

// TestDrainWhileDialling: a connection that comes too late is closed, and a
// failure that comes too late reaches nobody.
func TestDrainWhileDialling(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.slow = time.Second
		late := w.begin(t, Shared)
		w.SetOperator(Draining)
		late.failed(t, ErrOutOfService)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := w.Stat(); s.Open != 0 || s.Dialing != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestDown: what runs is cut, and the breaker does not take that for a failure
// of the backend.
func TestDown(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		w.SetOperator(Down)
		if _, err := c.Client().ReadChunk(); err == nil {
			t.Error("not cut")
		}
		if !c.Severed() {
			t.Error("not severed")
		}
		w.SetOperator(Active)
		after := w.acquire(t, Shared)
		c.Release(Failed)
		run(t, after)
		if after.Severed() {
			t.Error("severed after resume")
		}
		after.Release(Reusable)
		if s := w.Stat(); s.Breaker != Closed || s.BreakerOpened != 0 || s.LastError != "" {
			t.Errorf("the breaker judged what an operator did: %+v", s)
		}
	})
}

// TestOutOfServiceKeepsNothingReady: min_idle does not count then.
func TestOutOfServiceKeepsNothingReady(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MinIdle = 2 }, func(t *testing.T, w *world) {
		time.Sleep(45 * time.Second) // not when idle_timeout is just over
		if n := w.Stat().Idle; n != 2 {
			t.Fatalf("%d idle, want 2", n)
		}
		w.SetOperator(Draining)
		dials := w.Stat().Dials
		time.Sleep(time.Minute)
		if s := w.Stat(); s.Open != 0 || s.Dials != dials {
			t.Errorf("%+v", s)
		}
		w.SetOperator(Active)
		time.Sleep(5 * refillInterval)
		if n := w.Stat().Idle; n != 2 {
			t.Errorf("%d idle after resume, want 2", n)
		}
	})
}

// TestOperatorBeforeBreaker: who asks for a backend out of service hears that,
// and both axes stay what they are.
func TestOperatorBeforeBreaker(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 1 }, func(t *testing.T, w *world) {
		w.set(&w.down, true)
		w.refused(t, errDown)
		w.refused(t, ErrBreakerOpen)
		if w.Available() {
			t.Error("available behind an open breaker")
		}
		w.SetOperator(Draining)
		w.refused(t, ErrOutOfService)
		if s := w.Stat(); s.Breaker != Open || s.Operator != Draining {
			t.Errorf("%+v", s)
		}
		w.SetOperator(Active)
		w.refused(t, ErrBreakerOpen)
		w.set(&w.down, false)
		time.Sleep(11 * time.Second)
		if !w.Available() {
			t.Error("not available when the breaker lets a probe through")
		}
		if back := w.Back(); back < 10*time.Second || back > 12*time.Second {
			t.Errorf("resumed %v ago", back)
		}
		c := w.acquire(t, Shared)
		run(t, c)
		c.Release(Reusable)
		time.Sleep(time.Second)
		if back := w.Back().Round(time.Millisecond); back != time.Second {
			t.Errorf("back for %v, want 1s", back)
		}
	})
}

// TestBack: only who was away has come back.
func TestBack(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		run(t, c)
		c.Release(Reusable)
		w.SetOperator(Active)
		if back := w.Back(); back != math.MaxInt64 {
			t.Errorf("back for %v without having been away", back)
		}
	})
}

// TestBusy counts those who have and those who wait, and nobody for ever.
func TestBusy(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen, b.Pool.MaxWaiting = 1, 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		waiting := w.begin(t, Shared)
		w.refused(t, ErrQueueFull)
		if n := w.Busy(); n != 2 {
			t.Errorf("%d busy, want 2", n)
		}
		c.Release(Failed)
		waiting.got(t).Release(Abandoned)
		if n := w.Busy(); n != 0 {
			t.Errorf("%d busy, want 0", n)
		}
	})
}

func TestInherit(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.SetOperator(Down)
		w.setHealth(Failing)
		same, moved := defaults(), defaults()
		moved.Address = "10.0.0.2:1"
		for _, b := range []config.Backend{same, moved} {
			p := New(b, w.dialer(b), w.log.logger())
			p.Inherit(w.Pool)
			want := map[bool]Health{true: Failing, false: Unknown}[b.Address == same.Address]
			if p.Operator() != Down || p.Health() != want {
				t.Errorf("%q: %v, %v", b.Address, p.Operator(), p.Health())
			}
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestOperatorText(t *testing.T) {
	for _, o := range []Operator{Active, Draining, Down} {
		text, _ := o.MarshalText()
		var got Operator
		if err := got.UnmarshalText(text); err != nil || got != o {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if err := new(Operator).UnmarshalText([]byte("up")); err == nil {
		t.Error("\"up\" is no state of an operator")
	}
}

// TestInheritCounters: what a pool has counted, and what it counts while its
// last commands end, is in the counters of those that replace it.
func TestInheritCounters(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		acquire := func(p *Pool) *Conn {
			c, err := p.Acquire(t.Context(), Shared)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		acquire(w.Pool).Release(Reusable)
		late := acquire(w.Pool)
		second := New(defaults(), w.dialer(defaults()), w.log.logger())
		second.Inherit(w.Pool)
		acquire(second).Release(Failed)
		if s := second.Stat(); s.Acquired != 3 || s.Dials != 2 || s.Closed[ClosedLost] != 1 || s.LastError == "" {
			t.Errorf("while the first has a command: %+v", s)
		}
		late.Release(Failed)
		if s := second.Stat(); s.Closed[ClosedLost] != 2 || s.Open != 0 {
			t.Errorf("after its end: %+v", s)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		third := New(defaults(), w.dialer(defaults()), w.log.logger())
		third.Inherit(second)
		acquire(third).Release(Reusable)
		if s := third.Stat(); s.Acquired != 4 || s.Closed[ClosedLost] != 2 {
			t.Errorf("of the third: %+v", s)
		}
		if len(third.replaced) != 1 {
			t.Errorf("%d pools are kept for their counters, want the one that is not drained", len(third.replaced))
		}
		for _, p := range []*Pool{second, third} {
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if s := third.Stat(); s.Acquired != 4 || s.Closed[ClosedLost] != 2 {
			t.Errorf("of the third at the end: %+v", s)
		}
	})
}
