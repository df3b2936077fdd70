package dovecot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// run is one life of an instance: a master process, which leads a process
// group of its own, and all that descends from it. Dovecot's processes stay in
// the group of their master, also when they outlive it.
type run struct {
	group  int           // process group, the pid of the master
	notify *net.UnixConn // the master reports its state here, as it does to systemd
	exited chan struct{} // closed when the master is gone; err is set then
	err    error
}

// startRun starts a master and returns when it serves.
func startRun(ctx context.Context, version Version, dir, config string) (*run, error) {
	config, err := version.Inside(config)
	if err != nil {
		return nil, err
	}
	// A name in Linux's abstract namespace is the same in a chroot.
	socket := "@dovecot-notify-" + rand.Text()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	// What the master says before it has a log: a bad configuration, mostly.
	stderr, err := os.OpenFile(filepath.Join(dir, "stderr.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	defer stderr.Close()

	// The life of the instance is not the caller's context.
	cmd, err := Command(context.WithoutCancel(ctx), version, "dovecot", "-F", "-c", config)
	if err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+socket)
	cmd.Stderr = stderr
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, notify.Close())
	}
	r := &run{group: cmd.Process.Pid, notify: notify, exited: make(chan struct{})}
	go r.wait(cmd)
	if err := r.ready(ctx, startTimeout); err != nil {
		return nil, errors.Join(err, r.kill())
	}
	return r, nil
}

// wait reaps the master. Closing the notify socket ends a ready that waits.
func (r *run) wait(cmd *exec.Cmd) {
	r.err = cmd.Wait()
	r.notify.Close()
	close(r.exited)
}

// ready waits for the master's word that it serves: all its sockets listen.
// Connecting to find out would leave a doveadm process and a log line behind.
func (r *run) ready(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { r.notify.SetReadDeadline(time.Now()) })
	defer stop()
	message := make([]byte, 4096)
	for {
		n, err := r.notify.Read(message)
		switch {
		case errors.Is(err, net.ErrClosed):
			<-r.exited
			return fmt.Errorf("the master ended: %v", r.err)
		case ctx.Err() != nil:
			return fmt.Errorf("the master did not report that it is ready: %w", ctx.Err())
		case err != nil:
			return err
		case strings.Contains(string(message[:n]), "READY=1"):
			return nil
		}
	}
}

func (r *run) reload(ctx context.Context) error {
	if err := syscall.Kill(r.group, syscall.SIGHUP); err != nil {
		return err
	}
	return r.ready(ctx, reloadTimeout)
}

// crashed returns the error of a master that has ended by itself, other than
// by being told to.
func (r *run) crashed() error {
	select {
	case <-r.exited:
		if r.err != nil {
			return fmt.Errorf("the master had ended before: %w", r.err)
		}
	default:
	}
	return nil
}

// stop ends the run in order.
func (r *run) stop() error {
	if err := r.crashed(); err != nil {
		return errors.Join(err, r.kill())
	}
	// Processes that SIGSTOP holds would not hear SIGTERM.
	for _, sig := range []syscall.Signal{syscall.SIGCONT, syscall.SIGTERM} {
		if err := syscall.Kill(-r.group, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return errors.Join(err, r.kill())
		}
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-r.exited:
		return errors.Join(r.err, r.kill())
	case <-timeout.C:
		return errors.Join(fmt.Errorf("the master was still running %s after SIGTERM", stopTimeout), r.kill())
	}
}

// kill ends every process of the run and returns when they are gone.
func (r *run) kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	err := poll(ctx, func() bool {
		// Each time again: a process that was just being forked is in the
		// group only now.
		syscall.Kill(-r.group, syscall.SIGKILL)
		return len(processGroup(r.group)) == 0
	})
	if err != nil {
		return fmt.Errorf("process group %d survives SIGKILL: %w", r.group, err)
	}
	<-r.exited
	return nil
}

// poll returns nil as soon as done says so, or ctx's error. It is for what
// Linux gives no event for: the end of a process that is not a child.
func poll(ctx context.Context, done func() bool) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
	return nil
}
