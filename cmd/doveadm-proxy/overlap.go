package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
)

// With serve --overlap there are two processes. The one that systemd knows,
// the parent, does nothing but start the other one, the server, and pass it
// signals. Told to stop, the server lets go of its listeners and says so; the
// parent ends at once, and so systemd starts the next one while the sessions
// of the old server go on until they are done.

// serverFD is the variable that tells a server the descriptor of its
// connection to the parent.
const serverFD = "DOVEADM_PROXY_SERVER_FD"

// abortTime is what a server has to write down what it was doing.
const abortTime = 5 * time.Second

// superviseServer runs the server and returns when it has ended or has let go
// of its listeners.
func superviseServer(stderr io.Writer, signals <-chan os.Signal) error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return &exitError{exitTempFail, err}
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "parent"), os.NewFile(uintptr(pair[1]), "server")
	defer ours.Close()
	path, err := os.Executable()
	if err != nil {
		return &exitError{exitTempFail, err}
	}
	cmd := exec.Command(path, os.Args[1:]...)
	cmd.Stderr = stderr
	cmd.ExtraFiles = append(activation.Files(false), theirs)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", serverFD, 2+len(cmd.ExtraFiles)))
	err = cmd.Start()
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if err != nil {
		return &exitError{exitTempFail, fmt.Errorf("start the server: %w", err)}
	}

	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	released := make(chan struct{})
	go func() {
		// The end of the stream says nothing: the server has ended, or will.
		if n, _ := ours.Read(make([]byte, 1)); n > 0 {
			close(released)
		}
	}()
	for {
		select {
		case sig := <-signals:
			cmd.Process.Signal(sig)
			if sig == syscall.SIGABRT { // the watchdog's: it serves nobody any more
				kill := time.AfterFunc(abortTime, func() { cmd.Process.Kill() })
				err := <-ended
				kill.Stop()
				return serverEnded(err)
			}
		case <-released:
			return nil
		case err := <-ended:
			return serverEnded(err)
		}
	}
}

// serverEnded ends the parent as the server ended.
func serverEnded(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.Exited() && exit.ExitCode() != exitUsage:
		return &exitError{code: exit.ExitCode()} // it has said why
	}
	// Go ends with 2 after a panic or SIGABRT. The command line was good.
	return &exitError{exitTempFail, fmt.Errorf("the server ended: %w", err)}
}

// parent is the server's view of the process that supervises it.
type parent struct {
	conn net.Conn
	gone chan struct{} // closed when it has ended, however that happened
}

// findParent returns the parent, nil if this process is no server of
// serve --overlap.
func findParent() (*parent, error) {
	text := os.Getenv(serverFD)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(serverFD)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", serverFD, text, err)
	}
	f := os.NewFile(uintptr(fd), "parent")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", serverFD, err)
	}
	// What systemd meant for the parent is for us.
	for _, name := range []string{"LISTEN_PID", "WATCHDOG_PID"} {
		if os.Getenv(name) != "" {
			os.Setenv(name, strconv.Itoa(os.Getpid()))
		}
	}
	p := &parent{conn: conn, gone: make(chan struct{})}
	go func() {
		conn.Read(make([]byte, 1))
		close(p.gone)
	}()
	return p, nil
}

// release lets the parent end.
func (p *parent) release() { p.conn.Write([]byte{1}) }
