package router

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

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
		case !strings.HasPrefix(fields[0], "#"):
			users++
			for i, want := range fields[1:] {
				if got := shardOf(t, rings[i], fields[0]); got != want {
					t.Errorf("ring %d: %q is on %s; it was always on %s", i, fields[0], got, want)
				}
			}
		}
	}
	if len(rings) != 5 || users != 53 {
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
	r := &ring{[]ringShard{{7, Decision{Shard: "a"}}, {7, Decision{Shard: "b"}}, {7, Decision{Shard: "c"}}}}
	if d, ok, _ := r.decide(t.Context(), "anyone"); !ok || d.Shard != "a" {
		t.Errorf("of equal scores %q wins", d.Shard)
	}
}

const ringUsers = 200_000

// TestRingGrows: a tenth shard takes a tenth of the users, an equal part of
// each other one, and moves nobody else.
func TestRingGrows(t *testing.T) {
	t.Parallel()
	nine := []string{"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"}
	before, after := newTestRing(t, nine...), newTestRing(t, append(slices.Clone(nine), "s10")...)
	moved, from, had := 0, make(map[string]int), make(map[string]int)
	for i := range ringUsers {
		user := fmt.Sprintf("user%d@example.com", i)
		a, b := shardOf(t, before, user), shardOf(t, after, user)
		had[a]++
		if a == b {
			continue
		}
		if b != "s10" {
			t.Fatalf("%s moved from %s to %s", user, a, b)
		}
		moved++
		from[a]++
	}
	if share := float64(moved) / ringUsers; share < 0.09 || share > 0.11 {
		t.Errorf("%.2f%% of the users moved; want 10%% ± 1%%", 100*share)
	}
	for _, shard := range nine {
		if share := float64(from[shard]) / float64(had[shard]); share < 0.09 || share > 0.11 {
			t.Errorf("%s lost %.2f%% of its users; want 10%% ± 1%%", shard, 100*share)
		}
	}
	t.Logf("%d of %d users moved (%.2f%%)", moved, ringUsers, 100*float64(moved)/ringUsers)
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
		mean := float64(ringUsers) / float64(len(names))
		worst := 0.0
		for _, shard := range names {
			worst = max(worst, float64(count[shard])/mean-1, 1-float64(count[shard])/mean)
		}
		// Chance alone gives ten shards of 20,000 users a standard deviation of 0.7%.
		if worst > 0.03 {
			t.Errorf("%d shards: %v, up to %.1f%% off the mean", len(names), count, 100*worst)
		}
		t.Logf("%d shards: up to %.2f%% off the mean", len(names), 100*worst)
	}
}
