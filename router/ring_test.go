package router

import (
	"bufio"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func newTestRing(t testing.TB, shards ...string) *Table {
	t.Helper()
	table, err := New(new(Names), []config.Route{{Kind: "ring", Shards: shards}}, shards)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func shardOf(t testing.TB, table *Table, user string) string {
	t.Helper()
	d, err := table.Route(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return d.Shard
}

// TestRingGolden pins the algorithm, by the answers of testdata/ring.py. If it fails, an upgrade would move
// people's mail: the change is wrong, not the file.
func TestRingGolden(t *testing.T) {
	t.Parallel()
	golden, err := os.Open("testdata/ring.golden")
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	var rings []*Table
	users := 0
	for lines := bufio.NewScanner(golden); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		switch {
		case fields[0] == "#ring":
			rings = append(rings, newTestRing(t, fields[1:]...))
		case fields[0] == "#weighted":
			weights := make(map[string]int)
			for _, field := range fields[1:] {
				name, weight, _ := strings.Cut(field, "=")
				weights[name], _ = strconv.Atoi(weight)
			}
			rings = append(rings, weighted(t, weights))
		case !strings.HasPrefix(fields[0], "#"):
			users++
			for i, want := range fields[1:] {
				if got := shardOf(t, rings[i], fields[0]); got != want {
					t.Errorf("ring %d: %q is on %s; it was always on %s", i, fields[0], got, want)
				}
			}
		}
	}
	if len(rings) != 7 || users != 53 {
		t.Errorf("%d rings and %d users; the file is not whole", len(rings), users)
	}
	if h := ringHash("alice@example.com"); h != 0xff8d9819fc0e12bf {
		t.Errorf("the example in the description is wrong: %#x", h)
	}
}

func TestRingIgnoresOrder(t *testing.T) {
	t.Parallel()
	names := []string{"s1", "s2", "s3", "s4", "s5", "s6", "s7"}
	table := newTestRing(t, names...)
	for range 20 {
		shuffled := slices.Clone(names)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		other := newTestRing(t, shuffled...)
		for i := range 200 {
			user := fmt.Sprintf("user%d@example.com", i)
			a, _ := table.Route(t.Context(), user)
			b, _ := other.Route(t.Context(), user)
			if a != b {
				t.Fatalf("%s: %+v with %v, %+v with %v", user, a, names, b, shuffled)
			}
		}
	}
}

func TestRingTies(t *testing.T) {
	t.Parallel()
	// No two names with equal hashes are known, so the hashes are set.
	r := &rendezvous{groups: []ringGroup{{1, []uint64{7, 7, 7}, []Decision{{Shard: "a"}, {Shard: "b"}, {Shard: "c"}}}}}
	if d, ok, _ := r.decide(t.Context(), "anyone"); !ok || d.Shard != "a" {
		t.Errorf("of equal scores %q wins", d.Shard)
	}
}

const ringUsers = 200_000

// grown are rings of both algorithms with n shards, s1 and so on.
func grown(t testing.TB, algorithm string, n int) *Table {
	t.Helper()
	r := config.Route{Kind: "ring", Ring: config.Ring{Algorithm: algorithm}}
	for i := 1; i <= n; i++ {
		r.Shards = append(r.Shards, fmt.Sprintf("s%d", i))
		if algorithm == config.RingDirector {
			address := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			r.Ring.Servers = append(r.Ring.Servers, config.RingServer{Address: address, Shard: r.Shards[i-1], VHosts: 100})
		}
	}
	table, err := New(new(Names), []config.Route{r}, r.Shards)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestRingGrows: a tenth shard takes a tenth of a million users and moves nobody
// else, and shares differ no more than the algorithm promises.
func TestRingGrows(t *testing.T) {
	t.Parallel()
	const users = 1_000_000
	for algorithm, most := range map[string]float64{
		// Chance alone gives a shard of 100,000 users a standard deviation of 0.3 %.
		config.RingRendezvous: 0.015,
		// 100 vhosts give a server's part of the circle one of 10 %.
		config.RingDirector: 0.4,
	} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			before, after := grown(t, algorithm, 9), grown(t, algorithm, 10)
			moved, from, had, has := 0, make(map[string]int), make(map[string]int), make(map[string]int)
			for i := range users {
				user := fmt.Sprintf("user%d@example.com", i)
				a, b := shardOf(t, before, user), shardOf(t, after, user)
				had[a]++
				has[b]++
				if a == b {
					continue
				}
				if b != "s10" {
					t.Fatalf("%s moved from %s to %s", user, a, b)
				}
				moved++
				from[a]++
			}
			if share := float64(moved) / users; share < 0.09 || share > 0.11 {
				t.Errorf("%.2f%% of the users moved; want 10%% ± 1%%", 100*share)
			}
			if len(from) != 9 {
				t.Errorf("only %d shards gave users away", len(from))
			}
			worst9, worst10 := worst(had, users), worst(has, users)
			if max(worst9, worst10) > most {
				t.Errorf("nine shards are up to %.2f%% off the mean, ten up to %.2f%%; want no more than %.1f%%", 100*worst9, 100*worst10, 100*most)
			}
			t.Logf("%.2f%% of %d users moved; shares are up to %.2f%% off the mean with nine shards, %.2f%% with ten", 100*float64(moved)/users, users, 100*worst9, 100*worst10)
		})
	}
}

// worst returns how far the share of a shard is off the mean, at most.
func worst(count map[string]int, users int) float64 {
	mean := float64(users) / float64(len(count))
	worst := 0.0
	for _, n := range count {
		worst = max(worst, float64(n)/mean-1, 1-float64(n)/mean)
	}
	return worst
}

func weighted(t testing.TB, weights map[string]int) *Table {
	t.Helper()
	names := slices.Sorted(maps.Keys(weights))
	r := config.Route{Kind: "ring", Shards: names}
	for _, name := range names {
		r.Ring.Weights = append(r.Ring.Weights, weights[name])
	}
	table, err := New(new(Names), []config.Route{r}, names)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestRingWeights: shares are as weights, equal ones change nothing, and more
// weight moves users to that shard only.
func TestRingWeights(t *testing.T) {
	t.Parallel()
	weights := map[string]int{"s1": 100, "s2": 100, "s3": 200, "s4": 50, "s5": 0}
	more := maps.Clone(weights)
	more["s2"] = 150
	table, heavier := weighted(t, weights), weighted(t, more)
	equal, plain := weighted(t, map[string]int{"s1": 7, "s2": 7, "s3": 7, "s4": 7}), newTestRing(t, "s1", "s2", "s3", "s4")
	count := make(map[string]int)
	for i := range ringUsers {
		user := fmt.Sprintf("user%d@example.com", i)
		was, is := shardOf(t, table, user), shardOf(t, heavier, user)
		count[was]++
		if was != is && is != "s2" {
			t.Fatalf("%s moved from %s to %s", user, was, is)
		}
		if a, b := shardOf(t, equal, user), shardOf(t, plain, user); a != b {
			t.Fatalf("%s is on %s with equal weights, on %s without", user, a, b)
		}
	}
	for shard, weight := range weights {
		want := float64(ringUsers) * float64(weight) / 450
		if off := math.Abs(float64(count[shard]) - want); off > 0.02*want {
			t.Errorf("%s has %d users; want %.0f ± 2%%", shard, count[shard], want)
		}
	}
	if _, err := New(new(Names), []config.Route{{Kind: "ring", Shards: []string{"s1"}, Ring: config.Ring{Weights: []int{0}}}}, shards); err == nil || !strings.Contains(err.Error(), "weight 0") {
		t.Errorf("a ring without weight: %v", err)
	}
}

func TestRingDoesNotAllocate(t *testing.T) {
	director, rendezvous := grown(t, config.RingDirector, 500), grown(t, config.RingRendezvous, 500)
	weights := make(map[string]int)
	for i := range 500 {
		weights[fmt.Sprintf("s%d", i)] = 1 + i%7
	}
	for name, table := range map[string]*Table{"director": director, "rendezvous": rendezvous, "weighted": weighted(t, weights)} {
		if n := testing.AllocsPerRun(100, func() { table.Route(t.Context(), "a.user.with.a.rather.long.name@mail.example.com") }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkRing is a decision for one of a million users.
func BenchmarkRing(b *testing.B) {
	users := make([]string, 1<<20)
	for i := range users {
		users[i] = fmt.Sprintf("user%d@example.com", i)
	}
	tables := map[string]*Table{}
	for _, n := range []int{10, 500} {
		for _, algorithm := range []string{config.RingRendezvous, config.RingDirector} {
			tables[fmt.Sprintf("%s/%d", algorithm, n)] = grown(b, algorithm, n)
		}
		weights := make(map[string]int)
		for i := range n {
			weights[fmt.Sprintf("s%d", i)] = 1 + i%7
		}
		tables[fmt.Sprintf("weighted/%d", n)] = weighted(b, weights)
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		table := tables[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			before := processorTime(b)
			for i := 0; b.Loop(); i++ {
				if _, err := table.Route(ctx, users[i&(len(users)-1)]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime is the same on a machine that does other things too.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestRingBalance: names that differ little get equal shares too.
func TestRingBalance(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{
		{"s1", "s2"},
		{"s1", "s2", "s3"},
		{"mail1", "mail2", "mail3", "mail4", "mail5", "mail6", "mail7", "mail8", "mail9", "mail10"},
	} {
		table := newTestRing(t, names...)
		count := make(map[string]int)
		for i := range ringUsers {
			count[shardOf(t, table, fmt.Sprintf("user%d@example.com", i))]++
		}
		worst := worst(count, ringUsers)
		// Chance alone gives ten shards of 20,000 users a standard deviation of 0.7%.
		if worst > 0.03 {
			t.Errorf("%d shards: %v, up to %.1f%% off the mean", len(names), count, 100*worst)
		}
		t.Logf("%d shards: up to %.2f%% off the mean", len(names), 100*worst)
	}
}
