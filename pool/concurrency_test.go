package pool

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// curve is how many commands a second a backend answers with n at a time.
type curve struct {
	name string
	rate func(n float64) float64
}

var curves = []curve{
	// Measured on two processors with Dovecot 2.3.19: 829 with 8, 560 with 128.
	{"few processors", func(n float64) float64 { return 850 * min(1, n/2) / (1 + 0.004*max(0, n-3)) }},
	{"many processors", func(n float64) float64 { return 60 * min(n, 24) / (1 + 0.01*max(0, n-24)) }},
	{"thrashes", func(n float64) float64 { return 1000 * min(n, 6) / 6 / (1 + 0.1*max(0, n-6)) }},
	{"disk", func(n float64) float64 { return 60 * n / (1 + n/40) }},
	{"flat", func(n float64) float64 { return 700 }},
	{"one at a time", func(n float64) float64 { return 900 / (1 + 0.05*(n-1)) }},
}

// runLoad lets commands end at random moments, as often as the curve says, for
// some seconds. It returns how many ended.
func runLoad(c *concurrency, f curve, now *time.Time, seconds int, random *rand.Rand) int {
	ended := 0
	for end := now.Add(time.Duration(seconds) * time.Second); now.Before(end); ended++ {
		// Erlang: service times vary, but not as much as chance alone makes them.
		wait := (random.ExpFloat64() + random.ExpFloat64()) / 2 / f.rate(float64(c.limit()))
		*now = now.Add(time.Duration(wait * float64(time.Second)))
		c.commandEnded(*now, true)
	}
	return ended
}

// TestConcurrencyFindsBest: on every curve the rate gets to that of the best
// fixed number, comparisons included.
func TestConcurrencyFindsBest(t *testing.T) {
	t.Parallel()
	for _, f := range curves {
		for _, maxOpen := range []int{2, 8, 64} {
			t.Run(fmt.Sprintf("%s/%d", f.name, maxOpen), func(t *testing.T) {
				t.Parallel()
				best := 0.0
				for n := 1; n <= maxOpen; n++ {
					best = math.Max(best, f.rate(float64(n)))
				}
				for seed := range uint64(2) {
					random := rand.New(rand.NewPCG(seed, 7))
					c := newConcurrency(1, maxOpen)
					now := time.Unix(1e9, 0)
					runLoad(c, f, &now, 150, random)
					ended := runLoad(c, f, &now, 150, random)
					if share := float64(ended) / 150 / best; share < 0.95 {
						t.Errorf("seed %d: %.1f %% of the best rate %.0f, limit %d", seed, 100*share, best, c.best())
					}
				}
			})
		}
	}
}

// TestConcurrencyFollows: what is best changes.
func TestConcurrencyFollows(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	c := newConcurrency(1, 64)
	now := time.Unix(1e9, 0)
	runLoad(c, curves[0], &now, 120, random)
	if n := c.best(); n > 32 {
		t.Errorf("few processors: %d", n)
	}
	runLoad(c, curves[3], &now, 120, random)
	if n := c.best(); n < 32 {
		t.Errorf("disk: %d", n)
	}
	runLoad(c, curves[5], &now, 120, random)
	if n := c.best(); n > 8 {
		t.Errorf("one at a time: %d", n)
	}
}

// TestConcurrencyNeedsWaiting: what does not bind says nothing.
func TestConcurrencyNeedsWaiting(t *testing.T) {
	t.Parallel()
	c := newConcurrency(1, 16)
	now := time.Unix(1e9, 0)
	for i := range 100_000 {
		now = now.Add(time.Millisecond)
		c.commandEnded(now, i%50 != 0)
	}
	if c.limit() != 16 {
		t.Errorf("limit %d", c.limit())
	}
}

// TestConcurrencyOfLongCommands: where few commands end, as many as may be run.
func TestConcurrencyOfLongCommands(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	c := newConcurrency(1, 16)
	now := time.Unix(1e9, 0)
	runLoad(c, curves[5], &now, 120, random)
	if c.best() > 4 {
		t.Fatalf("limit %d", c.best())
	}
	c.at = c.home
	c.commandEnded(now, true)
	if at := c.block(); !at.Equal(now.Add(windowLong)) {
		t.Fatalf("block: %v, now %v", at, now)
	}
	c.look(now.Add(windowLong - time.Nanosecond))
	if c.best() == 16 {
		t.Error("too early")
	}
	c.look(now.Add(windowLong))
	if c.limit() != 16 {
		t.Errorf("limit %d", c.limit())
	}
	if at := c.block(); !at.IsZero() {
		t.Errorf("looks at %v though the limit is max_open", at)
	}
}

func TestConcurrencyLevels(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		least, most int
		want        string
	}{
		{1, 1, "[1]"}, {0, 2, "[1 2]"}, {1, 8, "[1 2 3 4 5 6 7 8]"}, {4, 32, "[4 5 6 7 8 9 10 12 14 16 19 22 26 31 32]"}, {9, 8, "[8]"},
	} {
		if got := fmt.Sprint(newConcurrency(test.least, test.most).levels); got != test.want {
			t.Errorf("%d to %d: %s, want %s", test.least, test.most, got, test.want)
		}
	}
}

// TestAdaptivePool: the pool lends no more than is found best, and commands
// that take long do not starve the others.
func TestAdaptivePool(t *testing.T) {
	inBubble(t, func(b *config.Backend) {
		b.Pool.MaxOpen, b.Pool.MaxIdle = 32, 32
		b.Pool.Adaptive, b.Pool.MinActive = true, 1
	}, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var running atomic.Int64
		var workers sync.WaitGroup
		for range 64 {
			workers.Go(func() {
				for ctx.Err() == nil {
					c, err := w.Acquire(t.Context(), Shared)
					if err != nil {
						t.Error(err)
						return
					}
					n := running.Add(1)
					time.Sleep(time.Duration(float64(n) / curves[2].rate(float64(n)) * float64(time.Second)))
					running.Add(-1)
					c.Release(Reusable)
				}
			})
		}
		time.Sleep(40 * time.Second)
		if s := w.Stat(); s.Best < 3 || s.Best > 10 {
			t.Errorf("best with 6 at a time: %+v", s)
		}

		// Now all that may run do not end.
		var long []*Conn
		for len(long) < 20 {
			c, err := w.Acquire(t.Context(), Shared)
			if err != nil {
				t.Fatalf("with %d long commands: %v", len(long), err)
			}
			long = append(long, c)
		}
		if s := w.Stat(); s.InUse < 20 {
			t.Errorf("%+v", s)
		}
		for _, c := range long {
			c.Release(Reusable)
		}
		stop()
		workers.Wait()
	})
}
