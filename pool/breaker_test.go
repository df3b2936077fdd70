package pool

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

const (
	cannotConnect = "[WARN] cannot connect to backend"
	doesNotGreet  = "[WARN] backend accepts connections and does not greet"
	opened        = "[ERROR] circuit breaker opened"
	halfOpened    = "[INFO] circuit breaker is half-open"
	closedAgain   = "[INFO] circuit breaker closed"
)

func threeFailures(b *config.Backend) { b.Breaker.Failures = 3 }

func (w *world) told(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	w.log.told(t, want...)
}

func TestBackendDownAndUp(t *testing.T) {
	inBubble(t, threeFailures, func(t *testing.T, w *world) {
		w.acquire(t, Shared).Release(Reusable)
		w.Retire()
		w.set(&w.down, true)
		for range 3 {
			w.refused(t, syscall.ECONNREFUSED)
		}
		dials := w.Stat().Dials
		w.refused(t, ErrBreakerOpen)
		time.Sleep(10 * time.Second)
		w.refused(t, ErrBreakerOpen) // gobreaker wants more than the time
		time.Sleep(time.Nanosecond)
		w.refused(t, syscall.ECONNREFUSED) // a probe
		w.refused(t, ErrBreakerOpen)
		w.set(&w.down, false)
		time.Sleep(9 * time.Second)
		w.refused(t, ErrBreakerOpen)
		time.Sleep(time.Second + 1)
		w.told(t, cannotConnect, cannotConnect, cannotConnect, opened, halfOpened, cannotConnect, opened)
		if !w.log.has(opened[8:], "backend=mail1", "was=closed", "next_try_in=10s") {
			t.Errorf("log: %s", w.log.buf.String())
		}

		c := w.acquire(t, Shared) // a probe
		w.refused(t, ErrBreakerOpen)
		run(t, c)
		c.Release(Reusable)
		w.acquire(t, Shared).Release(Reusable)
		w.told(t, cannotConnect, cannotConnect, cannotConnect, opened, halfOpened, cannotConnect, opened, halfOpened, closedAgain)
		if s := w.Stat(); s.Breaker != Closed || s.BreakerOpened != 2 || s.RejectedByBreaker != 5 || s.Dials != dials+2 || s.DialErrors != 4 {
			t.Errorf("%+v", s)
		}
	})
}

// Those who wait learn at once that the breaker opened, and nothing is dialled
// for them any more.
func TestOpeningFailsTheWaiting(t *testing.T) {
	change := func(b *config.Backend) { threeFailures(b); b.Pool.MaxOpen = 3 }
	inBubble(t, change, func(t *testing.T, w *world) {
		w.down, w.slow = true, time.Second
		var all []*pending
		for range 10 {
			all = append(all, w.begin(t, Shared))
		}
		time.Sleep(time.Second)
		refused := 0
		for _, a := range all {
			a.done()
			if errors.Is(a.err, syscall.ECONNREFUSED) {
				refused++
			} else {
				a.failed(t, ErrBreakerOpen)
			}
			if a.took != time.Second {
				t.Errorf("took %v", a.took)
			}
		}
		// While the third fails, those for the first and second may be dialled
		// again.
		if s := w.Stat(); refused != 3 || s.Dials > 5 || s.RejectedByBreaker != 7 {
			t.Errorf("%d refused, %+v", refused, s)
		}
	})
}

// Connections in use when the breaker opened serve nobody before it closes.
func TestOpenWithIdleConnections(t *testing.T) {
	inBubble(t, threeFailures, func(t *testing.T, w *world) {
		var inUse []*Conn
		for range 4 {
			inUse = append(inUse, w.acquire(t, Shared))
		}
		for _, c := range inUse[:3] {
			c.Release(Failed)
		}
		inUse[3].Release(Reusable) // began before the breaker opened, so it does not count
		w.refused(t, ErrBreakerOpen)
		time.Sleep(10*time.Second + 1)
		probe := w.acquire(t, Shared)
		if !probe.Reused() {
			t.Error("the probe does not use the idle connection")
		}
		probe.Release(Reusable)
		w.acquire(t, Shared).Release(Reusable)
		w.told(t, opened, halfOpened, closedAgain)
	})
}

func TestSeveralProbes(t *testing.T) {
	change := func(b *config.Backend) { threeFailures(b); b.Breaker.Probes = 2 }
	inBubble(t, change, func(t *testing.T, w *world) {
		w.open(t)
		a, b := w.acquire(t, Shared), w.acquire(t, Shared)
		w.refused(t, ErrBreakerOpen)
		a.Release(Reusable)
		w.refused(t, ErrBreakerOpen) // one of two is known
		b.Release(Reusable)
		w.acquire(t, Shared).Release(Reusable)
		w.told(t, opened, halfOpened, closedAgain)
	})
}

// open opens the breaker and lets the time pass until a probe is let through.
func (w *world) open(t *testing.T) {
	t.Helper()
	for range 3 {
		w.acquire(t, Shared).Release(Failed)
	}
	w.refused(t, ErrBreakerOpen)
	time.Sleep(10*time.Second + 1)
}

func TestProbeFails(t *testing.T) {
	inBubble(t, threeFailures, func(t *testing.T, w *world) {
		w.open(t)
		w.acquire(t, Shared).Release(Failed)
		w.refused(t, ErrBreakerOpen)
		w.told(t, opened, halfOpened, opened)
	})
}

// A probe that says nothing makes room for another: the command was given up,
// or its wait.
func TestProbeWithoutVerdict(t *testing.T) {
	inBubble(t, threeFailures, func(t *testing.T, w *world) {
		w.open(t)
		w.acquire(t, Shared).Release(Abandoned)
		w.slow = time.Second
		a := w.begin(t, Shared)
		w.refused(t, ErrBreakerOpen)
		a.cancel()
		a.failed(t, context.Canceled)
		b := w.begin(t, Shared)
		time.Sleep(time.Second)
		b.got(t).Release(Reusable)
		w.told(t, opened, halfOpened, closedAgain)
	})
}

// A probe that is silent for long does not keep all others out.
func TestProbeTakesLong(t *testing.T) {
	for name, outcome := range map[string]struct {
		of    Outcome
		story []string
	}{
		"and works": {Reusable, []string{opened, halfOpened, closedAgain}},
		"and fails": {Failed, []string{opened, halfOpened, opened}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, threeFailures, func(t *testing.T, w *world) {
				w.open(t)
				long := w.acquire(t, Shared)
				time.Sleep(10*time.Second - 1)
				w.refused(t, ErrBreakerOpen)
				time.Sleep(time.Nanosecond)
				second := w.acquire(t, Shared)
				w.refused(t, ErrBreakerOpen)
				time.Sleep(5 * time.Second)
				w.refused(t, ErrBreakerOpen)
				long.Release(outcome.of) // it still counts
				second.Release(Abandoned)
				w.told(t, outcome.story...)
			})
		})
	}
	t.Run("and another works", func(t *testing.T) {
		inBubble(t, threeFailures, func(t *testing.T, w *world) {
			w.open(t)
			long := w.acquire(t, Shared)
			time.Sleep(10 * time.Second)
			w.acquire(t, Shared).Release(Reusable)
			w.acquire(t, Shared).Release(Reusable)
			long.Release(Failed) // of a time that is over
			w.told(t, opened, halfOpened, closedAgain)
		})
	})
}

func TestAnsweringIsAVerdict(t *testing.T) {
	inBubble(t, threeFailures, func(t *testing.T, w *world) {
		w.open(t)
		probe := w.acquire(t, Shared)
		probe.Answering()
		w.told(t, opened, halfOpened, closedAgain)
		probe.Answering()
		others := []*Conn{w.acquire(t, Shared), w.acquire(t, Shared)}
		for _, c := range others {
			c.Answering()
		}
		// The end of a reply that had begun well counts, too.
		others[0].Release(Failed)
		others[1].Release(Failed)
		probe.Release(Failed)
		w.told(t, opened, halfOpened, closedAgain, opened)
	})
}

func TestWhatIsNoFailure(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 2; b.Pool.MaxOpen = 1; b.Pool.MaxWaiting = 0 }, func(t *testing.T, w *world) {
		for range 5 {
			w.acquire(t, Shared).Release(Failed) // one failure is not enough
			w.acquire(t, Shared).Release(Answered)
			w.acquire(t, Shared).Release(Abandoned)
			c := w.acquire(t, Shared)
			w.refused(t, ErrQueueFull)
			c.Release(Reusable)
		}
		if s := w.Stat(); s.BreakerOpened != 0 {
			t.Errorf("%+v", s)
		}
		// What is no verdict does not part one failure from the next.
		w.acquire(t, Shared).Release(Failed)
		w.acquire(t, Shared).Release(Abandoned)
		w.acquire(t, Shared).Release(Failed)
		w.told(t, opened)
	})
}

func TestTimeoutsAndCancelsAreNoFailures(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 1; b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		late, gone := w.begin(t, Shared), w.begin(t, Shared)
		gone.cancel()
		gone.failed(t, context.Canceled)
		time.Sleep(10 * time.Second)
		late.failed(t, ErrTimeout)
		c.Release(Reusable)
		if s := w.Stat(); s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
	})
}

// A dial whose waiter left speaks for itself.
func TestDialsOfThoseWhoLeft(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 2 }, func(t *testing.T, w *world) {
		w.slow = time.Second
		leave := func() {
			a := w.begin(t, Fresh)
			a.cancel()
			a.failed(t, context.Canceled)
			time.Sleep(time.Second)
			synctest.Wait()
		}
		w.set(&w.down, true)
		leave()
		w.set(&w.down, false)
		leave()
		w.set(&w.down, true)
		w.Retire()
		leave()
		w.told(t, cannotConnect, cannotConnect)
		leave()
		w.told(t, cannotConnect, cannotConnect, cannotConnect, opened)
	})
}

// A refusal means that the backend was stopped: what is left of it is not used.
func TestRefusalDropsIdleConnections(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 100 }, func(t *testing.T, w *world) {
		a, b, c := w.acquire(t, Shared), w.acquire(t, Shared), w.acquire(t, Shared)
		a.Release(Reusable)
		b.Release(Reusable)
		w.set(&w.down, true)
		if _, err := w.Acquire(t.Context(), Fresh); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		if !w.log.has(cannotConnect[7:], "backend=mail1", "connection refused", "idle_closed=2") {
			t.Errorf("log: %s", w.log.buf.String())
		}
		c.Release(Reusable)
		if s := w.Stat(); s.Open != 0 || s.Closed[closedRetired] != 3 {
			t.Errorf("%+v", s)
		}
		w.set(&w.down, false)
		d := w.acquire(t, Shared)
		if d.Reused() {
			t.Error("a connection of before was used again")
		}
		d.Release(Reusable)
	})
}

func TestNobodyGreets(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 2 }, func(t *testing.T, w *world) {
		w.set(&w.mute, true)
		start := time.Now()
		w.refused(t, ErrNoProcess)
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		w.refused(t, ErrNoProcess)
		w.refused(t, ErrBreakerOpen)
		w.told(t, doesNotGreet, doesNotGreet, opened)
		if s := w.Stat(); s.NoGreeting != 2 || s.DialErrors != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// answering is a pool with n connections in use at a backend that has no
// process for another, but answers.
func answering(t *testing.T, n int, test func(t *testing.T, w *world, inUse []*Conn)) {
	change := func(b *config.Backend) {
		b.Breaker.Failures = 1
		b.Pool.AcquireTimeout = 57 * time.Second
		b.Pool.MaxIdle = 8
	}
	inBubble(t, change, func(t *testing.T, w *world) {
		var inUse []*Conn
		for range n {
			inUse = append(inUse, w.acquire(t, Shared))
		}
		w.set(&w.mute, true)
		test(t, w, inUse)
	})
}

func TestFullBackend(t *testing.T) {
	answering(t, 2, func(t *testing.T, w *world, inUse []*Conn) {
		var queue []*pending
		for range 5 {
			queue = append(queue, w.begin(t, Shared))
		}
		time.Sleep(time.Second)
		inUse[0].Answering()
		time.Sleep(4 * time.Second) // none of the dials was greeted
		for _, a := range queue {
			a.waits(t)
		}
		if s := w.Stat(); s.NoGreeting != 5 || s.Dialing != 0 || s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
		if !w.log.has("answers_others=true") {
			t.Errorf("log: %s", w.log.buf.String())
		}

		// They get the connections that there are, in their turn.
		client := inUse[0].Client()
		inUse[0].Release(Reusable)
		c := queue[0].got(t)
		if c.Client() != client {
			t.Error("got another connection")
		}
		c.Release(Reusable)
		c = queue[1].got(t)

		// After the pause one dial at a time looks whether there is room.
		time.Sleep(fullPause)
		synctest.Wait()
		if s := w.Stat(); s.Dialing != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Second)
		c.Answering()
		time.Sleep(4 * time.Second)
		queue[2].waits(t)
		w.set(&w.mute, false)
		time.Sleep(fullPause)
		for _, a := range queue[2:] {
			a.got(t).Release(Reusable)
		}
		if s := w.Stat(); s.Dials > 2+5+1+3 || s.TimedOut != 0 || s.BreakerOpened != 0 {
			t.Errorf("%+v", s)
		}
		c.Release(Reusable)
		inUse[1].Release(Reusable)
	})
}

// A login is an answer, too.
func TestFullBackendGreetsOthers(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 1 }, func(t *testing.T, w *world) {
		w.set(&w.mute, true)
		a := w.begin(t, Shared)
		time.Sleep(time.Second)
		w.set(&w.mute, false)
		b := w.begin(t, Shared)
		c := a.got(t) // by the dial for b
		time.Sleep(4 * time.Second)
		b.waits(t)
		if s := w.Stat(); s.NoGreeting != 1 || s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
		c.Release(Reusable)
		b.got(t).Release(Reusable)
	})
}

// TestFullBackendDrops: a Dovecot at its limit also closes what waits for a
// process. One that answers nobody is another matter.
func TestFullBackendDrops(t *testing.T) {
	answering(t, 1, func(t *testing.T, w *world, inUse []*Conn) {
		w.set(&w.mute, false)
		w.set(&w.drop, true)
		w.slow = time.Second
		queue := []*pending{w.begin(t, Shared), w.begin(t, Shared)}
		time.Sleep(time.Second / 2)
		inUse[0].Answering()
		time.Sleep(time.Second)
		for _, a := range queue {
			a.waits(t)
		}
		if s := w.Stat(); s.NoGreeting != 2 || s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
		// Those that are closed at once come before it could answer somebody.
		w.takes(0)
		time.Sleep(3 * time.Second)
		for _, a := range queue {
			a.waits(t)
		}
		if s := w.Stat(); s.NoGreeting < 4 || s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second) // one more, and nobody was answered for the time of a handshake
		if s := w.Stat(); s.Breaker != Open {
			t.Errorf("%+v", s)
		}
		queue[0].failed(t, errNotGreeted)
		queue[1].failed(t, ErrBreakerOpen)
		inUse[0].Release(Reusable)
	})
}

// TestFullBackendIsLate: nor is one sick whose queue is full, or that is too
// slow to let in another, while it answers some.
func TestFullBackendIsLate(t *testing.T) {
	answering(t, 1, func(t *testing.T, w *world, inUse []*Conn) {
		w.set(&w.late, true)
		w.takes(5 * time.Second)
		a := w.begin(t, Shared)
		for range 56 {
			time.Sleep(time.Second)
			inUse[0].Answering()
			a.waits(t)
		}
		if s := w.Stat(); s.DialErrors != 9 || s.NoGreeting != 0 || s.Breaker != Closed { // 5 s each, and a pause of 1 s
			t.Errorf("%+v", s)
		}
		if !w.log.has(cannotConnect[7:], "answers_others=true") {
			t.Errorf("log: %s", w.log.buf.String())
		}
		time.Sleep(time.Second)
		a.failed(t, ErrTimeout)
		a.failed(t, os.ErrDeadlineExceeded)
		inUse[0].Release(Reusable)
		if s := w.Stat(); s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
	})
}

func TestFullBackendTimeout(t *testing.T) {
	answering(t, 1, func(t *testing.T, w *world, inUse []*Conn) {
		a := w.begin(t, Shared)
		for range 56 {
			time.Sleep(time.Second)
			inUse[0].Answering()
			a.waits(t)
		}
		time.Sleep(time.Second)
		a.failed(t, ErrTimeout)
		a.failed(t, ErrNoProcess)
		if s := w.Stat(); s.Dials != 1+10 { // one of 5 s, a pause of 1 s, and so on
			t.Errorf("%d dials", s.Dials)
		}
		inUse[0].Release(Reusable)
	})
}

// Without a connection to wait for there is nothing but the failure.
func TestFullBackendWithoutConnections(t *testing.T) {
	answering(t, 1, func(t *testing.T, w *world, inUse []*Conn) {
		a := w.begin(t, Shared)
		time.Sleep(time.Second)
		inUse[0].Release(Answered)
		a.waits(t)
		time.Sleep(4 * time.Second)
		a.failed(t, ErrNoProcess)
		if s := w.Stat(); s.Breaker != Closed {
			t.Errorf("%+v", s)
		}
		w.set(&w.mute, false)
		w.begin(t, Shared).got(t).Release(Reusable) // at once: for what should it wait?
	})
}

// A fresh connection takes the process of one that is closed for it, and does
// not use up one after the other.
func TestFreshAtFullBackend(t *testing.T) {
	answering(t, 4, func(t *testing.T, w *world, inUse []*Conn) {
		fresh := w.begin(t, Fresh)
		time.Sleep(time.Second)
		inUse[0].Answering()
		time.Sleep(4 * time.Second)
		fresh.waits(t)
		w.set(&w.mute, false)
		inUse[0].Release(Reusable)
		c := fresh.got(t)
		if c.Reused() {
			t.Error("Fresh got a used connection")
		}
		inUse[1].Release(Reusable)
		inUse[2].Release(Reusable)

		w.set(&w.mute, true)
		first, second := w.begin(t, Fresh), w.begin(t, Fresh)
		time.Sleep(time.Second)
		inUse[3].Answering()
		time.Sleep(4 * time.Second) // both find no process, so idle ones make room
		synctest.Wait()
		if s := w.Stat(); s.Closed[closedEvicted] != 1+2 || s.Dialing != 2 {
			t.Errorf("%+v", s)
		}
		inUse[3].Release(Reusable)
		if s := w.Stat(); s.Idle != 1 {
			t.Errorf("another one was closed: %+v", s)
		}
		first.cancel()
		second.cancel()
		synctest.Wait()
		c.Release(Answered)
	})
}
