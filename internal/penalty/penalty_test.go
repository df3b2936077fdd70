package penalty

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var limits = Options{Address: 5, Name: 8, Recovery: 10 * time.Minute}

func newWith(o Options) *Table {
	t := newTable(100)
	t.Configure(o)
	return t
}

// try logs in with a password that is right or wrong, and returns what came of
// it: "good", "wrong", "address" or "name".
func (t *Table) try(tt *testing.T, from, name, password string, right bool) string {
	tt.Helper()
	a, err := t.Begin(tt.Context(), addr(from), name, password)
	if e := IsTooMany(err); e != nil {
		if e.ByName {
			return "name"
		}
		return "address"
	}
	if err != nil {
		tt.Fatal(err)
	}
	if right {
		a.End(Good)
		return "good"
	}
	a.End(Wrong)
	return "wrong"
}

func TestAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newWith(limits)
		expect := func(from, name, want string) {
			t.Helper()
			if got := table.try(t, from, name, "p", false); got != want {
				t.Errorf("%s as %s: %s, want %s", from, name, got, want)
			}
		}
		for i := range 5 {
			expect("192.0.2.1", fmt.Sprint("name", i), "wrong")
		}
		expect("192.0.2.1", "other", "address")
		expect("::ffff:192.0.2.1", "other", "address")
		expect("192.0.2.2", "other", "wrong")
		if got := table.try(t, "192.0.2.1", "panel", "right", true); got != "address" {
			t.Errorf("the right password, which nobody looked at: %s", got)
		}
		time.Sleep(2*time.Minute - time.Second) // one in two minutes
		expect("192.0.2.1", "other", "address")
		time.Sleep(time.Second)
		expect("192.0.2.1", "other", "wrong")
		expect("192.0.2.1", "other", "address")
		time.Sleep(time.Hour)
		for range 5 {
			expect("192.0.2.1", "yet another", "wrong")
		}
		expect("192.0.2.1", "yet another", "address")

		// A /64 is one address.
		for i := range 5 {
			expect(fmt.Sprintf("2001:db8::%x", i+1), fmt.Sprint("six", i), "wrong")
		}
		expect("2001:db8::ffff:1:2", "six", "address")
		expect("2001:db8:0:1::1", "six", "wrong")
	})
}

// Many addresses guess at one name.
func TestName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newWith(limits)
		if got := table.try(t, "192.0.2.200", "panel", "right", true); got != "good" {
			t.Fatal(got)
		}
		for i := range 20 {
			want := "wrong"
			if i >= 8 {
				want = "name"
			}
			if got := table.try(t, fmt.Sprintf("192.0.2.%d", i), "panel", "guess", false); got != want {
				t.Errorf("guess %d: %s, want %s", i, got, want)
			}
		}
		if got := table.try(t, "192.0.2.200", "panel", "right", true); got != "good" {
			t.Errorf("the client itself: %s", got)
		}
		if got := table.try(t, "192.0.2.201", "other", "right", true); got != "good" {
			t.Errorf("another name: %s", got)
		}
	})
}

// A neighbour behind the same address guesses: who has logged in from there is
// not kept out, whatever name the neighbour tries, for a day.
func TestNeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newWith(limits)
		const nat = "192.0.2.1"
		panel := func(password, want string) {
			t.Helper()
			if got := table.try(t, nat, "panel", password, password == "right"); got != want {
				t.Errorf("panel with %q: %s, want %s", password, got, want)
			}
		}
		panel("right", "good")
		for i := range 100 {
			table.try(t, nat, []string{"root", "panel"}[i%2], fmt.Sprint("guess", i), false)
		}
		panel("right", "good")
		panel("Right", "address") // and nobody looks at it
		if got := table.try(t, nat, "root", "right", true); got != "address" {
			t.Errorf("another name with that password: %s", got)
		}
		for range 30 {
			time.Sleep(20 * time.Hour)
			panel("right", "good")
		}
		time.Sleep(25 * time.Hour)
		for i := range 100 {
			table.try(t, nat, "root", fmt.Sprint("guess", i), false)
		}
		panel("right", "address")
		time.Sleep(10 * time.Minute) // not for long
		panel("right", "good")

		// Trust is told to those who check.
		a, err := table.Begin(t.Context(), addr(nat), "panel", "right")
		if err != nil || !a.Trusted {
			t.Errorf("%+v, %v", a, err)
		}
		a.End(Wrong) // the password was changed meanwhile
	})
}

// As many attempts at once as there may be failures, and no more: who guesses in
// parallel gains nothing, and a client that opens many sessions loses nothing.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newWith(limits)
		var all sync.WaitGroup
		var mu sync.Mutex
		outcomes := map[string]int{}
		run := func(password string, right bool) {
			all.Go(func() {
				a, err := table.Begin(t.Context(), addr("192.0.2.1"), "panel", password)
				what := "refused"
				if err == nil {
					time.Sleep(time.Second) // the check
					what = "checked"
					if right {
						a.End(Good)
					} else {
						a.End(Wrong)
					}
				}
				mu.Lock()
				outcomes[what]++
				mu.Unlock()
			})
		}
		for range 50 {
			run("right", true)
		}
		all.Wait()
		if outcomes["checked"] != 50 {
			t.Errorf("a client with 50 sessions: %v", outcomes)
		}
		clear(outcomes)
		for i := range 50 {
			run(fmt.Sprint("guess", i), false)
		}
		all.Wait()
		if outcomes["checked"] != 5 || outcomes["refused"] != 45 {
			t.Errorf("50 guesses at once: %v", outcomes)
		}

		// Who waits may leave.
		blocked := newWith(Options{Address: 1, Recovery: time.Minute})
		a, err := blocked.Begin(t.Context(), addr("192.0.2.1"), "x", "y")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := blocked.Begin(ctx, addr("192.0.2.1"), "x", "y"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		a.End(Unknown)
		if got := blocked.try(t, "192.0.2.1", "x", "y", false); got != "wrong" {
			t.Errorf("after an attempt of which nothing is known: %s", got)
		}
	})
}

func TestOptions(t *testing.T) {
	off := newWith(Options{})
	exempt := newWith(Options{Address: 1, Name: 1, Recovery: time.Hour, Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	for range 100 {
		if got := off.try(t, "192.0.2.1", "x", "y", false); got != "wrong" {
			t.Fatalf("without limits: %s", got)
		}
		if got := exempt.try(t, "::ffff:192.0.2.1", "x", "y", false); got != "wrong" {
			t.Fatalf("exempt: %s", got)
		}
	}
	if n := len(off.addresses.entries) + len(off.names.entries) + len(exempt.addresses.entries); n != 0 {
		t.Errorf("%d entries of what is not counted", n)
	}
	none := newWith(limits)
	for range 5 {
		a, err := none.Begin(t.Context(), netip.Addr{}, "x", "y")
		if err != nil {
			t.Fatal(err)
		}
		a.End(Wrong)
	}
	if _, err := none.Begin(t.Context(), netip.Addr{}, "x", "y"); IsTooMany(err) == nil {
		t.Errorf("without an address: %v", err)
	}
}

// What is told of refusals is bounded, and says how many there were.
func TestTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newWith(Options{Address: 1, Recovery: 1000 * time.Hour})
		table.try(t, "192.0.2.1", "x", "y", false)
		var told []int
		for range 300 {
			_, err := table.Begin(t.Context(), addr("192.0.2.1"), "x", "y")
			if e := IsTooMany(err); e == nil {
				t.Fatal(err)
			} else if e.Tell {
				told = append(told, e.Others)
			}
			time.Sleep(time.Second)
		}
		if got := fmt.Sprint(told); got != "[0 59 59 59 59]" {
			t.Errorf("told %s", got)
		}
	})
}

// However many addresses and names there are, memory is bounded, and good
// logins leave nothing but the memory of themselves.
func TestBounded(t *testing.T) {
	table := newWith(limits)
	for i := range 1000 {
		from := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		for _, o := range []Outcome{Wrong, Good} {
			a, err := table.Begin(t.Context(), from, fmt.Sprint("name", i), fmt.Sprint(o))
			if err != nil {
				t.Fatal(err)
			}
			a.End(o)
		}
	}
	for what, n := range map[string]int{
		"addresses": len(table.addresses.entries), "names": len(table.names.entries), "good": len(table.good.entries),
		"order": table.addresses.used.Len(),
	} {
		if n != 100 {
			t.Errorf("%d %s", n, what)
		}
	}
	table = newWith(limits)
	for i := range 50 {
		if got := table.try(t, fmt.Sprintf("192.0.2.%d", i), "x", "y", true); got != "good" {
			t.Fatal(got)
		}
	}
	if n := len(table.addresses.entries) + len(table.names.entries); n != 0 {
		t.Errorf("%d entries of those who never failed", n)
	}
}
