package pool

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

var (
	panel  = Client{Name: "panel"}
	script = Client{Name: "script"}
	night  = Client{Name: "night", Bulk: true}
	dump   = Client{Name: "dump", Bulk: true}
)

// order runs commands that last a second each, begun all at once in the order
// of clients while a connection is in use, and returns whose they are in the
// order in which they got a connection.
func (w *world) order(t *testing.T, clients ...Client) []string {
	t.Helper()
	busy := w.acquire(t, Shared)
	var mu sync.Mutex
	var got []string
	var all sync.WaitGroup
	for _, client := range clients {
		all.Go(func() {
			c, err := w.AcquireFor(t.Context(), Shared, client)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				got = append(got, fmt.Sprintf("%s: %v", client.Name, err))
				return
			}
			got = append(got, client.Name)
			go func() {
				time.Sleep(time.Second)
				c.Release(Reusable)
			}()
		})
		synctest.Wait()
	}
	busy.Release(Reusable)
	all.Wait()
	time.Sleep(time.Second)
	synctest.Wait()
	return got
}

func repeat(n int, clients ...Client) []Client {
	var all []Client
	for range n {
		all = append(all, clients...)
	}
	return all
}

func oneConnection(b *config.Backend) {
	b.Pool.MaxOpen, b.Pool.MaxIdle, b.Pool.AcquireTimeout = 1, 1, 0
}

func TestClientsTakeTurns(t *testing.T) {
	inBubble(t, oneConnection, func(t *testing.T, w *world) {
		clients := append(repeat(5, panel), script, Client{Name: "third"}, script)
		want := []string{"panel", "script", "third", "panel", "script", "panel", "panel", "panel"}
		if diff := cmp.Diff(want, w.order(t, clients...)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Who has been served in a round comes again in the next one, also if it did
// not wait any more in between.
func TestComingBackIsNoNewBeginning(t *testing.T) {
	inBubble(t, oneConnection, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		var hog []*pending
		for range 3 {
			hog = append(hog, w.beginFor(t, Shared, panel))
		}
		a, b := w.beginFor(t, Shared, script), w.beginFor(t, Shared, Client{Name: "third"})
		next := func(p *pending) {
			t.Helper()
			c.Release(Reusable)
			c = p.got(t)
		}
		next(hog[0])
		next(a)
		a = w.beginFor(t, Shared, script) // its second one
		next(b)
		b = w.beginFor(t, Shared, Client{Name: "third"})
		next(hog[1])
		next(a)
		next(b)
		next(hog[2])
		c.Release(Reusable)
	})
}

func TestInteractiveBeforeBulk(t *testing.T) {
	inBubble(t, oneConnection, func(t *testing.T, w *world) {
		clients := append(repeat(2, night), repeat(2, dump)...)
		clients = append(clients, repeat(12, panel)...)
		want := slices.Concat(
			slices.Repeat([]string{"panel"}, interactiveTurns), []string{"night"}, // not never
			slices.Repeat([]string{"panel"}, 4), []string{"dump", "night", "dump"})
		if diff := cmp.Diff(want, w.order(t, clients...)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Bulk clients leave connections free: an interactive client finds one that is
// idle, or dials, and does not wait for the end of a command.
func TestBulkLeavesPlaces(t *testing.T) {
	for _, use := range []Use{Shared, Fresh} {
		t.Run(fmt.Sprint(use), func(t *testing.T) {
			change := func(b *config.Backend) { b.Pool.MaxOpen, b.Pool.MaxBulk, b.Pool.AcquireTimeout = 4, 2, 0 }
			inBubble(t, change, func(t *testing.T, w *world) {
				var bulk []*pending
				for range 20 {
					bulk = append(bulk, w.beginFor(t, use, night))
				}
				check := func(inUse, waiting int) {
					t.Helper()
					synctest.Wait()
					if s := w.Stat(); s.BulkInUse != 2 || s.InUse != inUse || s.BulkWaiting != waiting || s.Waiting != waiting {
						t.Errorf("%+v, want %d in use, %d waiting", s, inUse, waiting)
					}
				}
				check(2, 18)
				a, b := w.beginFor(t, use, panel), w.beginFor(t, use, script)
				ca, cb := a.got(t), b.got(t)
				check(4, 18)
				full := w.beginFor(t, use, panel)
				full.waits(t)
				ca.Release(Reusable)
				cc := full.got(t)
				check(4, 18)
				cb.Release(Reusable) // idle, and for bulk not to have
				check(3, 18)
				cc.Release(Reusable)
				check(2, 18)
				for _, p := range bulk {
					p.got(t).Release(Reusable)
				}
			})
		})
	}
}

// A client that fills the queue fills it for itself.
func TestFullQueueIsFullForTheLongest(t *testing.T) {
	change := func(b *config.Backend) { oneConnection(b); b.Pool.MaxWaiting = 3 }
	inBubble(t, change, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		p1, p2, p3 := w.beginFor(t, Shared, panel), w.beginFor(t, Shared, panel), w.beginFor(t, Shared, panel)
		w.beginFor(t, Shared, panel).failed(t, ErrQueueFull)
		s1 := w.beginFor(t, Shared, script)
		p3.failed(t, ErrQueueFull)
		s2 := w.beginFor(t, Shared, script) // as many as the other has: its own loss
		s2.failed(t, ErrQueueFull)
		w.beginFor(t, Shared, night).failed(t, ErrQueueFull)
		for _, p := range []*pending{p1, s1, p2} {
			c.Release(Reusable)
			c = p.got(t)
		}
		n1 := w.beginFor(t, Shared, night)
		for range 3 {
			w.beginFor(t, Shared, panel).waits(t)
		}
		n1.failed(t, ErrQueueFull)
		if s := w.Stat(); s.QueueFull != 5 {
			t.Errorf("%+v", s)
		}
		now, cancel := context.WithCancel(t.Context())
		cancel()
		w.Close(now)
		c.Release(Abandoned)
	})
}

// What a command of one interactive client waits at most, on a backend on which
// a bulk client and another interactive one do what they can.
func TestWaitBesideCrowds(t *testing.T) {
	change := func(b *config.Backend) { b.Pool.MaxBulk = 4; b.Pool.AcquireTimeout = 0 }
	for _, tc := range []struct {
		crowd Client
		most  time.Duration
	}{
		{night, 0},            // there are connections left
		{script, time.Second}, // the first that becomes free
	} {
		t.Run(tc.crowd.Name, func(t *testing.T) {
			inBubble(t, change, func(t *testing.T, w *world) {
				ctx, stop := context.WithCancel(t.Context())
				var crowd sync.WaitGroup
				served := 0
				var mu sync.Mutex
				for range 200 {
					crowd.Go(func() {
						for {
							c, err := w.AcquireFor(ctx, Shared, tc.crowd)
							if err != nil {
								return
							}
							time.Sleep(time.Second)
							mu.Lock()
							served++
							mu.Unlock()
							c.Release(Reusable)
						}
					})
				}
				var most time.Duration
				for range 100 {
					time.Sleep(770 * time.Millisecond)
					start := time.Now()
					c, err := w.AcquireFor(ctx, Shared, panel)
					if err != nil {
						t.Fatal(err)
					}
					most = max(most, time.Since(start))
					time.Sleep(time.Second)
					c.Release(Reusable)
				}
				stop()
				crowd.Wait()
				if most > tc.most {
					t.Errorf("waited %v, want at most %v", most, tc.most)
				}
				if served < 500 {
					t.Errorf("the crowd had %d commands served, want it busy", served)
				}
			})
		})
	}
}
