package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// counted wraps a hash so that a test sees how often it is really computed.
type counted struct {
	matcher
	n *atomic.Int64
}

func (c counted) match(password string) (bool, error) {
	c.n.Add(1)
	return c.matcher.match(password)
}

func countedHash(t testing.TB, text string) (Hash, *atomic.Int64) {
	h := mustParse(t, text)
	n := new(atomic.Int64)
	h.matcher = counted{h.matcher, n}
	return h, n
}

func wantVerify(t *testing.T, v *Verifier, name, password string, want bool) {
	t.Helper()
	if ok, err := isRight(v, t.Context(), name, password); err != nil || ok != want {
		t.Errorf("Verify(%q, %q) = %v, %v; want %v", name, password, ok, err, want)
	}
}

// cheap forms of expensive schemes, of the password "secret"
const (
	quickBcrypt = "{BLF-CRYPT}$2y$04$WbqudKa21QyBt0b2HHSBTOHZ.Oe7PHgEDMAfKAwZ/guPHnhaCQQHS"
	otherPBKDF2 = "{PBKDF2}$1$vn8khBoFF7Cxaatr$20$48562efe6b4e07c47c604f32e31cefe381453837"
	quickPBKDF2 = "{PBKDF2}$1$Q6HUMAsj7AJ9BnlU$10$4a3422d8f80cd7ec6ef2a199cb365ef4786049b0"
)

// TestUnknownNamesCostAsMuch counts the computations: an unknown name takes
// exactly those of a known one with a wrong password, of the same hashes in
// the same proportion.
func TestUnknownNamesCostAsMuch(t *testing.T) {
	t.Parallel()
	clients := make(map[string]Hash)
	var counts []*atomic.Int64
	for i, text := range []string{otherPBKDF2, quickPBKDF2, "{PLAIN}secret"} {
		h, n := countedHash(t, text)
		clients[fmt.Sprint("client", i)] = h
		counts = append(counts, n)
	}
	total := func() (sum int64) {
		for _, n := range counts {
			sum += n.Load()
		}
		return sum
	}
	v := newFixed(clients, NewCache(CacheOptions{}))

	for name := range clients {
		before := total()
		wantVerify(t, v, name, "wrong", false)
		if n := total() - before; n != 1 {
			t.Errorf("a wrong password of %s took %d computations", name, n)
		}
	}
	const names = 600
	var before [3]int64
	for i, n := range counts {
		before[i] = n.Load()
	}
	for i := range names {
		at := total()
		// Right for the decoy, and still no way in.
		wantVerify(t, v, fmt.Sprint("nobody", i), "secret", false)
		if n := total() - at; n != 1 {
			t.Fatalf("unknown name %d took %d computations", i, n)
		}
	}
	for i, n := range counts {
		// 200 expected, standard deviation 11.5; six of them
		if share := n.Load() - before[i]; share < 131 || share > 269 {
			t.Errorf("hash %d stood in for %d of %d unknown names", i, share, names)
		}
	}

	// The same name always meets the same decoy, after a reload too.
	for range 2 {
		for i := range counts {
			before[i] = counts[i].Load()
		}
		for range 10 {
			wantVerify(t, v, "nobody", "wrong", false)
		}
		used := 0
		for i := range counts {
			if counts[i].Load() != before[i] {
				used++
			}
		}
		if used != 1 {
			t.Errorf("one unknown name met %d decoys", used)
		}
		v = newFixed(clients, v.cache)
	}
}

func TestRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, n := countedHash(t, quickBcrypt)
		v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{TTL: time.Minute}))
		want := func(computed int64) {
			t.Helper()
			if got := n.Swap(0); got != computed {
				t.Errorf("%d computations; want %d", got, computed)
			}
		}
		wantVerify(t, v, "panel", "secret", true)
		want(1)
		time.Sleep(time.Minute - time.Nanosecond)
		wantVerify(t, v, "panel", "secret", true)
		want(0)
		wantVerify(t, v, "panel", "Secret", false)
		wantVerify(t, v, "panel", "Secret", false)
		want(2) // a wrong password is not remembered
		time.Sleep(time.Nanosecond)
		wantVerify(t, v, "panel", "secret", true)
		want(1) // remembered from the check on, not from the last use
		wantVerify(t, v, "panel", "secret", true)
		want(0)
		if len(v.cache.expires) != 1 || len(v.cache.queue) != 1 {
			t.Errorf("%d entries, %d queued", len(v.cache.expires), len(v.cache.queue))
		}
	})
}

func TestNotRemembered(t *testing.T) {
	t.Parallel()
	h, n := countedHash(t, quickBcrypt)
	v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{TTL: -1}))
	wantVerify(t, v, "panel", "secret", true)
	wantVerify(t, v, "panel", "secret", true)
	if n.Load() != 2 {
		t.Errorf("%d computations of 2 logins without memory", n.Load())
	}
}

// TestReload: the cache answers for what stayed, and for nothing else.
func TestReload(t *testing.T) {
	t.Parallel()
	cache := NewCache(CacheOptions{})
	bcrypt, bcrypted := countedHash(t, quickBcrypt)
	pbkdf2, pbkdf2ed := countedHash(t, quickPBKDF2)
	old := newFixed(map[string]Hash{"kept": bcrypt, "changed": bcrypt, "removed": bcrypt}, cache)
	for _, name := range []string{"kept", "changed", "removed"} {
		wantVerify(t, old, name, "secret", true)
	}
	bcrypted.Store(0)

	// The removed client's hash is still somebody's, so it may be its decoy.
	v := newFixed(map[string]Hash{"kept": bcrypt, "changed": pbkdf2}, cache)
	wantVerify(t, v, "kept", "secret", true)
	if bcrypted.Load() != 0 {
		t.Error("an unchanged client was checked again after a reload")
	}
	wantVerify(t, v, "changed", "secret", true)
	if pbkdf2ed.Load() != 1 {
		t.Error("a changed hash was answered from memory")
	}
	wantVerify(t, v, "removed", "secret", false)
	v = newFixed(map[string]Hash{"kept": bcrypt}, cache)
	wantVerify(t, v, "removed", "secret", false)
	v = newFixed(nil, cache)
	wantVerify(t, v, "kept", "secret", false)
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	h, n := countedHash(t, quickPBKDF2)
	clients := make(map[string]Hash)
	for i := range 10 {
		clients[fmt.Sprint("client", i)] = h
	}
	v := newFixed(clients, NewCache(CacheOptions{MaxEntries: 3}))
	for i := range 10 {
		wantVerify(t, v, fmt.Sprint("client", i), "secret", true)
		if len(v.cache.expires) > 3 || len(v.cache.queue) != len(v.cache.expires) {
			t.Fatalf("%d entries, %d queued", len(v.cache.expires), len(v.cache.queue))
		}
	}
	n.Store(0)
	for _, i := range []int{7, 8, 9} {
		wantVerify(t, v, fmt.Sprint("client", i), "secret", true)
	}
	if n.Load() != 0 {
		t.Errorf("%d of the three latest were forgotten", n.Load())
	}
	wantVerify(t, v, "client6", "secret", true)
	if n.Load() != 1 {
		t.Error("the fourth latest was remembered")
	}
}

// TestCacheKeepsNoPassword looks for the password in what the cache holds.
func TestCacheKeepsNoPassword(t *testing.T) {
	t.Parallel()
	v := newFixed(map[string]Hash{"panel": mustParse(t, quickPBKDF2)}, NewCache(CacheOptions{}))
	wantVerify(t, v, "panel", "secret", true)
	if len(v.cache.queue) != 1 {
		t.Fatalf("%d entries", len(v.cache.queue))
	}
	k := v.cache.keyed.New().(*keyedHash)
	v.cache.keyed.Put(k)
	v.cache.key("panel", v.clients["panel"]().Current, "secret")
	if all := string(k.buf[:cap(k.buf)]); strings.Contains(all, "secret") {
		t.Errorf("the buffer still holds %q", all)
	}
	// Another process, another key.
	if NewCache(CacheOptions{}).key("panel", v.clients["panel"]().Current, "secret") == v.cache.queue[0] {
		t.Error("two caches have the same key")
	}
}

// TestKeysDiffer: no part of a login can stand for another.
func TestKeysDiffer(t *testing.T) {
	t.Parallel()
	c := NewCache(CacheOptions{})
	a, b := mustParse(t, "{PLAIN}a"), mustParse(t, "{PLAIN}b")
	seen := make(map[cacheKey]string)
	for _, login := range []struct {
		name     string
		hash     Hash
		password string
	}{
		{"panel", a, "secret"},
		{"panels", a, "ecret"},
		{"pane", a, "lsecret"},
		{"panel", b, "secret"},
		{"panel" + string(a.fingerprint[:]), a, "secret"},
		{"", a, "panelsecret"},
	} {
		id := fmt.Sprintf("%q %q", login.name, login.password)
		key := c.key(login.name, login.hash, login.password)
		if other, ok := seen[key]; ok {
			t.Errorf("%s and %s have the same key", id, other)
		}
		seen[key] = id
	}
}

// gate is a hash that says when its computation begins and ends when told.
type gate struct {
	mu            *sync.Mutex
	running, most *int
	open          <-chan struct{}
}

func newGate() (h Hash, running, most *int, open chan struct{}) {
	running, most, open = new(int), new(int), make(chan struct{})
	return Hash{scheme: "GATE", expensive: true, matcher: gate{new(sync.Mutex), running, most, open}}, running, most, open
}

func (g gate) match(password string) (bool, error) {
	g.mu.Lock()
	*g.running++
	*g.most = max(*g.most, *g.running)
	g.mu.Unlock()
	<-g.open
	g.mu.Lock()
	*g.running--
	g.mu.Unlock()
	return password == "secret", nil
}

func TestChecksAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, running, most, open := newGate()
		// Two verifiers, as during a reload, share one bound.
		cache := NewCache(CacheOptions{MaxChecks: 3})
		verifiers := []*Verifier{
			newFixed(map[string]Hash{"panel": h}, cache),
			newFixed(map[string]Hash{"panel": h}, cache),
		}
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				name, password, want := "panel", "secret", true
				switch i % 4 {
				case 1:
					password, want = "wrong", false
				case 2:
					name, want = "nobody", false
				}
				wantVerify(t, verifiers[i%2], name, password, want)
			})
		}
		synctest.Wait()
		if *running != 3 {
			t.Errorf("%d computations at work; want 3", *running)
		}
		// A cheap hash does not wait behind them.
		wantVerify(t, newFixed(map[string]Hash{"plain": mustParse(t, "{PLAIN}secret")}, cache), "plain", "secret", true)
		close(open)
		wg.Wait()
		if *most != 3 {
			t.Errorf("up to %d computations at work; want 3", *most)
		}
		wantVerify(t, verifiers[0], "panel", "secret", true)
	})
}

// TestOneCheckForMany: clients that all connect at once with the same
// password pay for as many checks as were at work when the first ended.
func TestOneCheckForMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _, _, open := newGate()
		n := new(atomic.Int64)
		h.matcher = counted{h.matcher, n}
		v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{MaxChecks: 2}))
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() { wantVerify(t, v, "panel", "secret", true) })
		}
		synctest.Wait()
		close(open)
		wg.Wait()
		if n.Load() != 2 {
			t.Errorf("%d computations of 32 equal logins; want 2", n.Load())
		}
	})
}

func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, running, _, open := newGate()
		v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{MaxChecks: 1}))
		first := make(chan bool)
		go func() {
			ok, _ := isRight(v, t.Context(), "panel", "secret")
			first <- ok
		}()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begin := time.Now()
		ok, err := isRight(v, ctx, "panel", "secret")
		if ok || !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Verify behind a full house = %v, %v", ok, err)
		}
		if waited := time.Since(begin); waited != 5*time.Second {
			t.Errorf("waited %v; want 5s", waited)
		}
		if *running != 1 {
			t.Errorf("%d computations at work", *running)
		}
		close(open)
		if !<-first {
			t.Error("the first login failed")
		}
		// Who gave up left no slot taken.
		wantVerify(t, v, "panel", "wrong", false)
	})
}

// broken is a hash that cannot be computed.
type broken struct{ err error }

func (b broken) match(string) (bool, error) { return false, b.err }

func TestVerifyError(t *testing.T) {
	t.Parallel()
	cause := errors.New("out of luck")
	h := Hash{scheme: "BROKEN", expensive: true, matcher: broken{cause}}
	v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{MaxChecks: 1}))
	for range 2 { // the slot is given back
		ok, err := isRight(v, t.Context(), "panel", "secret")
		if ok || !errors.Is(err, cause) || errors.Is(err, ErrBusy) {
			t.Errorf("Verify = %v, %v", ok, err)
		}
	}
}

func TestVerifyRefusesAtOnce(t *testing.T) {
	t.Parallel()
	h, n := countedHash(t, quickPBKDF2)
	v := newFixed(map[string]Hash{"panel": h}, NewCache(CacheOptions{}))
	for _, password := range []string{"", "secret\x00", strings.Repeat("x", MaxPassword+1)} {
		wantVerify(t, v, "panel", password, false)
		wantVerify(t, v, "nobody", password, false)
	}
	if n.Load() != 0 {
		t.Errorf("%d computations of impossible passwords", n.Load())
	}
}

func TestNewVerifierPanicsOnZeroHash(t *testing.T) {
	t.Parallel()
	defer func() {
		if r := fmt.Sprint(recover()); !strings.Contains(r, `"panel"`) {
			t.Errorf("recovered %v", r)
		}
	}()
	newFixed(map[string]Hash{"panel": {}}, NewCache(CacheOptions{}))
}

func BenchmarkVerify(b *testing.B) {
	for _, bench := range []struct{ name, client, password string }{
		{"remembered", "panel", "secret"},
		{"plain", "plain", "secret"},
		{"wrong", "panel", "wrong"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			v := newFixed(map[string]Hash{
				"panel": mustParse(b, quickBcrypt),
				"plain": mustParse(b, "{PLAIN}secret"),
			}, NewCache(CacheOptions{}))
			b.ReportAllocs()
			for b.Loop() {
				ok, err := isRight(v, b.Context(), bench.client, bench.password)
				if err != nil || ok != (bench.password == "secret") {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkGenerated(b *testing.B) {
	for _, scheme := range Schemes() {
		b.Run(scheme, func(b *testing.B) {
			text, err := Generate(scheme, "secret")
			if err != nil {
				b.Fatal(err)
			}
			h := mustParse(b, text)
			for b.Loop() {
				if ok, err := h.Match("secret"); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// newFixed returns a verifier of clients with one password each that does not
// change.
func newFixed(clients map[string]Hash, cache *Cache) *Verifier {
	sources := make(map[string]Source)
	for name, h := range clients {
		sources[name] = func() Passwords { return Passwords{Current: h} }
	}
	return NewVerifier(sources, cache)
}

// isRight is Verify for those who do not care which password it was.
func isRight(v *Verifier, ctx context.Context, name, password string) (bool, error) {
	verdict, err := v.Verify(ctx, name, password)
	return verdict != Refused, err
}

// While a password is replaced both are right, and it is told which it was, from
// memory too; unknown names cost as much as the client they are taken for.
func TestTwoPasswords(t *testing.T) {
	t.Parallel()
	current, currents := countedHash(t, quickBcrypt) // secret
	text, err := Generate("PBKDF2", "old")
	if err != nil {
		t.Fatal(err)
	}
	old, olds := countedHash(t, text)
	now := Passwords{Current: current, Old: old}
	v := NewVerifier(map[string]Source{"panel": func() Passwords { return now }}, NewCache(CacheOptions{}))
	for _, tt := range []struct {
		name, password string
		want           Verdict
		computed       [2]int64
	}{
		{"panel", "secret", ByCurrent, [2]int64{1, 0}},
		{"panel", "secret", ByCurrent, [2]int64{}},
		{"panel", "old", ByOld, [2]int64{1, 1}},
		{"panel", "old", ByOld, [2]int64{}},
		{"panel", "wrong", Refused, [2]int64{1, 1}},
		{"nobody", "wrong", Refused, [2]int64{1, 1}},
		{"nobody", "old", Refused, [2]int64{1, 1}},
		{"panel", "", Refused, [2]int64{}},
	} {
		got, err := v.Verify(t.Context(), tt.name, tt.password)
		if computed := [2]int64{currents.Swap(0), olds.Swap(0)}; err != nil || got != tt.want || computed != tt.computed {
			t.Errorf("%s, %s: %v, %v with %d computations; want %v with %d", tt.name, tt.password, got, err, computed, tt.want, tt.computed)
		}
	}
	now.Old = Hash{}
	if got, err := v.Verify(t.Context(), "panel", "old"); got != Refused || err != nil {
		t.Errorf("the old password is gone: %v, %v", got, err)
	}
}
