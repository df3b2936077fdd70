package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"
)

// sample is what one measurement found.
type sample struct {
	rate     float64       // commands a second, or MB a second
	p50, p99 time.Duration // of what a client does before it does its next
	between  time.Duration // CPU time of what stands between, per command
	backend  time.Duration // CPU time of the backend, per command
	clients  time.Duration // CPU time of the clients, per command
}

// counts are what is counted once, apart from the measurements: the counting
// would show in them.
type counts struct {
	calls, allocations float64 // per command of what stands between; below 0: not known
	memory             memory
}

// rows is a work and what was found, by target.
type rows struct {
	work
	samples [targets][]sample
	counts  [targets]counts
}

// verbose: each measurement is told as it is made.
var verbose bool

// measureAll measures everything once in each round, so that what else the
// machine does falls on all rows alike. The targets of a work follow each other
// at once and take turns in being the first.
func measureAll(ctx context.Context, s *site, o options, progress io.Writer) (*report, error) {
	r := &report{}
	for _, w := range o.works {
		r.rows = append(r.rows, &rows{work: w})
	}
	for round := range o.rounds {
		begin := time.Now()
		for _, row := range r.rows {
			for n := range row.targets {
				t := row.targets[(n+round)%len(row.targets)]
				got, err := measure(ctx, s, &row.work, t, o.duration)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", row.name, t, err)
				}
				row.samples[t] = append(row.samples[t], got)
				if verbose {
					fmt.Fprintf(progress, "%s, %s: %.0f, %s\n", row.name, t, got.rate, time.Since(begin).Round(time.Millisecond))
				}
			}
		}
		fmt.Fprintf(progress, "round %d of %d: %s\n", round+1, o.rounds, time.Since(begin).Round(time.Second))
	}
	for _, row := range r.rows {
		for _, t := range row.targets {
			got, err := count(ctx, s, &row.work, t, min(o.duration, time.Second))
			if err != nil {
				return nil, fmt.Errorf("%s, %s, counting: %w", row.name, t, err)
			}
			row.counts[t] = got
		}
	}
	return r, nil
}

func measure(ctx context.Context, s *site, w *work, t target, duration time.Duration) (sample, error) {
	var before, after [2]time.Duration
	read := func(into *[2]time.Duration) (err error) {
		if s.pids[t] != 0 {
			if into[0], err = cpuTime(s.pids[t]); err != nil {
				return err
			}
		}
		into[1], err = cpuTime(s.backends[w.backend])
		return err
	}
	d, err := drive(ctx, s, w, t, duration, func() error { return read(&before) })
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return sample{}, err
	}
	if err := read(&after); err != nil {
		return sample{}, err
	}
	each := func(sum time.Duration) time.Duration { return sum / time.Duration(max(d.all, 1)) }
	got := sample{
		rate: float64(d.all) / d.length.Seconds(), p50: d.p50, p99: d.p99,
		between: each(after[0] - before[0]), backend: each(after[1] - before[1]), clients: each(d.own),
	}
	if w.volume {
		got.rate = float64(d.bytes) / duration.Seconds() / 1e6
	}
	return got, nil
}

// drive lets the clients of a work do it for a while.
func drive(ctx context.Context, s *site, w *work, t target, duration time.Duration, between func() error) (done, error) {
	if err := s.settle(ctx, w.backend); err != nil {
		return done{}, err
	}
	var ops [][]op
	for slot := range w.clients {
		ops = append(ops, w.ops(w.backend, slot))
	}
	l, err := newLoad(s.endpoints[w.backend][t], ops)
	if err != nil {
		return done{}, err
	}
	defer l.close()
	return l.run(w.warmUp(t), duration, between)
}

// count counts system calls and allocations.
func count(ctx context.Context, s *site, w *work, t target, duration time.Duration) (counts, error) {
	got := counts{calls: -1, allocations: -1}
	pid := s.pids[t]
	if pid == 0 {
		return got, nil
	}
	var calls *callCounter
	var callsBefore uint64
	allocationsBefore, told := s.allocations(t)
	again, _ := s.allocations(t)
	asking := again - allocationsBefore // what it costs to ask
	d, err := drive(ctx, s, w, t, duration, func() (err error) {
		allocationsBefore, _ = s.allocations(t)
		if calls, err = countCalls(pid); err != nil {
			return err
		}
		callsBefore, err = calls.read()
		return err
	})
	if calls != nil {
		defer calls.close()
	}
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return got, err
	}
	callsAfter, err := calls.read()
	if err != nil {
		return got, err
	}
	// Clients end what they have begun, and that counts here.
	n := float64(max(d.all, 1))
	got.calls = float64(callsAfter-callsBefore) / n
	if told {
		after, _ := s.allocations(t)
		got.allocations = max(0, after-allocationsBefore-asking) / n
	}
	got.memory, err = readMemory(pid)
	return got, err
}
