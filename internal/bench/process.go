package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// watchEvery is rare enough for the watching not to show in the figures,
	// and often enough to see what lasts.
	watchEvery = 50 * time.Millisecond
	// settleTimeout is far more than the processes of closed connections take
	// to end.
	settleTimeout = 20 * time.Second
	// tick is the unit of CPU times in /proc: USER_HZ is 100 on all
	// architectures that Dovecot is packaged for.
	tick = time.Second / 100
)

// usage is CPU time used so far.
type usage struct {
	dovecot, proxy time.Duration
}

func readUsage(s *site) (usage, error) {
	proxy, err := readStat(s.proxy.Process.Pid)
	if err != nil {
		return usage{}, fmt.Errorf("CPU time of the proxy: %w", err)
	}
	u := usage{proxy: proxy.own}
	for _, pid := range s.masters {
		master, processes, err := family(pid)
		if err != nil {
			return usage{}, err
		}
		// The master inherits what those used that have ended.
		u.dovecot += master.own + master.ended
		for _, p := range processes {
			u.dovecot += p.own
		}
	}
	return u, nil
}

// watchProcesses counts the doveadm-server processes of each backend until
// stop, which returns the highest number seen at one of them.
func watchProcesses(s *site) (stop func() (int, error)) {
	quit, done := make(chan struct{}), make(chan struct{})
	var highest int
	var err error
	go func() {
		defer close(done)
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for err == nil {
			var n int
			n, err = mostProcesses(s)
			highest = max(highest, n)
			select {
			case <-ticker.C:
			case <-quit:
				return
			}
		}
	}()
	return func() (int, error) {
		close(quit)
		<-done
		return highest, err
	}
}

// settle waits until nothing is left at the backends of the measurement before
// but what the proxy keeps open, and returns how many processes of one backend
// that is at most.
func settle(ctx context.Context, s *site) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		n, err := mostProcesses(s)
		if err != nil || n <= maxIdle {
			return n, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return n, fmt.Errorf("a backend still has %d doveadm-server processes, and should have %d at most when no client is left: %w", n, maxIdle, ctx.Err())
		}
	}
}

func mostProcesses(s *site) (int, error) {
	most := 0
	for _, pid := range s.masters {
		_, processes, err := family(pid)
		if err != nil {
			return 0, err
		}
		n := 0
		for _, p := range processes {
			if p.name == "doveadm-server" && p.state != "Z" {
				n++
			}
		}
		most = max(most, n)
	}
	return most, nil
}

// family returns the master of a backend and its processes, all of which are
// its children. That costs much less than a look at all processes of the
// system.
func family(pid int) (master stat, processes []stat, err error) {
	if master, err = readStat(pid); err != nil {
		return master, nil, err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return master, nil, fmt.Errorf("%w (the kernel needs CONFIG_PROC_CHILDREN)", err)
	}
	for text := range strings.FieldsSeq(string(children)) {
		child, err := strconv.Atoi(text)
		if err != nil {
			return master, nil, err
		}
		p, err := readStat(child)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended meanwhile
		}
		if err != nil {
			return master, nil, err
		}
		processes = append(processes, p)
	}
	return master, processes, nil
}

// stat is what is wanted of /proc/PID/stat.
type stat struct {
	name       string // at most 15 bytes, as the kernel keeps it
	state      string
	own, ended time.Duration // CPU time of the process, and of its children that have ended
}

func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(text))
}

// parseStat reads what proc_pid_stat(5) describes: "PID (NAME) STATE ...",
// where the name may contain anything.
func parseStat(text string) (stat, error) {
	const state, utime, cutime = 3, 14, 16 // numbers of fields, as in the manual
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("no name in the process state %q", text)
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) <= cutime+1-state {
		return stat{}, fmt.Errorf("too few fields in the process state %q", text)
	}
	// User and system time stand side by side.
	sum := func(field int) (time.Duration, error) {
		user, errUser := strconv.ParseInt(fields[field-state], 10, 64)
		system, errSystem := strconv.ParseInt(fields[field+1-state], 10, 64)
		return time.Duration(user+system) * tick, errors.Join(errUser, errSystem)
	}
	own, errOwn := sum(utime)
	ended, errEnded := sum(cutime)
	return stat{name: text[open+1 : end], state: fields[0], own: own, ended: ended}, errors.Join(errOwn, errEnded)
}

// memory is what /proc/PID/status says about resident memory, in bytes.
type memory struct {
	highest, now int64
}

func readMemory(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	return parseStatus(string(text))
}

func parseStatus(text string) (memory, error) {
	var m memory
	for line := range strings.Lines(text) {
		var bytes *int64
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "VmHWM":
			bytes = &m.highest
		case "VmRSS":
			bytes = &m.now
		default:
			continue
		}
		var kib int64
		if _, err := fmt.Sscanf(line[len("VmXXX:"):], "%d kB", &kib); err != nil {
			return m, fmt.Errorf("process status %q: %w", line, err)
		}
		*bytes = kib << 10
	}
	if m.highest == 0 || m.now == 0 {
		return m, errors.New("a process status without VmHWM or VmRSS")
	}
	return m, nil
}
