package pool

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// checked is a change that switches health checks on; the pool's own
// connections have no deadline then, as those of a checker.
func checked(b *config.Backend) {
	b.HealthCheck = config.HealthCheck{Interval: 10 * time.Second, Timeout: 5 * time.Second, Fall: 3, Rise: 2}
	b.Timeouts.Handshake = 0
}

// seen checks what the health checks see.
func (w *world) seen(t *testing.T, want Health) {
	t.Helper()
	synctest.Wait()
	if got := w.Health(); got != want {
		t.Fatalf("health is %v after %d checks, want %v", got, w.Stat().HealthChecks, want)
	}
}

// pass lets at least n checks begin and end.
func pass(n int) { time.Sleep(time.Duration(n) * 10 * time.Second) }

// TestHealth falls and rises by the thresholds, says so once each, and opens
// and keeps no connection of the pool.
func TestHealth(t *testing.T) {
	inBubble(t, checked, func(t *testing.T, w *world) {
		w.seen(t, Unknown)
		time.Sleep(firstCheck)
		w.seen(t, Up)
		if !w.Available() || len(w.srv.Conns()) != 0 {
			t.Error("a check leaves something behind")
		}

		w.set(&w.down, true)
		for w.Stat().HealthErrors < 2 {
			time.Sleep(time.Second)
		}
		w.seen(t, Up)
		pass(1)
		w.seen(t, Failing)
		if w.Available() {
			t.Error("available while failing")
		}
		if s := w.Stat(); s.Breaker != Closed || s.Operator != Active || s.LastError == "" || s.Dials != 0 {
			t.Errorf("%+v", s)
		}
		pass(20)

		w.set(&w.down, false)
		errs, checks := w.Stat().HealthErrors, w.Stat().HealthChecks
		for w.Stat().HealthChecks < checks+1 {
			time.Sleep(time.Second)
		}
		w.seen(t, Failing)
		pass(1)
		w.seen(t, Up)
		if w.Stat().HealthErrors != errs {
			t.Error("errors after the return")
		}
		if back := w.Back(); back > 10*time.Second {
			t.Errorf("back for %v", back)
		}
		pass(20)
		w.log.told(t, "[WARN] health checks fail", "[INFO] health checks work again")
	})
}

// TestHealthAtStart: a backend that is down when the pool is made is a state.
func TestHealthAtStart(t *testing.T) {
	inBubble(t, func(b *config.Backend) { checked(b); b.HealthCheck.Fall = 1 }, func(t *testing.T, w *world) {
		w.set(&w.down, true)
		time.Sleep(firstCheck)
		w.seen(t, Failing)
		w.refused(t, errDown) // the pool itself refuses nobody for that
	})
}

// TestHealthQueue: at a backend that accepts and does not greet, checks wait
// with one connection and do not heap up.
func TestHealthQueue(t *testing.T) {
	inBubble(t, checked, func(t *testing.T, w *world) {
		w.set(&w.mute, true)
		for range 300 {
			time.Sleep(time.Second)
			if n := len(w.srv.Conns()); n > 1 {
				t.Fatalf("%d connections wait for a greeting", n)
			}
		}
		w.seen(t, Failing)
		if n := w.srv.Accepted(); n > 6 {
			t.Errorf("%d connections in five minutes of silence", n)
		}
		w.set(&w.mute, false)
		time.Sleep(checkPatience)
		pass(2)
		w.seen(t, Up)
	})
}

// TestHealthOfAFullBackend: one that has no process left for a check, and
// answers commands meanwhile, is not failing.
func TestHealthOfAFullBackend(t *testing.T) {
	inBubble(t, checked, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		pass(1)
		w.set(&w.mute, true)
		for range 100 {
			run(t, c)
			c.Answering()
			time.Sleep(time.Second)
		}
		w.seen(t, Up)
		for range 100 { // and one that is silent is
			time.Sleep(time.Second)
		}
		w.seen(t, Failing)
		c.Release(Reusable)
	})
}

// TestHealthWithAllConnectionsTaken: a check waits for no command.
func TestHealthWithAllConnectionsTaken(t *testing.T) {
	inBubble(t, func(b *config.Backend) { checked(b); b.Pool.MaxOpen = 1 }, func(t *testing.T, w *world) {
		c := w.acquire(t, Shared)
		pass(5)
		w.seen(t, Up)
		if s := w.Stat(); s.HealthErrors != 0 || s.Open != 1 {
			t.Errorf("%+v", s)
		}
		c.Release(Reusable)
	})
}

// TestHealthCommand: what the user's command says counts.
func TestHealthCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer atomic.Value
		answer.Store("+")
		srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Minor: doveadm.MaxMinor, Handler: func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.User != "probe" || cmd.Name != "mailbox status" {
				t.Errorf("got %+v", cmd)
			}
			switch a := answer.Load().(string); a {
			case "":
				c.Hang()
			default:
				c.Fields("INBOX", "messages", "0")
				c.Status(a)
			}
		}})
		b := defaults()
		checked(&b)
		b.HealthCheck.User, b.HealthCheck.Fall, b.HealthCheck.Rise = "probe", 1, 1
		log := &logLines{}
		p := New(b, func(ctx context.Context) (*doveadm.ClientConn, error) {
			nc, err := srv.Dial(ctx, "", "")
			if err != nil {
				return nil, err
			}
			return login(ctx, nc, config.Backend{})
		}, log.logger())
		for _, step := range []struct {
			answer string
			want   Health
			says   string
		}{{"+", Up, ""}, {"-TEMPFAIL", Failing, "TEMPFAIL"}, {"+", Up, ""}, {"", Failing, "no answer to"}, {"+", Up, ""}, {"-NOUSER", Failing, "NOUSER"}} {
			answer.Store(step.answer)
			pass(2)
			time.Sleep(checkPatience) // one that hangs is let go
			pass(1)
			if p.Health() != step.want {
				t.Errorf("after %q: %v", step.answer, p.Health())
			}
			if step.says != "" && !log.has("health checks fail", step.says) {
				t.Errorf("the log does not say %q: %q", step.says, log.story())
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := len(srv.Conns()); n != 0 {
			t.Errorf("%d connections after Close", n)
		}
	})
}

// TestHealthModel: after any sequence of results the state is what a look at
// the sequence from its end says, and nothing but the results changes it.
func TestHealthModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := config.HealthCheck{
			Interval: time.Second,
			Timeout:  time.Second,
			Fall:     rapid.IntRange(1, 4).Draw(rt, "fall"),
			Rise:     rapid.IntRange(1, 4).Draw(rt, "rise"),
		}
		results := rapid.SliceOf(rapid.Bool()).Draw(rt, "results")
		others := rapid.SliceOfN(rapid.IntRange(0, 4), len(results), len(results)).Draw(rt, "others")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			p := New(config.Backend{Name: "b", Breaker: config.Breaker{Failures: 1, Open: time.Hour, Probes: 1}}, nil, hclog.NewNullLogger())
			defer p.Close(context.Background())
			k := newChecker(p, config.Backend{HealthCheck: h}, nil)
			for i, good := range results {
				operator := p.Operator()
				switch others[i] {
				case 0:
					p.breaker.tell(errLost)
				case 1, 2, 3:
					operator = Operator(others[i] - 1)
					p.SetOperator(operator)
				}
				breaker := p.breaker.state()
				err := errors.New("failed")
				if good {
					err = nil
				}
				k.note(err)
				if got, want := p.Health(), judge(results[:i+1], h); got != want {
					rt.Fatalf("after %v: %v, want %v", results[:i+1], got, want)
				}
				if p.Operator() != operator || p.breaker.state() != breaker {
					rt.Fatalf("a check changed another state: %v, %v", p.Operator(), p.breaker.state())
				}
			}
		})
	})
}

// judge looks for the last run of equal results that is long enough to decide.
func judge(results []bool, h config.HealthCheck) Health {
	for end := len(results); end > 0; end-- {
		run := 1
		for run < end && results[end-1-run] == results[end-1] {
			run++
		}
		switch {
		case !results[end-1] && run >= h.Fall:
			return Failing
		case results[end-1] && run >= h.Rise:
			return Up
		case results[end-1] && judge(results[:end-1], h) != Failing:
			return Up
		}
	}
	return Unknown
}
