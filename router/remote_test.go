package router

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// directory is a source in memory that can be slow, fail and count.
type directory struct {
	mu      sync.Mutex
	shards  map[string]string
	err     error
	takes   time.Duration
	asked   map[string]int
	running int
	most    int // that ran at the same time
	closed  int
	told    func(user string)
	doubt   func()
}

func newDirectory(users ...string) *directory {
	d := &directory{shards: make(map[string]string), asked: make(map[string]int)}
	for _, line := range users {
		user, shard, _ := strings.Cut(line, " ")
		d.shards[user] = shard
	}
	return d
}

func (d *directory) Lookup(ctx context.Context, user string) (lookup.Place, bool, error) {
	d.mu.Lock()
	d.asked[user]++
	d.running++
	d.most = max(d.most, d.running)
	shard, ok := d.shards[user]
	err, takes := d.err, d.takes
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.running--
	}()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return lookup.Place{}, false, ctx.Err()
	}
	if err != nil {
		return lookup.Place{}, false, err
	}
	return lookup.Place{Shard: shard}, ok, nil
}

func (d *directory) Notify(forget func(user string), doubt func()) { d.told, d.doubt = forget, doubt }

func (d *directory) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running > 0 {
		panic("closed while a lookup runs")
	}
	d.closed++
}

// set changes the directory.
func (d *directory) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func (d *directory) times(user string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[user]
}

// usual are settings as a configuration has them.
func usual() config.Lookup {
	return config.Lookup{
		Timeout: 2 * time.Second, MaxLookups: 4,
		Cache:   config.LookupCache{Size: 1000, TTL: time.Minute, NegativeTTL: 10 * time.Second, Refresh: 45 * time.Second, Stale: time.Hour},
		Breaker: config.Breaker{Failures: 3, Open: 5 * time.Second, Probes: 1},
	}
}

// asking returns a table with one route that asks d.
func asking(t testing.TB, d *directory, c config.Lookup) *Table {
	table := &Table{names: new(Names), routes: []route{newRemote("sql", config.Route{Kind: "sql", Lookup: c}, shards, d, nil)}}
	t.Cleanup(table.Close)
	return table
}

// expect fails unless Route answers want: a shard, "none" or a part of an error.
func expect(t *testing.T, table *Table, user, want string) {
	t.Helper()
	d, err := table.Route(t.Context(), user)
	switch {
	case errors.Is(err, ErrNoRoute):
		d.Shard = "none"
	case err != nil:
		d.Shard = err.Error()
	}
	if d.Shard != want && (err == nil || !strings.Contains(d.Shard, want)) {
		t.Errorf("%s after %s: %q; want %q", user, time.Since(began(t)), d.Shard, want)
	}
}

// began is when time begins in a test of [synctest].
func began(*testing.T) time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func TestRemoteCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice s1", "bob s2")
		table := asking(t, d, usual())
		defer table.Close()
		for range 3 {
			expect(t, table, "Alice", "s1")
			expect(t, table, "bob", "s2")
			expect(t, table, "eve", "none")
		}
		if d.times("alice") != 1 || d.times("eve") != 1 {
			t.Errorf("asked %v", d.asked)
		}
		d.set(func() { d.shards["alice"] = "s3"; d.shards["eve"] = "s3" })
		time.Sleep(9 * time.Second)
		expect(t, table, "eve", "none")
		time.Sleep(2 * time.Second) // 11 s
		expect(t, table, "eve", "s3")
		expect(t, table, "alice", "s1")
		time.Sleep(35 * time.Second) // 46 s: asked again behind the answer
		expect(t, table, "alice", "s1")
		synctest.Wait()
		expect(t, table, "alice", "s3")
		if n := d.times("alice"); n != 2 {
			t.Errorf("alice was asked for %d times", n)
		}
		time.Sleep(15 * time.Second) // 61 s: bob is too old, nobody has used him
		d.set(func() { d.shards["bob"] = "s1" })
		expect(t, table, "bob", "s1")
	})
}

// TestRemoteFails: an error is an error, never another answer, but for one that
// was right not too long ago.
func TestRemoteFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice s1")
		table := asking(t, d, usual())
		defer table.Close()
		expect(t, table, "alice", "s1")
		expect(t, table, "eve", "none")
		d.set(func() { d.err = errors.New("disk on fire"); d.shards["alice"] = "s2" })
		expect(t, table, "bob", "route sql: disk on fire")
		expect(t, table, "eve", "none")
		time.Sleep(11 * time.Second)
		expect(t, table, "eve", "disk on fire")
		time.Sleep(50 * time.Second) // 61 s
		expect(t, table, "alice", "s1")
		expect(t, table, "bob", "the circuit breaker is open: disk on fire")
		if n := d.times("bob"); n != 1 {
			t.Errorf("asked %d times with the breaker open", n)
		}
		expect(t, table, "alice", "s1")
		if got := table.Explain(t.Context(), "alice")[0]; got.Shard != "s1" || got.Err != nil || got.Reason !=
			"the lookup names s1, as of 1m1s ago; that is too old, but the lookup fails: the circuit breaker is open: disk on fire" {
			t.Errorf("explained as %+v", got)
		}
		time.Sleep(5100 * time.Millisecond)
		d.set(func() { d.err = nil })
		expect(t, table, "alice", "s2")
		expect(t, table, "bob", "none")

		d.set(func() { d.err = errors.New("again") })
		time.Sleep(time.Hour + time.Minute - time.Millisecond)
		expect(t, table, "alice", "s2")
		time.Sleep(time.Millisecond)
		expect(t, table, "alice", "again")
	})
}

func TestRemoteSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice s1", "u0 s1", "u1 s1", "u2 s1", "u3 s1", "u4 s1", "u5 s1")
		d.takes = 1500 * time.Millisecond
		table := asking(t, d, usual())
		defer table.Close()
		// However many want her, she is asked for once, also if the first leaves.
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := table.Route(ctx, "alice"); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who left got %v", err)
			}
		})
		synctest.Wait()
		for range 100 {
			all.Go(func() { expect(t, table, "alice", "s1") })
		}
		synctest.Wait()
		cancel()
		all.Wait()
		if n := d.times("alice"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		// The fifth and sixth wait for a turn, and that takes too long.
		for i := range 4 {
			all.Go(func() { expect(t, table, fmt.Sprintf("u%d", i), "s1") })
		}
		synctest.Wait()
		for i := range 2 {
			all.Go(func() { expect(t, table, fmt.Sprintf("u%d", i+4), "no answer within 2s (timeout)") })
		}
		all.Wait()
		if d.most != 4 {
			t.Errorf("%d lookups at the same time", d.most)
		}
		d.set(func() { d.takes = time.Hour })
		start := time.Now()
		expect(t, table, "carol", "no answer within 2s (timeout)")
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("gave up after %s", took)
		}
	})
}

func TestRemoteNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice s9")
		table := asking(t, d, usual())
		defer table.Close()
		for range 3 {
			expect(t, table, "alice", `the lookup names what is not there: unknown shard "s9": use one of s1, s2, s3`)
		}
		if n := d.times("alice"); n != 1 {
			t.Errorf("asked %d times", n)
		}
		d.set(func() { d.shards["alice"] = "s3" })
		time.Sleep(11 * time.Second)
		expect(t, table, "alice", "s9") // and forgets it
		expect(t, table, "alice", "s3")
	})
}

func TestRemoteForgets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice s1", "bob s1")
		table := asking(t, d, usual())
		defer table.Close()
		expect(t, table, "alice", "s1")
		expect(t, table, "bob", "s1")
		d.set(func() { d.shards["alice"] = "s2"; d.shards["bob"] = "s2"; d.takes = time.Second })
		expect(t, table, "alice", "s1")
		d.told("alice")
		expect(t, table, "alice", "s2")
		expect(t, table, "bob", "s1")
		// A lookup that began before the change is not kept.
		d.told("")
		var early sync.WaitGroup
		early.Go(func() { expect(t, table, "bob", "s2") })
		synctest.Wait()
		d.set(func() { d.shards["bob"] = "s3" })
		d.told("bob")
		expect(t, table, "bob", "s3")
		early.Wait()
		expect(t, table, "bob", "s3")
		// What is in doubt is asked for again, and good if that fails.
		d.set(func() { d.takes = 0 })
		expect(t, table, "alice", "s2")
		d.set(func() { d.shards["alice"] = "s3" })
		expect(t, table, "alice", "s2")
		d.doubt()
		d.set(func() { d.err = errors.New("gone") })
		expect(t, table, "alice", "s2")
		d.set(func() { d.err = nil })
		expect(t, table, "alice", "s3")
		table.Forget("bob")
		d.set(func() { d.shards["bob"] = "s1" })
		expect(t, table, "bob", "s1")
	})
}

// TestRemoteCloses: who waits gets an answer, who comes later ErrClosed.
func TestRemoteCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice s1", "bob s2")
		d.takes = time.Second
		table := asking(t, d, usual())
		expect(t, table, "bob", "s2")
		next := &Table{names: new(Names), routes: []route{newRemote("sql", config.Route{Kind: "sql", Lookup: usual()}, shards, newDirectory(), table)}}
		var waiting sync.WaitGroup
		waiting.Go(func() { expect(t, table, "alice", "s1") })
		synctest.Wait()
		table.Close()
		table.Close()
		waiting.Wait()
		expect(t, table, "alice", ErrClosed.Error())
		if d.closed != 0 {
			t.Error("closed although another table asks it")
		}
		expect(t, next, "bob", "s2")
		if n := d.times("bob"); n != 1 {
			t.Errorf("a cache that was taken over: bob was asked for %d times", n)
		}
		waiting.Go(func() { expect(t, next, "carol", "none") })
		time.Sleep(46 * time.Second)
		expect(t, next, "bob", "s2") // is refreshed, for which nobody waits
		synctest.Wait()
		next.Close()
		waiting.Wait()
		if d.closed != 1 {
			t.Errorf("closed %d times", d.closed)
		}
	})
}

// TestCachedDecisionDoesNotAllocate holds what Route promises.
func TestCachedDecisionDoesNotAllocate(t *testing.T) {
	table := asking(t, newDirectory("alice@example.com s1"), usual())
	route := func() {
		if d, err := table.Route(t.Context(), "alice@example.com"); err != nil || d.Shard != "s1" {
			t.Fatal(d, err)
		}
	}
	route()
	if n := testing.AllocsPerRun(1000, route); n != 0 {
		t.Errorf("a decision from the cache allocates %v times", n)
	}
}

// BenchmarkCachedDecision is a decision from the cache; the parallel form shows
// that there is no lock that all of them take.
func BenchmarkCachedDecision(b *testing.B) {
	const users = 1 << 16
	d := newDirectory()
	names := make([]string, users)
	for i := range names {
		names[i] = fmt.Sprintf("user%06d@example.com", i)
		d.shards[names[i]] = shards[i%3]
	}
	c := usual()
	c.Cache.Size, c.Cache.TTL, c.Cache.Refresh = 2*users, time.Hour, 0
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	clear(d.asked)
	before := heap()
	table := asking(b, d, c)
	for _, user := range names {
		// As commands come: each with a string of its own.
		if _, err := table.Route(b.Context(), strings.Clone(user)); err != nil {
			b.Fatal(err)
		}
	}
	d.set(func() { d.asked = make(map[string]int) }) // which is not the cache's
	kept := (heap() - before) / users
	// What it costs, also on a machine that does other things meanwhile.
	cpu := func(b *testing.B) func() {
		used := func() time.Duration {
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				b.Fatal(err)
			}
			return time.Duration(u.Utime.Nano())
		}
		before := used()
		return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
	}
	b.Run("one", func(b *testing.B) {
		defer cpu(b)()
		defer func() { b.ReportMetric(kept, "B/user") }()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := table.Route(b.Context(), names[i%users]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		defer cpu(b)()
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i += 7919 {
				if _, err := table.Route(b.Context(), names[i%users]); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
