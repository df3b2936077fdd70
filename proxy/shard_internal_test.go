package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// member is a backend of a shard under test.
type member struct {
	*backend
	down  atomic.Bool
	lives []*pool.Conn
}

// staff is a shard under test. It lives in a bubble.
type staff struct {
	*shard
	all []*member
}

// newStaff makes a shard of n members; those of which standby is set are
// standbys. Health is checked every ten seconds or so.
func newStaff(tb testing.TB, balance string, slowStart time.Duration, standby ...bool) *staff {
	s := &staff{shard: newShard(config.Shard{Balance: balance, SlowStart: slowStart}, new(router.Names))}
	srv := doveadmtest.NewPipeServer(tb, doveadmtest.Options{Minor: doveadm.MaxMinor})
	for i, standby := range standby {
		m := &member{}
		c := config.Backend{
			Name: fmt.Sprintf("mail%d", i+1), Standby: standby,
			Pool:        config.Pool{MaxOpen: 2, MaxIdle: 2, MaxWaiting: 100, AcquireTimeout: time.Second, IdleTimeout: time.Minute},
			Breaker:     config.Breaker{Failures: 2, Open: 10 * time.Second, Probes: 1},
			HealthCheck: config.HealthCheck{Interval: 10 * time.Second, Timeout: time.Second, Fall: 2, Rise: 2},
		}
		p := pool.New(c, func(ctx context.Context) (*doveadm.ClientConn, error) {
			if m.down.Load() {
				return nil, errors.New("down")
			}
			nc, err := srv.Dial(ctx, "", "")
			if err != nil {
				return nil, err
			}
			return doveadm.NewClientConn(nc, doveadm.ClientOptions{Minor: doveadm.MaxMinor})
		}, hclog.NewNullLogger())
		m.backend = newBackend(p, c, new(backendMeter))
		s.all = append(s.all, m)
		s.members = append(s.members, m.backend)
	}
	return s
}

// end closes the pools, with connections that are in use.
func (s *staff) end() {
	for _, m := range s.all {
		m.Close(cancelled)
		for _, c := range m.lives {
			c.Release(pool.Abandoned)
		}
	}
}

func (s *staff) order(user string) []string {
	names := []string{}
	for _, b := range s.inOrder(user) {
		names = append(names, b.Name())
	}
	return names
}

// take has commands of user take n connections.
func (s *staff) take(t *testing.T, m *member, n int) {
	t.Helper()
	for range n {
		c, err := m.Acquire(t.Context(), pool.Shared)
		if err != nil {
			t.Fatal(err)
		}
		m.lives = append(m.lives, c)
	}
}

// run runs a command of user and returns the member that it ran on, or "".
func (s *staff) run(user string) string {
	for _, b := range s.inOrder(user) {
		c, err := b.Acquire(context.Background(), pool.Shared)
		if err != nil {
			continue
		}
		c.Answering()
		c.Release(pool.Reusable)
		return b.Name()
	}
	return ""
}

func users(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("user%d@example.com", i))
	}
	return all
}

func inShard(t *testing.T, balance string, slowStart time.Duration, standby []bool, test func(t *testing.T, s *staff)) {
	synctest.Test(t, func(t *testing.T) {
		s := newStaff(t, balance, slowStart, standby...)
		defer s.end()
		test(t, s)
	})
}

// TestOrder: as they are written, standbys behind all others, whoever asks.
func TestOrder(t *testing.T) {
	inShard(t, config.BalanceOrder, 0, []bool{true, false, false}, func(t *testing.T, s *staff) {
		want := []string{"mail2", "mail3", "mail1"}
		check := func(when string, want ...string) {
			t.Helper()
			for _, user := range []string{"alice", "bob", ""} {
				if diff := cmp.Diff(want, s.order(user)); diff != "" {
					t.Errorf("%s, %q (-want +got):\n%s", when, user, diff)
				}
			}
		}
		check("at first", want...)
		s.all[1].SetOperator(pool.Draining)
		check("drained", "mail3", "mail1")
		s.all[2].down.Store(true)
		s.run("alice")
		s.run("bob") // opens the breaker
		check("with a breaker open", "mail1", "mail3")
		s.all[0].SetOperator(pool.Down)
		check("only a sick one left", "mail3")
		s.all[2].SetOperator(pool.Draining)
		if got := s.order("alice"); len(got) != 1 {
			t.Errorf("nothing left: %q, want one to name the reason", got)
		}
		if got := s.run("alice"); got != "" {
			t.Errorf("a command ran on %s, which is out of service", got)
		}
	})
}

// TestOrderAllocatesNothing while all is well, which is nearly always.
func TestOrderAllocatesNothing(t *testing.T) {
	inShard(t, config.BalanceOrder, time.Minute, []bool{false, true}, func(t *testing.T, s *staff) {
		if n := testing.AllocsPerRun(100, func() { s.inOrder("alice") }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// TestUser: each user has a member, about as many each, in any spelling of the
// name; when one goes only its users move, and not all to the same place.
func TestUser(t *testing.T) {
	inShard(t, config.BalanceUser, 0, []bool{false, false, false, true}, func(t *testing.T, s *staff) {
		home := map[string]string{}
		count := map[string]int{}
		for _, user := range users(3000) {
			order := s.order(user)
			home[user] = order[0]
			count[order[0]]++
			if order[3] != "mail4" {
				t.Fatalf("the standby is not the last for %s: %q", user, order)
			}
			if s.order("USER" + user[4:])[0] != order[0] {
				t.Fatalf("%s has another home in upper case", user)
			}
		}
		for name, n := range count {
			if n < 900 || n > 1100 {
				t.Errorf("%d of 3000 users on %s", n, name)
			}
		}
		s.all[0].SetOperator(pool.Draining)
		moved := map[string]int{}
		for user, was := range home {
			switch now := s.order(user)[0]; {
			case was == "mail1":
				moved[now]++
			case now != was:
				t.Fatalf("%s moved from %s to %s", user, was, now)
			}
		}
		if n := float64(count["mail1"]); len(moved) != 2 || math.Abs(float64(moved["mail2"])/n-0.5) > 0.1 {
			t.Errorf("the users of mail1 went to %v", moved)
		}
	})
}

// TestHomeIsForEver: the homes of users are the same in each version and on
// each proxy.
func TestHomeIsForEver(t *testing.T) {
	inShard(t, config.BalanceUser, 0, []bool{false, false}, func(t *testing.T, s *staff) {
		got := ""
		for _, user := range users(32) {
			got += s.order(user)[0][4:]
		}
		if want := "12111122212121112122111112111111"; got != want {
			t.Errorf("homes %s, want %s", got, want)
		}
	})
}

// TestLeastBusy: the user's own member while it has room, then the one with
// the least to do.
func TestLeastBusy(t *testing.T) {
	inShard(t, config.BalanceLeastBusy, 0, []bool{false, false, false, true}, func(t *testing.T, s *staff) {
		home := s.order("alice")[0]
		byName := map[string]*member{}
		var others []*member
		for _, m := range s.all {
			byName[m.Name()] = m
			if m.Name() != home && !m.config.Standby {
				others = append(others, m)
			}
		}
		s.take(t, byName[home], 1)
		if got := s.order("alice")[0]; got != home {
			t.Errorf("left %s for %s, although it has room", home, got)
		}
		s.take(t, byName[home], 1)
		s.take(t, others[0], 1)
		if got := s.order("alice")[0]; got != others[1].Name() {
			t.Errorf("%s, want %s, which has nothing to do", got, others[1].Name())
		}
		s.take(t, others[1], 2)
		if got := s.order("alice")[0]; got != others[0].Name() {
			t.Errorf("%s, want %s, which has less to do", got, others[0].Name())
		}
		s.take(t, others[0], 1)
		if got := s.order("alice")[0]; got != home {
			t.Errorf("%s, want %s: all have the same to do, and the standby is no equal", got, home)
		}
	})
}

// TestSlowStart: a member that has come back gets its users little by little,
// each of them once, and all of them if there is nobody who was there longer.
func TestSlowStart(t *testing.T) {
	inShard(t, config.BalanceOrder, 100*time.Second, []bool{false, true}, func(t *testing.T, s *staff) {
		all := users(1000)
		s.all[0].SetOperator(pool.Draining)
		s.all[0].SetOperator(pool.Active)
		back := map[string]bool{}
		for seconds := range 101 {
			n := 0
			for _, user := range all {
				if s.order(user)[0] == "mail1" {
					back[user] = true
					n++
				} else if back[user] {
					t.Fatalf("%s went away again after %d seconds", user, seconds)
				}
			}
			want := float64(seconds) / 100
			if seconds > 50 {
				want = 1
			}
			if share := float64(n) / 1000; math.Abs(share-want) > 0.05 {
				t.Errorf("after %d of 100 seconds %v of the users are back", seconds, share)
			}
			if seconds == 50 {
				s.all[1].SetOperator(pool.Draining)
				for _, user := range all {
					if got := s.order(user)[0]; got != "mail1" {
						t.Fatalf("%s is sent to %s, which is drained", user, got)
					}
				}
				s.all[1].SetOperator(pool.Active) // from now on it is the one that gets its users back
			}
			time.Sleep(time.Second)
		}
	})
}

// TestMembersModel does at random what can happen to a shard, and compares the
// way of each command with what a reading of the rules says.
func TestMembersModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		balance := rapid.SampledFrom([]string{config.BalanceOrder, config.BalanceUser, config.BalanceLeastBusy}).Draw(rt, "balance")
		slowStart := rapid.SampledFrom([]time.Duration{0, 30 * time.Second}).Draw(rt, "slow_start")
		standby := rapid.SliceOfN(rapid.Bool(), 1, 4).Draw(rt, "standby")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			var cleanups []func()
			s := newStaff(cleaner{t, &cleanups}, balance, slowStart, standby...)
			defer func() {
				for _, f := range cleanups {
					f()
				}
			}()
			defer s.end()
			wants := make([]pool.Operator, len(s.all))
			one := func(rt *rapid.T) int { return rapid.IntRange(0, len(s.all)-1).Draw(rt, "who") }
			rt.Repeat(map[string]func(*rapid.T){
				"operator": func(rt *rapid.T) {
					i := one(rt)
					wants[i] = rapid.SampledFrom([]pool.Operator{pool.Active, pool.Draining, pool.Down}).Draw(rt, "wants")
					s.all[i].SetOperator(wants[i])
				},
				"falls":  func(rt *rapid.T) { s.all[one(rt)].down.Store(true) },
				"stands": func(rt *rapid.T) { s.all[one(rt)].down.Store(false) },
				"sleep": func(rt *rapid.T) {
					time.Sleep(time.Duration(rapid.IntRange(1, 40).Draw(rt, "seconds")) * time.Second)
				},
				"command": func(rt *rapid.T) {
					user := rapid.SampledFrom(users(20)).Draw(rt, "user")
					order := s.order(user)
					if again := s.order(user); !slices.Equal(order, again) {
						rt.Fatalf("%s is sent to %q, then to %q", user, order, again)
					}
					s.checkOrder(rt, order)
					// A command fails only if nobody who may serve can.
					can := slices.ContainsFunc(s.all, func(m *member) bool {
						return m.Operator() == pool.Active && !m.down.Load() && m.Stat().Breaker != pool.Open
					})
					if got := s.run(user); got == "" && can {
						rt.Fatalf("%s failed, asking %q", user, order)
					}
				},
				"": func(rt *rapid.T) {
					synctest.Wait()
					for i, m := range s.all {
						if m.Operator() != wants[i] {
							rt.Fatalf("%s is %v, the operator wants %v", m.Name(), m.Operator(), wants[i])
						}
						if n := m.Busy(); n != 0 {
							rt.Fatalf("%s is busy with %d commands", m.Name(), n)
						}
					}
				},
			})
		})
	})
}

// cleaner has what a test cleans up done in the bubble.
type cleaner struct {
	testing.TB
	todo *[]func()
}

func (c cleaner) Cleanup(f func()) { *c.todo = append(*c.todo, f) }

// checkOrder says for each two neighbours of an order why the first may stand
// before the second.
func (s *staff) checkOrder(rt *rapid.T, order []string) {
	find := func(name string) *member {
		return s.all[slices.IndexFunc(s.all, func(m *member) bool { return m.Name() == name })]
	}
	sick := func(m *member) bool { return m.Health() == pool.Failing || m.Stat().Breaker == pool.Open }
	warming := func(m *member) bool { return m.Back() < s.slowStart }
	active := 0
	for _, m := range s.all {
		if m.Operator() == pool.Active {
			active++
		}
	}
	if len(order) != max(active, 1) {
		rt.Fatalf("%q of %d members in service", order, active)
	}
	for i := 1; i < len(order); i++ {
		a, b := find(order[i-1]), find(order[i])
		switch {
		case a.Operator() != pool.Active || b.Operator() != pool.Active:
			rt.Fatalf("%q: one of the two is out of service", order)
		case sick(a) && !sick(b):
			rt.Fatalf("%q: %s is sick, %s is not", order, a.Name(), b.Name())
		case sick(a) != sick(b) || warming(a) || warming(b):
		case a.config.Standby && !b.config.Standby:
			if !sick(a) {
				rt.Fatalf("%q: %s is a standby, %s is not", order, a.Name(), b.Name())
			}
		case a.config.Standby == b.config.Standby && s.balance == config.BalanceOrder && a.Name() > b.Name():
			rt.Fatalf("%q is not as they are written", order)
		}
	}
}

// TestPreference: what is told without a running proxy is what a running one
// does while all is well.
func TestPreference(t *testing.T) {
	for _, balance := range []string{config.BalanceOrder, config.BalanceUser, config.BalanceLeastBusy} {
		inShard(t, balance, time.Minute, []bool{true, false, false, true}, func(t *testing.T, s *staff) {
			c := config.Shard{Balance: balance}
			for _, m := range s.all {
				c.Backends = append(c.Backends, m.config)
			}
			for _, user := range append(users(50), "ALICE@Example.com", "") {
				want := []string{}
				for _, b := range Preference(c, new(router.Names), user) {
					want = append(want, b.Name)
				}
				if diff := cmp.Diff(want, s.order(user)); diff != "" {
					t.Errorf("%s, %q (-told +done):\n%s", balance, user, diff)
				}
			}
			if c.Backends[0].Name != "mail1" {
				t.Error("the configuration was changed")
			}
		})
	}
}
