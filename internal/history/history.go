// Package history keeps what the last hour was like, in memory of a fixed size:
// a small series for each backend, the slowest commands and those that failed.
// It is what the status page shows where there is no Prometheus.
package history

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
)

const (
	// Interval is the time between two samples.
	Interval = 10 * time.Second
	// Samples is how many there are of a backend.
	Samples = int(hour / Interval)
	// maxSeries bounds how many backends have a series: 1000 take 12 MB.
	maxSeries = 1000
)

// Reading is the state of a backend at one moment. Its counters only grow.
type Reading struct {
	Backend  string
	Commands uint64
	Failed   uint64           // of them
	Times    histogram.Counts // of them, that had a connection
	InUse    int              // connections
	MaxOpen  int
	Waiting  int // commands
}

// Sample is what a backend did in one Interval.
type Sample struct {
	Rate     float32 // commands a second
	Failed   float32 // of them
	P50      float32 // seconds; 0: no command had a connection
	P95, P99 float32
	InUse    float32 // connections, at its end; of several samples together the most
	Waiting  float32 // likewise
}

// Recorder takes the samples.
type Recorder struct {
	read func() []Reading
	stop chan struct{}
	run  sync.WaitGroup
	once sync.Once

	mu      sync.Mutex // guards what follows; nothing is read under it
	newest  time.Time  // of the samples
	taken   uint64     // samples of each series, those that are forgotten too
	series  map[string]*series
	readAt  time.Time
	started bool
}

// series is the samples of one backend. Sample n is at n % Samples.
type series struct {
	since   uint64 // the first sample
	last    Reading
	samples [Samples]Sample
}

// Start takes a sample each Interval, until Close. read is called from one
// goroutine.
func Start(read func() []Reading) *Recorder {
	r := newRecorder(read)
	r.run.Go(r.record)
	return r
}

func newRecorder(read func() []Reading) *Recorder {
	return &Recorder{read: read, stop: make(chan struct{}), series: make(map[string]*series)}
}

// Close ends the recording. What has been recorded can still be read.
func (r *Recorder) Close() {
	r.once.Do(func() { close(r.stop) })
	r.run.Wait()
}

func (r *Recorder) record() {
	r.take(time.Now())
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case now := <-tick.C:
			r.take(now)
		}
	}
}

// take takes one sample of all backends. The first look at a backend only says
// from where its counters go on.
func (r *Recorder) take(now time.Time) {
	readings := r.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	elapsed := now.Sub(r.readAt).Seconds()
	known := make(map[string]bool, len(readings))
	for i := range readings {
		reading := &readings[i]
		known[reading.Backend] = true
		s, ok := r.series[reading.Backend]
		switch {
		case ok:
			s.samples[r.taken%uint64(Samples)] = between(&s.last, reading, elapsed)
			s.last = *reading
		case len(r.series) < maxSeries:
			first := r.taken
			if r.started {
				first++
			}
			r.series[reading.Backend] = &series{since: first, last: *reading}
		}
	}
	for name := range r.series {
		if !known[name] {
			delete(r.series, name)
		}
	}
	r.readAt = now
	if r.started {
		r.taken++
		r.newest = now
	}
	r.started = true
}

// between returns what happened from a to b, which are elapsed seconds apart.
func between(a, b *Reading, elapsed float64) Sample {
	s := Sample{InUse: float32(b.InUse), Waiting: float32(b.Waiting)}
	if b.Commands < a.Commands || elapsed <= 0 {
		return s // counts anew: another backend of the same name
	}
	s.Rate = float32(float64(b.Commands-a.Commands) / elapsed)
	s.Failed = float32(float64(b.Failed-a.Failed) / elapsed)
	if d := b.Times.Since(&a.Times); d.Total() > 0 {
		s.P50, s.P95, s.P99 = float32(d.Quantile(0.5).Seconds()), float32(d.Quantile(0.95).Seconds()), float32(d.Quantile(0.99).Seconds())
	}
	return s
}

// Series is the samples of a backend, the oldest first. The last one ends at
// the End of the History.
type Series struct {
	Backend string
	MaxOpen int
	Samples []Sample
}

// History is all series.
type History struct {
	End    time.Time // of the newest sample; zero: there is none yet
	Step   time.Duration
	Series []Series
}

// History returns the series of backends, of all if none is named, with one
// sample for each step, which is rounded to whole Intervals.
func (r *Recorder) History(step time.Duration, backends ...string) History {
	each := max(1, int(step/Interval))
	r.mu.Lock()
	defer r.mu.Unlock()
	h := History{End: r.newest, Step: time.Duration(each) * Interval}
	if len(backends) == 0 {
		for name := range r.series {
			backends = append(backends, name)
		}
	}
	for _, name := range backends {
		s, ok := r.series[name]
		if !ok {
			continue
		}
		first := s.since
		if r.taken > uint64(Samples) {
			first = max(first, r.taken-uint64(Samples))
		}
		out := Series{Backend: name, MaxOpen: s.last.MaxOpen}
		// Steps end where the whole ends, so that the last one is whole.
		for to := r.taken; to > first; {
			from := first
			if to-first > uint64(each) {
				from = to - uint64(each)
			}
			var sum Sample
			for n := from; n < to; n++ {
				sum.join(&s.samples[n%uint64(Samples)])
			}
			sum.Rate /= float32(to - from)
			sum.Failed /= float32(to - from)
			out.Samples = append(out.Samples, sum)
			to = from
		}
		slices.Reverse(out.Samples)
		h.Series = append(h.Series, out)
	}
	slices.SortFunc(h.Series, func(a, b Series) int { return strings.Compare(a.Backend, b.Backend) })
	return h
}

// join adds a sample to those of a step: rates are summed up, of the others the
// largest is kept, so that a peak stays visible.
func (s *Sample) join(o *Sample) {
	s.Rate += o.Rate
	s.Failed += o.Failed
	s.P50, s.P95, s.P99 = max(s.P50, o.P50), max(s.P95, o.P95), max(s.P99, o.P99)
	s.InUse, s.Waiting = max(s.InUse, o.InUse), max(s.Waiting, o.Waiting)
}
