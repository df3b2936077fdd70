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

// TestMove moves a user between three proxies: the move waits for a command that
// runs on another one, commands of the user wait on all of them, others do not,
// and all go on to the new shard.
func TestMove(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b, c := start(t, settings(dir), "a"), start(t, settings(dir), "b"), start(t, settings(dir), "c")
		defer a.Close()
		defer b.Close()
		defer c.Close()
		must(t, b.Gate.Enter(t.Context(), "u"))
		var steps []string
		done := make(chan error, 1)
		var result Result
		go func() {
			var err error
			result, err = a.Move(t.Context(), Move{User: "u", From: "s1", To: "s2", Report: func(s Step, _ string) { steps = append(steps, string(s)) }})
			done <- err
		}()
		eventually(t, "held everywhere", func() bool { return a.Stat().Held+b.Stat().Held+c.Stat().Held == 3 })
		var wg sync.WaitGroup
		for _, n := range []*Node{a, b, c} {
			must(t, enter(n, "v", time.Millisecond))
			n.Gate.Leave("v")
			wg.Go(func() {
				if err := n.Gate.Enter(t.Context(), "u"); err != nil {
					t.Error(err)
				}
				if n.on("u") != "s2" {
					t.Errorf("%s: a command was let go on with the user on %q", n.name, n.on("u"))
				}
				n.Gate.Leave("u")
			})
		}
		time.Sleep(500 * time.Millisecond)
		select {
		case err := <-done:
			t.Fatalf("moved while a command runs: %v", err)
		default:
		}
		b.Gate.Leave("u")
		must(t, <-done)
		wg.Wait()
		if got := strings.Join(steps, " "); got != "prepare hold quiet switch done" {
			t.Errorf("steps %s", got)
		}
		if result.Held < 500*time.Millisecond || result.Held > 700*time.Millisecond {
			t.Errorf("held for %s", result.Held)
		}
		// And back, by another proxy.
		if _, err := c.Move(t.Context(), Move{User: "u", From: "s2", To: "s1", Exception: "s2", Forget: true}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "forgotten everywhere", func() bool { return a.on("u")+b.on("u")+c.on("u") == "" })
		if _, err := a.Move(t.Context(), Move{User: "u", From: "s2", To: "s3", Exception: "s2"}); err == nil || !strings.Contains(err.Error(), "another proxy") {
			t.Errorf("moved from where the user is not: %v", err)
		}
		eventually(t, "no hold is left", func() bool { return a.Stat().Held+b.Stat().Held+c.Stat().Held == 0 })
	})
}

// TestRollBack: a move that cannot be made leaves everything as it was.
func TestRollBack(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := start(t, settings(dir), "a"), start(t, settings(dir), "b")
		defer a.Close()
		defer b.Close()
		goes := func(what string) {
			t.Helper()
			for _, n := range []*Node{a, b} {
				must(t, enter(n, "u", 500*time.Millisecond))
				n.Gate.Leave("u")
				if n.on("u") != "" {
					t.Errorf("after %s: the user is on %s", what, n.on("u"))
				}
			}
		}
		fails := func(what, words string, m Move, ctx context.Context) {
			t.Helper()
			m.User, m.From, m.To = "u", "s1", "s2"
			_, err := a.Move(ctx, m)
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Fatalf("%s: %v", what, err)
			}
			goes(what)
		}

		must(t, b.Gate.Enter(t.Context(), "u"))
		begin := time.Now()
		fails("a command that does not end", "still run on, or nothing was heard from: b/", Move{}, t.Context())
		if took := time.Since(begin); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("it took %s to give up", took)
		}
		fails("a shorter bound", "100ms: max_hold", Move{MaxHold: 100 * time.Millisecond}, t.Context())
		b.Gate.Leave("u")

		broken := errors.New("the copy broke")
		fail := func(context.Context) error { return broken }
		works := func(context.Context) error { return nil }
		fails("a broken copy", "the copy broke", Move{Copy: fail, CopyHeld: works}, t.Context())
		fails("a copy that breaks under the hold", "the copy broke", Move{Copy: works, CopyHeld: fail}, t.Context())
		slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		fails("a copy that takes too long under the hold", "max_hold", Move{Copy: works, CopyHeld: slow}, t.Context())
		ctx, cancel := context.WithCancelCause(t.Context())
		fails("who asked goes away", "nobody waits", Move{Copy: works, CopyHeld: func(ctx context.Context) error {
			cancel(errors.New("nobody waits for the answer"))
			return slow(ctx)
		}}, ctx)

		// While one is made no other is.
		release := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			_, err := a.Move(t.Context(), Move{User: "u", From: "s1", To: "s2", Copy: func(context.Context) error { <-release; return nil }})
			done <- err
		}()
		eventually(t, "begun", func() bool { s, err := b.State(t.Context(), "u"); return err == nil && s.Move != nil })
		if _, err := b.Move(t.Context(), Move{User: "u", From: "s1", To: "s3"}); !errors.Is(err, ErrBusy) {
			t.Errorf("%v, want ErrBusy", err)
		}
		goes("the copy began") // nobody waits for it
		close(release)
		must(t, <-done)
		if a.on("u") != "s2" {
			t.Errorf("the user is on %q", a.on("u"))
		}
		// A proxy that ends rolls back first.
		go func() {
			_, err := a.Move(t.Context(), Move{User: "u", From: "s2", To: "s3", Exception: "s2", Copy: slow})
			done <- err
		}()
		eventually(t, "begun", func() bool { s, err := b.State(t.Context(), "u"); return err == nil && s.Move != nil })
		a.StopMoves()
		if err := <-done; !errors.Is(err, ErrStopping) {
			t.Errorf("%v, want ErrStopping", err)
		}
		if s, err := b.State(t.Context(), "u"); err != nil || s.Move != nil || s.Exception.Shard != "s2" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// TestMoverDies lets the mover die at each step. Nobody waits for longer than the
// lease of the move, and the user is on one shard for all.
func TestMoverDies(t *testing.T) {
	for _, step := range []Step{StepCopy, StepPrepare, StepHold, StepQuiet, StepSwitch, StepDone} {
		t.Run(string(step), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				a, b, c := start(t, settings(dir), "a"), start(t, settings(dir), "b"), start(t, settings(dir), "c")
				defer b.Close()
				defer c.Close()
				m := Move{User: "u", From: "s1", To: "s2", Copy: func(context.Context) error { return nil }}
				m.Report = func(s Step, _ string) {
					if s == step {
						a.crash()
					}
				}
				_, err := a.Move(t.Context(), m)
				if (err == nil) != (step == StepDone) {
					t.Errorf("the move says %v", err)
				}
				want := ""
				if step == StepDone {
					want = "s2"
				}
				begin := time.Now()
				for _, n := range []*Node{b, c} {
					must(t, enter(n, "u", moveLease+2*reapEvery))
					if n.on("u") != want {
						t.Errorf("%s: the user is on %q, not %q", n.name, n.on("u"), want)
					}
					n.Gate.Leave("u")
				}
				t.Logf("waited for %s", time.Since(begin))
				// Who is left can move the user then: at once as far as the move
				// is concerned, and as soon as the dead one is known to be dead.
				eventually(t, "moved by another", func() bool {
					_, err := b.Move(t.Context(), Move{User: "u", From: "s1", To: "s3", Exception: want})
					return err == nil
				})
				eventually(t, "seen by all", func() bool { return b.on("u") == "s3" && c.on("u") == "s3" })
			})
		})
	}
}

// TestMemberStops lets another proxy stop at each step, once by dying and once
// by doing nothing: the move is made without it or not at all, and the one that
// comes back knows what happened.
func TestMemberStops(t *testing.T) {
	for _, step := range []Step{StepCopy, StepPrepare, StepHold, StepQuiet, StepSwitch} {
		for _, dies := range []bool{true, false} {
			name := string(step) + " stuck"
			if dies {
				name = string(step) + " dead"
			}
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					a, b := start(t, settings(dir), "a"), start(t, settings(dir), "b")
					defer a.Close()
					stop := func() {
						if dies {
							b.crash()
							return
						}
						b.suspend()
					}
					m := Move{User: "u", From: "s1", To: "s2", Copy: func(context.Context) error { return nil }}
					m.Report = func(s Step, _ string) {
						if s == step {
							stop()
						}
					}
					_, err := a.Move(t.Context(), m)
					moved := err == nil
					if answered := step == StepQuiet || step == StepSwitch; moved != answered {
						t.Errorf("moved: %v, %v", moved, err)
					}
					must(t, enter(a, "u", time.Second))
					a.Gate.Leave("u")
					if !dies {
						b.resume()
						eventually(t, "of one mind", func() bool { return b.on("u") == a.on("u") && b.Stat().Held == 0 })
						b.Close()
					}
					eventually(t, "moved later", func() bool {
						_, err := a.Move(t.Context(), Move{User: "u", From: "s1", To: "s3", Exception: a.on("u")})
						return err == nil
					})
				})
			})
		}
	}
}

// suspend has the node do nothing until resume.
func (n *Node) suspend() { n.end(); n.wg.Wait() }

func (n *Node) resume() {
	n.life, n.end = context.WithCancel(context.Background())
	n.wg.Go(n.run)
}
