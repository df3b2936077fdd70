package histogram

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	want := func(d time.Duration) int {
		i, _ := slices.BinarySearch(Bounds[:], d)
		return i
	}
	check := func(d time.Duration) {
		if got := bucket(d); got != want(d) {
			t.Errorf("%v is in bucket %d, want %d", d, got, want(d))
		}
	}
	check(0)
	check(1)
	check(1<<63 - 1)
	for i, b := range Bounds {
		if i > 0 && b <= Bounds[i-1] {
			t.Errorf("bounds are not in order at %v", b)
		}
		check(b - 1)
		check(b)
		check(b + 1)
	}
	for range 10000 {
		check(time.Duration(rand.Int64() >> rand.IntN(63)))
	}
}

func TestCounts(t *testing.T) {
	var h Histogram
	h.Observe(-time.Second)
	h.Observe(time.Millisecond)
	h.Observe(time.Hour)
	c := h.Counts()
	if c.Total() != 3 || c.Buckets[0] != 1 || c.Buckets[2] != 1 || c.Buckets[Buckets-1] != 1 || c.Sum != time.Hour+time.Millisecond {
		t.Errorf("%+v", c)
	}
	h.Observe(3 * time.Millisecond)
	later := h.Counts()
	if d := later.Since(&c); d.Total() != 1 || d.Buckets[4] != 1 || d.Sum != 3*time.Millisecond {
		t.Errorf("since: %+v", d)
	}
	c.Add(&c)
	if c.Total() != 6 || c.Sum != 2*(time.Hour+time.Millisecond) {
		t.Errorf("twice: %+v", c)
	}
}

func TestQuantile(t *testing.T) {
	var h Histogram
	if c := h.Counts(); c.Quantile(0.5) != 0 {
		t.Error("of nothing")
	}
	for range 50 {
		h.Observe(800 * time.Microsecond)
	}
	for range 50 {
		h.Observe(9 * time.Millisecond)
	}
	c := h.Counts()
	for _, test := range []struct {
		q    float64
		want time.Duration
	}{
		{0, 500 * time.Microsecond},
		{0.25, 750 * time.Microsecond},
		{0.5, time.Millisecond},
		{0.75, 7500 * time.Microsecond},
		{1, 10 * time.Millisecond},
	} {
		if got := c.Quantile(test.q); got != test.want {
			t.Errorf("%v: %v, want %v", test.q, got, test.want)
		}
	}
	h.Observe(time.Hour)
	c = h.Counts()
	if got := c.Quantile(1); got != 5*time.Minute {
		t.Errorf("beyond the bounds: %v", got)
	}
}

func TestConcurrent(t *testing.T) {
	var h Histogram
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				h.Observe(time.Millisecond)
			}
		})
	}
	wg.Wait()
	if c := h.Counts(); c.Total() != 4000 || c.Sum != 4*time.Second {
		t.Errorf("%+v", c)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	b.ReportAllocs()
	for i := range b.N {
		h.Observe(time.Duration(i) * time.Microsecond)
	}
}
