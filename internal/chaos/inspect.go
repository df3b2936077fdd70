package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

const (
	// settleTimeout is more than the proxy keeps idle connections for.
	settleTimeout = 20 * time.Second
	// spare is how many descriptors the proxy may have more than at its
	// beginning: those of the runtime that it opens when it needs them first.
	spare = 2
)

// result is what is found at the end.
type result struct {
	*ledger.Report
	seed        uint64
	length      time.Duration
	commands    int
	problems    []string // of the proxy as a process
	memory      int64
	limit       int64
	descriptors [2]int // idle at the beginning, and at the end
	goroutines  int
	processes   int // doveadm-server, of all backends
}

func (r *result) ok() bool { return len(r.problems) == 0 && len(r.Violations) == 0 }

// warm lets each worker run a little without faults, and returns how many
// descriptors the proxy has when it has nothing to do.
func (s *site) warm(ctx context.Context) (int, error) {
	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Go(func() {
			few := *w
			few.perSession = min(w.perSession, 3)
			few.session(ctx)
		})
	}
	wg.Wait()
	if err := s.settle(ctx); err != nil {
		return 0, err
	}
	return s.daemon.descriptors()
}

// settle waits until no connection to a backend is left.
func (s *site) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for s.processes() > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("%d doveadm-server processes are left %s after the last command", s.processes(), settleTimeout)
		}
		pause(ctx, 50*time.Millisecond)
	}
	return nil
}

func (s *site) processes() int {
	n := 0
	for _, b := range s.backends {
		n += len(b.Processes("doveadm-server"))
	}
	return n
}

// watchMachine writes times into the books in which this very process got no
// time: then nothing that the clients saw is the proxy's fault alone.
func (s *site) watchMachine(ctx context.Context) (stop func()) {
	const (
		every = 20 * time.Millisecond
		much  = time.Second
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for last := time.Now(); ctx.Err() == nil; {
			pause(ctx, every)
			if late := time.Since(last); late > much {
				w := s.ledger.Begin(ledger.Window{Fault: "the machine stood still", Targets: []string{ledger.Proxy}})
				w.From = last
				s.ledger.End(w)
			}
			last = time.Now()
		}
	}()
	return func() { <-done }
}

// inspect compares everything with everything.
func (s *site) inspect(ctx context.Context, idle int) (*result, error) {
	r := &result{seed: s.seed, length: s.length, limit: s.memory, descriptors: [2]int{idle, 0}}
	problem := func(format string, args ...any) { r.problems = append(r.problems, fmt.Sprintf(format, args...)) }
	if err := s.daemon.alive(); err != nil {
		return nil, err
	}
	if err := s.settle(ctx); err != nil {
		problem("%v", err)
	}
	r.processes = s.processes()
	var err error
	for deadline := time.Now().Add(settleTimeout); ; pause(ctx, 50*time.Millisecond) {
		if r.descriptors[1], err = s.daemon.descriptors(); err != nil {
			return nil, err
		}
		if r.descriptors[1] <= idle+spare {
			break
		}
		if time.Now().After(deadline) {
			problem("the proxy has %d descriptors, and had %d when it had nothing to do", r.descriptors[1], idle)
			break
		}
	}
	left, all, err := s.daemon.goroutines()
	if err != nil {
		return nil, err
	}
	r.goroutines = all
	if len(left) > 0 {
		slices.Sort(left)
		problem("goroutines are left: %s", strings.Join(slices.Compact(left), ", "))
	}
	if r.memory = s.daemon.highest; r.memory > s.memory {
		problem("the proxy has used %d MiB of memory, more than %d MiB", r.memory>>20, s.memory>>20)
	}
	bugs, err := s.daemon.bugs()
	if err != nil {
		return nil, err
	}
	for _, line := range bugs {
		problem("in the log: %s", line)
	}
	mail := make(ledger.Mail)
	for _, b := range s.backends {
		if err := b.find(mail); err != nil {
			return nil, err
		}
	}
	r.Report = s.ledger.Judge(mail)
	r.commands = r.Total.Commands
	return r, nil
}
