package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

const (
	// settleTimeout is more than the proxy keeps idle connections for, and than
	// a health check waits whose handshake a fault has spoiled.
	settleTimeout = 90 * time.Second
	// spare is how many descriptors the proxy may have more than at its
	// beginning: what it opens when it needs it first.
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
	connections int // to backends
}

func (r *result) ok() bool { return len(r.problems) == 0 && len(r.Violations) == 0 }

// settle waits until the proxy has no connection to a backend and no server is
// left that has been replaced.
func (s *site) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		open, err := s.connections()
		old := s.daemon.predecessors()
		switch {
		case err != nil:
			return err
		case len(open) == 0 && len(old) == 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("connections to backends (%s) and %d servers that have been replaced are left %s after the last command",
				strings.Join(open, ", "), len(old), settleTimeout)
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// connections returns those of all backends that are open at both ends. A process
// without one does not count: Dovecot keeps it for the next.
func (s *site) connections() ([]string, error) {
	ports := make(map[string]string)
	for _, b := range s.backends {
		for _, addr := range []string{b.Addr, b.tlsAddr} {
			if _, port, err := net.SplitHostPort(addr); err == nil {
				number, err := strconv.Atoi(port)
				if err != nil {
					return nil, err
				}
				ports[fmt.Sprintf("%04X", number)] = b.Name
			}
		}
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil, err
	}
	return openAt(string(table), ports), nil
}

// openAt finds, in a table as proc_net(5) has it, the connections whose local end
// has one of the ports and whose other end has not been closed. Dovecot may
// leave its own open for as long as it waits for a lock.
func openAt(table string, ports map[string]string) []string {
	const established = "01"
	var open []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[3] != established {
			continue
		}
		_, port, _ := strings.Cut(fields[1], ":")
		if name := ports[port]; name != "" {
			open = append(open, name+" from "+fields[2])
		}
	}
	return open
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
				s.ledger.End(s.ledger.Begin(ledger.Window{Fault: "the machine stood still", Targets: []string{ledger.Proxy}, From: last, Machine: true}))
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
	open, err := s.connections()
	if err != nil {
		return nil, err
	}
	r.connections = len(open)
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
