package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemonTimeout is far more than the proxy takes to start and to end.
const daemonTimeout = 30 * time.Second

// daemon is the proxy's process, one after the other. Its listening sockets
// are kept here, as systemd keeps them, so that no connection is refused in
// between. The process that is started here supervises the server.
type daemon struct {
	binary, config string
	log            string // path; all of them write there
	names          []string
	sockets        []*os.File

	cmd    *exec.Cmd
	exited chan error
	server int // process id
	old    []int

	highest int64 // VmHWM in bytes of those that have ended
}

// listen opens the socket of a listener and returns its address.
func (d *daemon) listen(name string) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return "", err
	}
	d.names, d.sockets = append(d.names, name), append(d.sockets, f)
	return l.Addr().String(), nil
}

func (d *daemon) start(ctx context.Context) error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	before, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	// See sd_listen_fds(3): the variable has to name the process itself.
	d.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", d.binary, "serve", "--overlap", "--config", d.config)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.ExtraFiles = d.sockets
	d.cmd.Env = append(os.Environ(),
		fmt.Sprintf("LISTEN_FDS=%d", len(d.sockets)), "LISTEN_FDNAMES="+strings.Join(d.names, ":"),
		// The released binary is static and resolves names itself; one with
		// the race detector would ask the C library.
		"GODEBUG=netdns=go")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		d.cmd = nil
		return fmt.Errorf("start the proxy: %w (make build builds it)", err)
	}
	d.exited = make(chan error, 1)
	go func(cmd *exec.Cmd, exited chan<- error) { exited <- cmd.Wait() }(d.cmd, d.exited)

	ctx, cancel := context.WithTimeout(ctx, daemonTimeout)
	defer cancel()
	for {
		text, err := d.since(before)
		if err != nil {
			return err
		}
		if found := readyLine.FindSubmatch(text); found != nil {
			d.server, err = strconv.Atoi(string(found[1]))
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case err := <-d.exited:
			d.cmd = nil
			return fmt.Errorf("the proxy ended instead of serving (%v); its output:\n%s", err, d.tail())
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not say that it is ready: %w; its output:\n%s", ctx.Err(), d.tail())
		}
	}
}

// readyLine is what a server says when it serves.
var readyLine = regexp.MustCompile(`ready: .*pid=(\d+)`)

// end signals the process and returns when it has ended. After SIGTERM, which
// it must heed, the server goes on with what it has.
func (d *daemon) end(sig syscall.Signal) error {
	if d.cmd == nil {
		return nil
	}
	if m, err := readMemory(d.server); err == nil {
		d.highest = max(d.highest, m)
	}
	to := d.cmd.Process.Pid
	switch sig {
	case syscall.SIGKILL:
		to = -to // the server with it
	case syscall.SIGQUIT:
		to = d.server
	}
	if err := syscall.Kill(to, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	timeout := time.NewTimer(daemonTimeout)
	defer timeout.Stop()
	var late error
	select {
	case <-d.exited:
	case <-timeout.C:
		late = fmt.Errorf("the proxy was still running %s after %s; the end of its log:\n%s", daemonTimeout, sig, d.tail())
		syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.exited
	}
	state := d.cmd.ProcessState
	d.cmd, d.old = nil, append(d.old, d.server)
	if late == nil && sig == syscall.SIGTERM && !state.Success() {
		return fmt.Errorf("the proxy ended with %s after %s; the end of its log:\n%s", state, sig, d.tail())
	}
	return late
}

// tell has the proxy's own command line change the state of a backend.
func (d *daemon) tell(ctx context.Context, verb, backend string) error {
	cmd := exec.CommandContext(ctx, d.binary, verb, "--admin", "unix:"+filepath.Join(filepath.Dir(d.config), "admin.sock"), backend)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

// predecessors returns servers that have been replaced and go on.
func (d *daemon) predecessors() []int {
	return slices.DeleteFunc(slices.Clone(d.old), func(pid int) bool {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || len(name) == 0 // gone, or a zombie
	})
}

// close ends what is left.
func (d *daemon) close() error {
	err := d.end(syscall.SIGKILL)
	for _, pid := range d.predecessors() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, f := range d.sockets {
		f.Close()
	}
	return err
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

// since returns the log from there on.
func (d *daemon) since(offset int64) ([]byte, error) {
	f, err := os.Open(d.log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
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
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.server))
	return len(open), err
}

// goroutines ends the process with a dump of its goroutines and returns those
// that belong to a session, a command or a dial, by the first function of ours.
func (d *daemon) goroutines() (left []string, all int, err error) {
	before, err := os.Stat(d.log)
	if err != nil {
		return nil, 0, err
	}
	if err := d.end(syscall.SIGQUIT); err != nil {
		return nil, 0, err
	}
	text, err := d.since(before.Size())
	if err != nil {
		return nil, 0, err
	}
	left, all = parseDump(text)
	if all == 0 {
		return nil, 0, errors.New("the proxy left no dump of its goroutines")
	}
	return left, all, nil
}

// busy are functions that run for a session, a command or a dial. Health checks
// go on whatever clients do.
var busy = regexp.MustCompile(`proxy\.\(\*(session|task|relay|spool|output)\)|pool\.\(\*Pool\)\.dialOne|doveadm\.\(\*(ClientConn|ServerConn)\)`)

func parseDump(dump []byte) (left []string, all int) {
	for block := range bytes.SplitSeq(dump, []byte("\n\n")) {
		block = bytes.TrimLeft(block, "\n")
		if !bytes.HasPrefix(block, []byte("goroutine ")) {
			continue
		}
		all++
		if found := busy.Find(block); found != nil && !bytes.Contains(block, []byte("pool.(*checker)")) {
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
