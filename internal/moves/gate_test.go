package moves

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// held returns a gate with a user on hold.
func held(user string) *Gate {
	g := newGate()
	g.lasting.Store(true)
	g.fresh(time.Now())
	g.maxWaiting.Store(3)
	g.holdTimeout.Store(int64(10 * time.Second))
	g.apply(row{user: user, move: moveRow{id: "m1", phase: phaseHold, moverName: "proxy1/7"}})
	return g
}

// TestGate: commands wait for the end of a hold in the order in which they came,
// as long as they may, and no more than may.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := held("u")
		var wg sync.WaitGroup
		errs := make(chan error, 3)
		gone, leave := context.WithCancelCause(t.Context())
		for _, ctx := range []context.Context{gone, t.Context(), t.Context()} {
			wg.Go(func() { errs <- g.Enter(ctx, "u") })
			synctest.Wait()
		}
		if err := g.Enter(t.Context(), "u"); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "3 of its commands wait already") || !strings.Contains(err.Error(), "m1 by proxy1/7") {
			t.Errorf("one too many: %v", err)
		}
		must(t, g.Enter(t.Context(), "other"))
		g.Leave("other")
		away := errors.New("the client is away")
		leave(away)
		if err := <-errs; !errors.Is(err, away) {
			t.Errorf("%v", err)
		}
		if n := g.Waiting("u"); n != 2 {
			t.Errorf("%d wait", n)
		}
		// A hold that follows another does not let anybody go on.
		g.apply(row{user: "u", move: moveRow{id: "m2", phase: phaseHold, moverName: "proxy2/8"}})
		if g.isQuiet("u", "m1") || !g.isQuiet("u", "m2") {
			t.Error("the second move does not hold the user")
		}
		time.Sleep(11 * time.Second)
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "m2 by proxy2/8") || !strings.Contains(err.Error(), "10s") {
				t.Errorf("%v", err)
			}
		}
		wg.Wait()

		// Who is let go on is counted before a new hold can begin.
		wg.Go(func() { errs <- g.Enter(t.Context(), "u") })
		synctest.Wait()
		g.apply(row{user: "u", shard: "s2", since: 1})
		g.apply(row{user: "u", shard: "s2", since: 1, move: moveRow{id: "m3", phase: phaseHold}})
		must(t, <-errs)
		if g.isQuiet("u", "m3") || g.Running("u") != 1 {
			t.Errorf("%d run", g.Running("u"))
		}
		g.Leave("u")
		if !g.isQuiet("u", "m3") || len(g.quiet) != 1 {
			t.Error("the end of the last command is not told")
		}
		wg.Wait()
		if shard, _, ok := g.Exception("u"); !ok || shard != "s2" {
			t.Errorf("exception %q %v", shard, ok)
		}
	})
}

// TestGateStale: without a lease nothing begins, by either clock.
func TestGateStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		if err := g.Enter(t.Context(), "u"); !errors.Is(err, ErrStale) {
			t.Errorf("at the start: %v", err)
		}
		g.fresh(time.Now().Add(time.Second))
		must(t, g.Enter(t.Context(), "u"))
		time.Sleep(time.Second)
		if err := g.Enter(t.Context(), "u"); !errors.Is(err, ErrStale) {
			t.Errorf("after the lease: %v", err)
		}
		// A machine that was asleep: only one clock went on.
		g.fresh(time.Now().Round(0).Add(-time.Minute))
		if g.Fresh() == nil {
			t.Error("fresh")
		}
	})
}

// TestGateStress: while users are held and let go at random, a hold that is
// quiet stays quiet.
func TestGateStress(t *testing.T) {
	g := held("nobody")
	g.maxWaiting.Store(1000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	users := []string{"a", "b", "c"}
	for i := range 12 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := g.Enter(t.Context(), users[i%3]); err != nil {
					t.Error(err)
					return
				}
				g.Leave(users[i%3])
			}
		})
	}
	for i := range 300 {
		user := users[i%3]
		id := string(rune('A' + i%26))
		g.apply(row{user: user, move: moveRow{id: id, phase: phaseHold}})
		for !g.isQuiet(user, id) {
			time.Sleep(10 * time.Microsecond)
		}
		for range 20 {
			if !g.isQuiet(user, id) {
				t.Fatal("a command began under the hold")
			}
		}
		g.apply(row{user: user, shard: "s2"})
	}
	close(stop)
	wg.Wait()
	for _, user := range users {
		if g.Running(user) != 0 {
			t.Errorf("%d commands of %s are left", g.Running(user), user)
		}
	}
}
