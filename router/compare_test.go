package router

import (
	"fmt"
	"slices"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// What follows are two other algorithms, only to be compared with ours: see
// docs/routing.md.

// jump is that of Lamping and Veach (2014).
func jump(key uint64, shards int) int {
	b, j := int64(-1), int64(0)
	for j < int64(shards) {
		b = j
		key = key*2862933555777941757 + 1
		j = int64(float64(b+1) * (float64(1<<31) / float64(key>>33+1)))
	}
	return int(b)
}

// maglev is the table of Eisenbud and others (2016).
func maglev(names ...string) []string {
	const size = 65537
	table, next := make([]string, size), make([]uint64, len(names))
	for filled := 0; ; {
		for s, name := range names {
			offset, skip := ringHash(name+" offset")%size, ringHash(name+" skip")%(size-1)+1
			at := (offset + next[s]*skip) % size
			for table[at] != "" {
				next[s]++
				at = (offset + next[s]*skip) % size
			}
			table[at] = name
			next[s]++
			if filled++; filled == size {
				return table
			}
		}
	}
}

// TestAlgorithms measures what adding a shard to nine and taking one out of ten
// moves, and how equal the shares are.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	const users = ringUsers
	names := []string{"s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10"}
	maglev9, maglev10, maglevLess := maglev(names[:9]...), maglev(names...), maglev(append(slices.Clone(names[:4]), names[5:]...)...)
	// Jump cannot leave one out in the middle: all behind it are numbered anew.
	type place func(user string) string
	byTable := func(table *Table) place { return func(user string) string { return shardOf(t, table, user) } }
	byName := func(at func(uint64) int) place {
		return func(user string) string { return fmt.Sprintf("s%d", at(ringHash(user))+1) }
	}
	without := func(algorithm string) place {
		r := config.Route{Kind: "ring", Ring: config.Ring{Algorithm: algorithm}}
		full := grown(t, algorithm, 10)
		if algorithm == config.RingDirector {
			for i, address := range full.routes[0].(*director).addresses {
				r.Ring.Servers = append(r.Ring.Servers, config.RingServer{Address: address, Shard: fmt.Sprintf("s%d", i+1), VHosts: 100, Down: i == 4})
			}
		}
		for i := 1; i <= 10; i++ {
			if i != 5 || algorithm == config.RingDirector {
				r.Shards = append(r.Shards, fmt.Sprintf("s%d", i))
			}
		}
		table, err := New(new(Names), []config.Route{r}, r.Shards)
		if err != nil {
			t.Fatal(err)
		}
		return byTable(table)
	}
	for _, a := range []struct {
		name            string
		nine, ten, less place // less is ten without the fifth
	}{
		{"rendezvous", byTable(grown(t, config.RingRendezvous, 9)), byTable(grown(t, config.RingRendezvous, 10)), without(config.RingRendezvous)},
		{"director", byTable(grown(t, config.RingDirector, 9)), byTable(grown(t, config.RingDirector, 10)), without(config.RingDirector)},
		{"jump", byName(func(h uint64) int { return jump(h, 9) }), byName(func(h uint64) int { return jump(h, 10) }), func(user string) string {
			s := jump(ringHash(user), 9)
			if s >= 4 {
				s++
			}
			return fmt.Sprintf("s%d", s+1)
		}},
		{
			"maglev", func(user string) string { return maglev9[ringHash(user)%65537] }, func(user string) string { return maglev10[ringHash(user)%65537] },
			func(user string) string { return maglevLess[ringHash(user)%65537] },
		},
	} {
		added, removed, count := 0, 0, make(map[string]int)
		for i := range users {
			user := fmt.Sprintf("user%d@example.com", i)
			before, after := a.nine(user), a.ten(user)
			count[after]++
			if before != after {
				added++
			}
			if a.less(user) != after {
				removed++
			}
		}
		t.Logf("%-10s adding a tenth moves %.2f%%, removing the fifth of ten %.2f%%; up to %.2f%% off the mean", a.name,
			100*float64(added)/users, 100*float64(removed)/users, 100*worst(count, users))
		if a.name == "rendezvous" && (float64(added)/users > 0.11 || float64(removed)/users > 0.11) {
			t.Errorf("ours moves too many")
		}
	}
}
