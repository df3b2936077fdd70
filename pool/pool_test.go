package pool

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

func TestMostRecentlyUsedFirst(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		a, b := w.acquire(t, Shared), w.acquire(t, Shared)
		if a.Reused() || b.Reused() {
			t.Error("reused without having been used")
		}
		first, second := a.Client(), b.Client()
		run(t, a)
		run(t, b)
		b.Release(Reusable)
		a.Release(Reusable)
		c := w.acquire(t, Shared)
		if c.Client() != first || !c.Reused() {
			t.Errorf("not the most recently used connection, reused %v", c.Reused())
		}
		d := w.acquire(t, Shared)
		if d.Client() != second {
			t.Error("not the other connection")
		}
		run(t, c)
		c.Release(Reusable)
		d.Release(Reusable)
		if s := w.Stat(); s.Dials != 2 || s.Acquired != 4 || s.Idle != 2 || s.Waits != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFirstComeFirstServed(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		client := c.Client()
		var queue []*pending
		for range 4 {
			queue = append(queue, w.begin(t, Shared))
		}
		queue[1].cancel()
		queue[1].failed(t, context.Canceled)
		for _, i := range []int{0, 2, 3} {
			queue[i].waits(t)
			time.Sleep(time.Second)
			c.Release(Reusable)
			c = queue[i].got(t)
			if c.Client() != client || !c.Reused() {
				t.Error("not the connection that was released")
			}
		}
		c.Release(Reusable)
		if s := w.Stat(); s.Dials != 1 || s.Waits != 5 || s.WaitTime != (1+2+3)*time.Second {
			t.Errorf("%+v", s)
		}
	})
}

// One who gives up at the moment when he is served has the connection: nobody
// else knows of it.
func TestServedWhileGivingUp(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		a := w.begin(t, Shared)
		c.tell(nil)
		w.Pool.mu.Lock() // Release, with a surprise under the lock
		a.cancel()
		w.rest(c.link, time.Now())
		w.unlock()
		a.got(t).Release(Reusable)
	})
}

func TestDialOutlivesItsWaiter(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.slow = 3 * time.Second
		a := w.begin(t, Shared)
		time.Sleep(time.Second)
		a.cancel()
		a.failed(t, context.Canceled)
		if s := w.Stat(); s.Dialing != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := w.Stat(); s.Idle != 1 {
			t.Errorf("%+v", s)
		}
		c := w.acquire(t, Shared)
		if !c.Reused() {
			t.Error("a connection that was idle is not reused")
		}
		c.Release(Reusable)
		if s := w.Stat(); s.Dials != 1 || s.DialTime != 3*time.Second {
			t.Errorf("%+v", s)
		}
	})
}

// A connection that is released serves the one whose dial is under way; the
// dial's connection becomes idle.
func TestReleaseOvertakesDial(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		w.slow = time.Second
		a := w.begin(t, Shared)
		c.Release(Reusable)
		a.got(t).Release(Reusable)
		time.Sleep(time.Second)
		synctest.Wait()
		if s := w.Stat(); s.Idle != 2 || s.Dials != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		a, b := w.acquire(t, Shared), w.acquire(t, Shared)
		a.Release(Reusable)
		time.Sleep(10 * time.Second)
		b.Release(Reusable)
		for i := range 50 { // use of one does not keep the other
			time.Sleep(400 * time.Millisecond)
			c := w.acquire(t, Shared)
			c.Release(Reusable)
			if idle := w.Stat().Idle; i < 49 && idle != 2 {
				t.Fatalf("%d idle connections after %v", idle, time.Duration(i+1)*400*time.Millisecond)
			}
		}
		synctest.Wait()
		if idle := w.Stat().Idle; idle != 1 {
			t.Errorf("%d idle connections, want the one that is in use now and then", idle)
		}
		time.Sleep(30*time.Second - 1)
		synctest.Wait()
		if open := len(w.srv.Conns()); open != 1 {
			t.Errorf("%d connections just before the timeout", open)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if open := len(w.srv.Conns()); open != 0 {
			t.Errorf("%d connections after the timeout", open)
		}
		if diff := cmp.Diff(map[CloseReason]uint64{closedIdle: 2}, w.closedFor()); diff != "" {
			t.Error(diff)
		}
	})
}

// What should have been closed is not handed out if the sweep is late.
func TestSweepIsLate(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.acquire(t, Shared).Release(Reusable)
		w.Pool.mu.Lock()
		w.idle[0].until = time.Now()
		w.Pool.mu.Unlock()
		c := w.acquire(t, Shared)
		if c.Reused() {
			t.Error("got a connection whose time is over")
		}
		c.Release(Reusable)
	})
}

func TestMaxLifetime(t *testing.T) {
	const lifetime = 5 * time.Minute
	change := func(b *config.Backend) {
		b.Pool.MaxOpen, b.Pool.MaxIdle = 50, 50
		b.Pool.IdleTimeout = 0
		b.Pool.MaxLifetime = lifetime
	}
	inBubble(t, change, func(t *testing.T, w *world) {
		var conns []*Conn
		for range 50 {
			conns = append(conns, w.acquire(t, Shared))
		}
		for _, c := range conns[1:] {
			c.Release(Reusable)
		}
		time.Sleep(lifetime - lifetime/10 - 1)
		synctest.Wait()
		if idle := w.Stat().Idle; idle != 49 {
			t.Errorf("%d idle connections before the earliest end", idle)
		}
		ends := 0 // distinct moments
		for before := 49; before > 0; {
			time.Sleep(time.Second)
			synctest.Wait()
			if idle := w.Stat().Idle; idle != before {
				before = idle
				ends++
			}
			if time.Since(w.born) > lifetime+time.Second {
				t.Fatalf("%d idle connections after max_lifetime", before)
			}
		}
		if ends < 10 {
			t.Errorf("49 connections ended at %d moments, want them spread", ends)
		}
		time.Sleep(time.Until(w.born.Add(lifetime)))
		run(t, conns[0]) // in use it may grow older
		conns[0].Release(Reusable)
		if diff := cmp.Diff(map[CloseReason]uint64{closedLifetime: 50}, w.closedFor()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMaxCommands(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxCommands = 3; b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		for range 7 {
			c := w.acquire(t, Shared)
			run(t, c)
			c.Release(Reusable)
		}
		if s := w.Stat(); s.Dials != 3 || s.Closed[closedCommands] != 2 {
			t.Errorf("%+v", s)
		}
	})
}

func TestMaxIdle(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxIdle = 1 }, func(t *testing.T, w *world) {
		a, b, c := w.acquire(t, Shared), w.acquire(t, Shared), w.acquire(t, Shared)
		last := c.Client()
		a.Release(Reusable)
		b.Release(Reusable)
		c.Release(Reusable)
		if s := w.Stat(); s.Idle != 1 || s.Open != 1 || s.Closed[closedSurplus] != 2 {
			t.Errorf("%+v", s)
		}
		d := w.acquire(t, Shared)
		if d.Client() != last {
			t.Error("the oldest was kept")
		}
		d.Release(Reusable)
	})
}

func TestMinIdle(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MinIdle = 2 }, func(t *testing.T, w *world) {
		synctest.Wait()
		if s := w.Stat(); s.Idle != 2 || s.Acquired != 0 {
			t.Fatalf("at the start: %+v", s)
		}
		c := w.acquire(t, Shared)
		if !c.Reused() {
			t.Error("a connection that was idle is not reused")
		}
		time.Sleep(refillInterval)
		synctest.Wait()
		if s := w.Stat(); s.Idle != 2 || s.Open != 3 {
			t.Errorf("after a use: %+v", s)
		}
		c.Release(Answered)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := w.Stat(); s.Idle != 2 || s.Closed[closedIdle] == 0 {
			t.Errorf("after some idle timeouts: %+v", s)
		}
	})
}

// min_idle does not knock at a backend that is known to be ill.
func TestMinIdleLeavesOpenBreakerAlone(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MinIdle = 2 }, func(t *testing.T, w *world) {
		synctest.Wait()
		w.set(&w.down, true)
		w.Retire()
		time.Sleep(time.Minute)
		synctest.Wait()
		s := w.Stat()
		if s.BreakerOpened != 1 || s.DialErrors < 5 || s.DialErrors > 6 {
			t.Fatalf("%+v", s)
		}
		w.set(&w.down, false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := w.Stat(); got.Dials != s.Dials {
			t.Errorf("%d dials while the breaker was open", got.Dials-s.Dials)
		}
		w.acquire(t, Shared).Release(Reusable)
		time.Sleep(refillInterval)
		synctest.Wait()
		if s := w.Stat(); s.Breaker != Closed || s.Idle != 2 {
			t.Errorf("after a probe: %+v", s)
		}
	})
}

func TestAcquireTimeout(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		a := w.begin(t, Shared)
		time.Sleep(10*time.Second - 1)
		a.waits(t)
		time.Sleep(time.Nanosecond)
		a.failed(t, ErrTimeout)
		if errors.Is(a.err, ErrNoProcess) {
			t.Errorf("%v: the backend did not say so", a.err)
		}
		if s := w.Stat(); s.TimedOut != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}
		c.Release(Reusable)
	})
}

func TestQueueFull(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 2; b.Pool.MaxWaiting = 1 }, func(t *testing.T, w *world) {
		w.slow = time.Second
		a, b := w.begin(t, Shared), w.begin(t, Shared) // these have a dial each
		c := w.begin(t, Shared)
		w.refused(t, ErrQueueFull)
		w.refused(t, ErrQueueFull)
		time.Sleep(time.Second)
		a.got(t).Release(Reusable)
		c.got(t).Release(Reusable)
		b.got(t).Release(Reusable)
		if s := w.Stat(); s.QueueFull != 2 || s.Waits != 3 {
			t.Errorf("%+v", s)
		}
	})
}

func TestFreshMakesRoom(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 2 }, func(t *testing.T, w *world) {
		a, b := w.acquire(t, Shared), w.acquire(t, Shared)
		recent := b.Client()
		a.Release(Reusable)
		b.Release(Reusable)
		c := w.acquire(t, Fresh)
		if c.Reused() || w.closedFor()[closedEvicted] != 1 {
			t.Errorf("reused %v, %+v", c.Reused(), w.Stat())
		}
		d := w.acquire(t, Shared)
		if d.Client() != recent {
			t.Error("the most recently used had to go")
		}

		// Both in use: the next to come back is replaced, whoever waits behind.
		fresh, shared := w.begin(t, Fresh), w.begin(t, Shared)
		d.Release(Reusable)
		got := fresh.got(t)
		if got.Reused() {
			t.Error("Fresh got a used connection")
		}
		shared.waits(t)
		got.Release(Answered)
		shared.got(t).Release(Reusable)
		c.Release(Answered)
	})
}

// One who waits for a fresh connection takes nothing from those behind him
// once his dial is under way.
func TestFreshEvictsOnce(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 3 }, func(t *testing.T, w *world) {
		var inUse []*Conn
		for range 3 {
			inUse = append(inUse, w.acquire(t, Shared))
		}
		w.slow = time.Second
		fresh, shared := w.begin(t, Fresh), w.begin(t, Shared)
		inUse[0].Release(Reusable) // closed for the dial
		fresh.waits(t)
		shared.waits(t)
		inUse[1].Release(Reusable)
		fresh.waits(t)
		shared.got(t).Release(Reusable)
		inUse[2].Release(Reusable)
		time.Sleep(time.Second)
		fresh.got(t).Release(Answered)
		if got := w.closedFor()[closedEvicted]; got != 1 {
			t.Errorf("%d connections were closed for one", got)
		}
	})
}

func TestFreshTakesNeverUsed(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MinIdle = 1 }, func(t *testing.T, w *world) {
		synctest.Wait()
		c := w.acquire(t, Shared)
		time.Sleep(refillInterval)
		synctest.Wait()
		never := w.idle[0].client
		c.Release(Reusable) // now the most recently used one is a used one
		d := w.acquire(t, Fresh)
		if d.Client() != never || !d.Reused() {
			t.Errorf("not the idle connection without a command; reused %v", d.Reused())
		}
		d.Release(Answered)
	})
}

// The last place of a pool is free again as soon as its connection is closed,
// for whatever reason: who waits gets a dial.
func TestWaiterGetsTheFreePlace(t *testing.T) {
	for name, release := range map[string]func(w *world, c *Conn){
		"answered":  func(_ *world, c *Conn) { c.Release(Answered) },
		"abandoned": func(_ *world, c *Conn) { c.Release(Abandoned) },
		"failed":    func(_ *world, c *Conn) { c.Release(Failed) },
		"retired":   func(w *world, c *Conn) { w.Retire(); c.Release(Reusable) },
		"lifetime":  func(_ *world, c *Conn) { time.Sleep(5 * time.Minute); c.Release(Reusable) },
	} {
		t.Run(name, func(t *testing.T) {
			change := func(b *config.Backend) { b.Pool.MaxOpen = 1; b.Pool.AcquireTimeout = 0 }
			inBubble(t, change, func(t *testing.T, w *world) {
				c := w.acquire(t, Shared)
				a := w.begin(t, Shared)
				a.waits(t)
				release(w, c)
				got := a.got(t)
				if got.Reused() {
					t.Error("got the connection that was to be closed")
				}
				got.Release(Reusable)
			})
		})
	}
}

// A connection whose dial began before Retire is not used; its waiter gets
// another.
func TestRetireDuringDial(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		w.slow = time.Second
		a := w.begin(t, Shared)
		w.Retire()
		time.Sleep(time.Second)
		a.waits(t)
		time.Sleep(time.Second)
		a.got(t).Release(Reusable)
		if s := w.Stat(); s.Dials != 2 || s.Closed[closedRetired] != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestBytesBehindTheStatus(t *testing.T) {
	packet := func(data string) string {
		return string(doveadm.AppendPacket(nil, doveadm.ChannelReply, []byte(data)))
	}
	for name, sent := range map[string]string{
		"a packet":       packet("\n+\n") + packet("\n-NOUSER\n"),
		"half a header":  packet("\n+\n") + "\x00\x00",
		"half an escape": doveadm.StreamHeader + "\n+\n\x03",
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, w *world) {
				c := w.acquire(t, Shared)
				w.srv.Conns()[0].Raw([]byte(sent))
				if chunk, err := c.Client().ReadChunk(); err != nil || string(chunk.Data) != "\n+\n" {
					t.Fatalf("%q, %v", chunk.Data, err)
				}
				c.Release(Reusable) // the rest is in its buffer
				if s := w.Stat(); s.Idle != 0 || s.Closed[closedUnclean] != 1 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestReleaseClearsDeadlines(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		c.Client().NetConn().SetDeadline(time.Now().Add(time.Second))
		c.Release(Reusable)
		time.Sleep(time.Minute / 4)
		c = w.acquire(t, Shared)
		run(t, c)
		c.Release(Reusable)
	})
}

func TestDoubleRelease(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		c.Release(Reusable)
		again := w.acquire(t, Shared) // the same connection, another owner
		defer again.Release(Reusable)
		defer func() {
			if s, _ := recover().(string); !strings.Contains(s, "released twice") {
				t.Errorf("recovered %q", s)
			}
		}()
		c.Release(Reusable)
	})
}

func TestCloseWaits(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Pool.MaxOpen = 2 }, func(t *testing.T, w *world) {
		a, b := w.acquire(t, Shared), w.acquire(t, Shared)
		a.Release(Reusable)
		c := w.acquire(t, Shared)
		waiting := w.begin(t, Shared)
		closed := make(chan error, 2)
		for range 2 { // twice does no harm
			go func() { closed <- w.Close(t.Context()) }()
		}
		waiting.failed(t, ErrClosed)
		w.refused(t, ErrClosed)
		time.Sleep(time.Minute)
		c.Release(Reusable)
		synctest.Wait()
		if len(closed) != 0 {
			t.Error("Close returned with a connection in use")
		}
		run(t, b)
		b.Release(Reusable)
		for range 2 {
			if err := <-closed; err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(map[CloseReason]uint64{closedRetired: 2}, w.closedFor()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCloseCuts(t *testing.T) {
	inBubble(t, func(b *config.Backend) { b.Breaker.Failures = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("drained long enough"))
		defer cancel()
		start := time.Now()
		err := w.Close(ctx)
		if err == nil || !strings.Contains(err.Error(), "1 connections in use: drained long enough") || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if _, err := c.Client().Do(t.Context(), &quota); err == nil {
			t.Error("a connection works after it was cut")
		}
		c.Release(Failed) // which is not the backend's fault
		if s := w.Stat(); s.InUse != 0 || s.BreakerOpened != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestCloseEndsDials(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"connecting": func(w *world) { w.slow = time.Hour },
		"handshake":  func(w *world) { w.set(&w.mute, true) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(t *testing.T, w *world) {
				change(w)
				a := w.begin(t, Shared)
				start := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // nothing is in use, so there is nothing to cut
				if err := w.Close(ctx); err != nil || time.Since(start) != 0 {
					t.Errorf("got %v after %v", err, time.Since(start))
				}
				a.failed(t, ErrClosed)
				if s := w.Stat(); s.DialErrors != 0 || len(w.log.story()) != 0 {
					t.Errorf("the end of the pool counts as failure: %+v, %q", s, w.log.story())
				}
			})
		})
	}
}
