package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of CPU times in /proc/PID/stat: USER_HZ is 100 on all
// architectures that Dovecot is packaged for.
const tick = time.Second / 100

// cpuTime returns the CPU time that a process and its children have used,
// those that have ended too.
func cpuTime(pid int) (time.Duration, error) {
	self, children, err := family(pid)
	if err != nil {
		return 0, err
	}
	sum := self.ended
	for _, p := range append(children, pid) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
		if err != nil {
			return 0, err
		}
		for _, path := range threads {
			// "CPU-TIME WAIT-TIME TIMESLICES", in nanoseconds.
			text, err := os.ReadFile(path)
			if ended(err) {
				continue
			}
			if err != nil {
				return 0, err
			}
			first, _, _ := strings.Cut(string(text), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}

// ended reports whether err is that of a process that has ended meanwhile.
func ended(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// family returns a process and the numbers of its children. That costs much
// less than a look at all processes of the system.
func family(pid int) (self stat, children []int, err error) {
	if self, err = readStat(pid); err != nil {
		return self, nil, err
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(tasks) == 0 {
		return self, nil, fmt.Errorf("no children of process %d in /proc (the kernel needs CONFIG_PROC_CHILDREN)", pid)
	}
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if ended(err) {
			continue
		}
		if err != nil {
			return self, nil, err
		}
		for word := range strings.FieldsSeq(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return self, nil, err
			}
			children = append(children, child)
		}
	}
	return self, children, nil
}

// countProcesses returns how many children of pid have that name.
func countProcesses(pid int, name string) (int, error) {
	_, children, err := family(pid)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, child := range children {
		p, err := readStat(child)
		if err != nil && !ended(err) {
			return 0, err
		}
		if err == nil && p.name == name && p.state != "Z" {
			n++
		}
	}
	return n, nil
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

// readMemory returns that of a process and its children.
func readMemory(pid int) (memory, error) {
	_, children, err := family(pid)
	if err != nil {
		return memory{}, err
	}
	var sum memory
	for _, p := range append(children, pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if ended(err) {
			continue
		}
		if err != nil {
			return memory{}, err
		}
		m, err := parseStatus(string(text))
		if err != nil && p != pid {
			continue // a child that has ended has none
		}
		if err != nil {
			return memory{}, err
		}
		sum.highest += m.highest
		sum.now += m.now
	}
	return sum, nil
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

// callCounter counts the system calls of processes.
type callCounter struct{ fds []int }

// countCalls begins to count those of a process and its children, all of their
// threads and what those start. It makes each system call on the machine a
// little slower while it lasts.
func countCalls(pid int) (*callCounter, error) {
	const event = "events/raw_syscalls/sys_enter/id"
	var text []byte
	var err error
	for _, dir := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		if text, err = os.ReadFile(filepath.Join(dir, event)); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("count system calls: %w", err)
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, err
	}
	_, pids, err := family(pid)
	if err != nil {
		return nil, err
	}
	c := &callCounter{}
	for _, p := range append(pids, pid) {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p))
		if err != nil && !ended(err) {
			return nil, errors.Join(err, c.close())
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return nil, errors.Join(err, c.close())
			}
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit}
			attr.Size = uint32(binary.Size(attr))
			fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
			if err == unix.ESRCH {
				continue
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("perf_event_open: %w", err), c.close())
			}
			c.fds = append(c.fds, fd)
		}
	}
	return c, nil
}

// read returns how many there were since the beginning.
func (c *callCounter) read() (uint64, error) {
	var sum uint64
	for _, fd := range c.fds {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			return 0, fmt.Errorf("count system calls: %w", err)
		}
		sum += binary.NativeEndian.Uint64(b[:])
	}
	return sum, nil
}

func (c *callCounter) close() error {
	var errs []error
	for _, fd := range c.fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
