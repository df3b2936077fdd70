// Package histogram counts how long things take, at a cost that every command
// can pay: an observation is two atomic additions, without a lock or an
// allocation.
package histogram

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets is how many there are; what is longer than the last bound is in the
// one behind it.
const Buckets = 17

// Bounds are the upper ends of the buckets but for the last, which has none.
// They are those of all histograms: a pooled command to a backend near by takes
// less than a millisecond, one through a large mailbox minutes.
var Bounds = [Buckets - 1]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	30 * time.Second, 5 * time.Minute,
}

// Histogram is a histogram that any goroutine may observe and read. The zero
// value is empty.
type Histogram struct {
	counts [Buckets]atomic.Uint64
	sum    atomic.Int64 // ns
}

// Observe counts d; less than nothing is nothing.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.sum.Add(int64(d))
}

// bucket returns the place of d. The bounds are so near to powers of two that
// the search, which begins at the first that may be right, looks at few.
func bucket(d time.Duration) int {
	i := int(first[bits.Len64(uint64(d))])
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	return i
}

// first is the first bucket for numbers of so many bits.
var first = func() (at [65]uint8) {
	for n := 1; n < len(at); n++ {
		least := time.Duration(1) << (n - 1)
		for at[n] = 0; int(at[n]) < len(Bounds) && (n > 63 || least > Bounds[at[n]]); at[n]++ {
		}
	}
	return at
}()

// Counts is what a histogram has at one moment.
type Counts struct {
	Buckets [Buckets]uint64 // each without those before it
	Sum     time.Duration
}

// Counts returns what has been observed. Observations that go on meanwhile may
// be in it in part.
func (h *Histogram) Counts() (c Counts) {
	for i := range h.counts {
		c.Buckets[i] = h.counts[i].Load()
	}
	c.Sum = time.Duration(h.sum.Load())
	return c
}

// Total returns how many observations there are.
func (c *Counts) Total() (n uint64) {
	for _, b := range c.Buckets {
		n += b
	}
	return n
}

// Add adds the observations of o.
func (c *Counts) Add(o *Counts) {
	for i := range c.Buckets {
		c.Buckets[i] += o.Buckets[i]
	}
	c.Sum += o.Sum
}

// Since returns the observations of c that are not in before, an earlier state
// of the same histogram.
func (c *Counts) Since(before *Counts) (d Counts) {
	for i := range c.Buckets {
		d.Buckets[i] = c.Buckets[i] - before.Buckets[i]
	}
	d.Sum = c.Sum - before.Sum
	return d
}

// Quantile estimates how long the share q of all observations took at most, as
// Prometheus's histogram_quantile does: evenly spread within the bucket that
// it falls into. It is 0 without observations, and the last bound for what is
// beyond it.
func (c *Counts) Quantile(q float64) time.Duration {
	total := c.Total()
	if total == 0 {
		return 0
	}
	rank, below := q*float64(total), uint64(0)
	for i, n := range c.Buckets {
		if float64(below+n) < rank || n == 0 {
			below += n
			continue
		}
		if i == len(Bounds) {
			break
		}
		from := time.Duration(0)
		if i > 0 {
			from = Bounds[i-1]
		}
		return from + time.Duration((rank-float64(below))/float64(n)*float64(Bounds[i]-from))
	}
	return Bounds[len(Bounds)-1]
}
