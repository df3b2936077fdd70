package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemonTimeout is far more than the proxy takes to start and to end.
const daemonTimeout = 30 * time.Second

// daemon is the proxy's process, one after the other.
type daemon struct {
	binary, config string
	addr           string // of a listener, to see when it serves
	log            string // path; all of them write there
	cmd            *exec.Cmd
	exited         chan error

	highest int64 // VmHWM in bytes of those that have ended
}

func (d *daemon) start(ctx context.Context) error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.binary, "serve", "--config", d.config)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// The released binary is static and resolves names itself; one with the
	// race detector would ask the C library.
	d.cmd.Env = append(os.Environ(), "GODEBUG=netdns=go")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return fmt.Errorf("start the proxy: %w (make build builds it)", err)
	}
	d.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(d.cmd, d.exited)

	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	for {
		nc, err := net.Dial("tcp", d.addr)
		if err == nil {
			return nc.Close()
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case err := <-d.exited:
			d.cmd = nil
			return fmt.Errorf("the proxy ended instead of serving (%v); its output:\n%s", err, d.tail())
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not accept connections: %w; its output:\n%s", ctx.Err(), d.tail())
		}
	}
}

// end signals the process and returns when it has ended, with its exit code as
// an error that is nil for want.
func (d *daemon) end(sig syscall.Signal, want int) error {
	if d.cmd == nil {
		return nil
	}
	if m, err := readMemory(d.cmd.Process.Pid); err == nil {
		d.highest = max(d.highest, m)
	}
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(daemonTimeout)
	defer timeout.Stop()
	select {
	case <-d.exited:
	case <-timeout.C:
		d.cmd.Process.Kill()
		<-d.exited
		d.cmd = nil
		return fmt.Errorf("the proxy was still running %s after %s; the end of its log:\n%s", daemonTimeout, sig, d.tail())
	}
	state := d.cmd.ProcessState
	d.cmd = nil
	if status := state.Sys().(syscall.WaitStatus); sig != syscall.SIGKILL && status.ExitStatus() != want {
		return fmt.Errorf("the proxy ended with %s after %s; the end of its log:\n%s", state, sig, d.tail())
	}
	return nil
}

// alive returns an error if the process has ended by itself.
func (d *daemon) alive() error {
	select {
	case err := <-d.exited:
		d.exited <- err
		return fmt.Errorf("the proxy has ended by itself: %v; the end of its log:\n%s", err, d.tail())
	default:
		return nil
	}
}

// tail returns the end of the log.
func (d *daemon) tail() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	const most = 8000
	return string(text[max(0, len(text)-most):])
}

// bugs returns the lines of the log that no fault excuses.
func (d *daemon) bugs() ([]string, error) {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		for _, bad := range []string{"DATA RACE", "panic:", "panic=", "fatal error:", "ended by a bug"} {
			if strings.Contains(line, bad) {
				found = append(found, strings.TrimSpace(line))
			}
		}
	}
	return found, nil
}

// descriptors counts the open files of the process.
func (d *daemon) descriptors() (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	return len(open), err
}

// goroutines ends the process with a dump of its goroutines and returns those
// that belong to a session, a command or a dial, by the first function of ours.
func (d *daemon) goroutines() (left []string, all int, err error) {
	before, err := os.Stat(d.log)
	if err != nil {
		return nil, 0, err
	}
	const exitByQuit = 2
	if err := d.end(syscall.SIGQUIT, exitByQuit); err != nil {
		return nil, 0, err
	}
	text, err := os.ReadFile(d.log)
	if err != nil {
		return nil, 0, err
	}
	left, all = parseDump(text[before.Size():])
	if all == 0 {
		return nil, 0, errors.New("the proxy left no dump of its goroutines")
	}
	return left, all, nil
}

// busy are functions that run for a session, a command or a dial.
var busy = regexp.MustCompile(`proxy\.\(\*(session|task|relay|spool|output)\)|pool\.\(\*Pool\)\.dialOne|doveadm\.\(\*(ClientConn|ServerConn)\)`)

func parseDump(dump []byte) (left []string, all int) {
	for block := range bytes.SplitSeq(dump, []byte("\n\n")) {
		block = bytes.TrimLeft(block, "\n")
		if !bytes.HasPrefix(block, []byte("goroutine ")) {
			continue
		}
		all++
		if found := busy.Find(block); found != nil {
			left = append(left, string(found))
		}
	}
	return left, all
}

// readMemory returns VmHWM of a process in bytes.
func readMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(text), "VmHWM:")
	if !ok {
		return 0, errors.New("a process status without VmHWM")
	}
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, err := strconv.ParseInt(number, 10, 64)
	return kib << 10, err
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
