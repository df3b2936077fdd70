// Package service runs private instances of daemons for tests: databases and
// directories that routes ask. Each has a directory and a loopback port of its
// own, and runs beside one of the system. What is missing is an error that names
// the command which installs it.
//
// The package depends on Linux (process groups).
package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// How long a start or an end may take before it counts as failed. Both need a
// second at most; the rest is for machines that are busy with something else.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 20 * time.Second
)

// Options say what a service is like.
type Options struct {
	Name    string // of the program and of its directory
	User    string // the account it runs as; empty: our own
	Package string // of Debian that has it

	// Prepare writes what the service needs into Dir, once.
	Prepare func(ctx context.Context, s *Service) error
	// Command is the program with its arguments. It stays in the foreground.
	Command func(s *Service) []string
	// Ready returns nil if the service serves. It is asked until then.
	Ready func(ctx context.Context, s *Service) error
	// Stop ends the service in order and at once.
	Stop syscall.Signal
}

// Service is a daemon. Its methods may be called from several goroutines.
type Service struct {
	Addr string // host:port, the same for life
	Port string
	Dir  string // everything that belongs to it; gone after Close

	options    Options
	credential *syscall.Credential
	port       *dovecot.Port
	guard      *exec.Cmd
	guarded    io.WriteCloser

	mu     sync.Mutex
	cmd    *exec.Cmd // nil while it is stopped
	exited chan struct{}
}

// Start starts a service and returns when it serves. The caller ends it with
// Close; should the caller's process die before, it ends as well.
func Start(ctx context.Context, o Options) (*Service, error) {
	s := &Service{options: o}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", o.Name, err), s.Close())
	}
	return s, nil
}

func (s *Service) start(ctx context.Context) error {
	if s.options.User != "" {
		if err := s.become(s.options.User); err != nil {
			return err
		}
	}
	var err error
	// Short, because the paths of UNIX sockets may not be long.
	if s.Dir, err = os.MkdirTemp("/tmp", s.options.Name); err != nil {
		return err
	}
	if err := s.Own(s.Dir); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	if s.port, err = dovecot.ReservePort(); err != nil {
		return err
	}
	s.Addr = s.port.Addr
	_, s.Port, _ = net.SplitHostPort(s.Addr)
	if err := s.options.Prepare(ctx, s); err != nil {
		return err
	}
	return s.Restart(ctx)
}

// become looks the account up that the service runs as.
func (s *Service) become(name string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("it runs as the user %s: run this as root (sudo)", name)
	}
	account, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("%w: apt-get install --yes %s", err, s.options.Package)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return err
	}
	s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// Own gives a file to the account that the service runs as.
func (s *Service) Own(path string) error {
	if s.credential == nil {
		return nil
	}
	return os.Chown(path, int(s.credential.Uid), int(s.credential.Gid))
}

// WriteFile writes a file that only the service reads.
func (s *Service) WriteFile(name, content string) (path string, err error) {
	path = filepath.Join(s.Dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return "", err
	}
	return path, s.Own(path)
}

// guardScript reads the process to look after, line by line. At the end of its
// input, which comes also when its writer is killed, it ends that process and
// removes the directory.
const guardScript = `
trap '' HUP INT TERM
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
	kill -s "$2" "$pid" 2>/dev/null
	n=0
	while kill -s 0 "$pid" 2>/dev/null && [ $n -lt 50 ]; do n=$((n+1)); sleep 0.1; done
	kill -s KILL -- "-$pid" 2>/dev/null
fi
rm -rf -- "$1" 2>/dev/null || rm -rf -- "$1"
`

func (s *Service) watch() error {
	s.guard = exec.Command("/bin/sh", "-c", guardScript, "guard", s.Dir, strconv.Itoa(int(s.options.Stop)))
	s.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // out of reach of a Ctrl-C
	var err error
	if s.guarded, err = s.guard.StdinPipe(); err != nil {
		return err
	}
	return s.guard.Start()
}

// Program finds a program of the service's package; some are not on the PATH.
func (s *Service) Program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, pattern := range []string{"/usr/sbin/", "/usr/local/sbin/", "/usr/lib/postgresql/*/bin/"} {
		found, _ := filepath.Glob(pattern + name)
		if len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s is not installed: apt-get install --yes %s", name, s.options.Package)
}

// Run runs a program of the service's package to its end, as its account.
func (s *Service) Run(ctx context.Context, stdin string, name string, args ...string) error {
	cmd, err := s.command(ctx, name, args...)
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(stdin)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(output))
	}
	return nil
}

func (s *Service) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	path, err := s.Program(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = s.Dir
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "TZ=UTC", "HOME=" + s.Dir, "TMPDIR=" + s.Dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential, Setpgid: true}
	return cmd, nil
}

// Restart stops the service if it runs and starts it again, with the same data
// on the same port. ctx bounds the start.
func (s *Service) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(); err != nil {
		return err
	}
	words := s.options.Command(s)
	cmd, err := s.command(context.WithoutCancel(ctx), words[0], words[1:]...)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, "output.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		cmd.Wait()
		close(exited)
	}(s.exited)
	if _, err := fmt.Fprintln(s.guarded, cmd.Process.Pid); err != nil {
		return err
	}
	return s.ready(ctx)
}

func (s *Service) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := s.options.Ready(ctx, s)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended: %s", s.Log())
		case <-ctx.Done():
			return fmt.Errorf("it does not serve after %s: %w\n%s", startTimeout, err, s.Log())
		case <-ticker.C:
		}
	}
}

// Stop ends the service. Its port refuses connections afterwards.
func (s *Service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Service) stop() error {
	if s.cmd == nil {
		return nil
	}
	pid := s.cmd.Process.Pid
	s.cmd.Process.Signal(s.options.Stop)
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	var err error
	select {
	case <-s.exited:
	case <-late.C:
		err = fmt.Errorf("stop %s: it still ran after %s", s.options.Name, stopTimeout)
	}
	syscall.Kill(-pid, syscall.SIGKILL) // what is left of its group
	<-s.exited
	s.cmd = nil
	_, guard := fmt.Fprintln(s.guarded)
	return errors.Join(err, guard)
}

// Log returns what the service has said.
func (s *Service) Log() string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "output.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Close ends the service and removes its directory. A second Close does nothing.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.stop()}
	if s.port != nil {
		errs = append(errs, s.port.Close())
		s.port = nil
	}
	if s.guard != nil {
		s.guarded.Close()
		if s.guard.Process != nil {
			errs = append(errs, s.guard.Wait())
		}
		s.guard = nil
	}
	return errors.Join(errs...)
}
