// Package dovecot runs private instances of the real Dovecot, and the real
// doveadm command, for the project's tests, demonstration and benchmarks.
//
// An instance has its own directory, its own doveadm listener on a loopback
// port and its own password; several run side by side and beside a Dovecot of
// the system. It needs root, because Dovecot changes to the user whose mail it
// reads. Dovecot 2.3 is the one of Debian's packages (or what corresponds to
// them); Dovecot 2.4 runs in a folder that holds a small Debian of its own, see
// Version. Nothing here ever skips or fakes: what is missing is an error that
// names the command that installs it.
//
// The package depends on Linux (/proc, process groups).
package dovecot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// How long an instance may take before its start or its end counts as failed.
// Both normally need a tenth of a second; the rest is for machines that are
// busy with something else.
const (
	startTimeout  = 60 * time.Second
	reloadTimeout = 30 * time.Second
	stopTimeout   = 30 * time.Second
	killTimeout   = 30 * time.Second
)

// Options say what an instance is like. The zero value is an instance without
// users.
type Options struct {
	Version      Version  // V23 if empty
	Name         string   // part of the directory's name and of errors; "dovecot" if empty
	Users        []string // known to the instance; in lower case, because Dovecot looks them up so
	Password     string   // doveadm_password; a random one if empty
	Quota        string   // storage limit of each user in Dovecot's notation; "1G" if empty
	ProcessLimit int      // doveadm processes at the same time, each one connection; 0: Dovecot's 100
	Config       string   // lines at the end of the configuration, where they win; in the version's syntax, {{.Dir}} being the instance's directory
}

// Server is one instance of Dovecot. Its methods may be called from several
// goroutines; those that start and end processes wait for each other.
type Server struct {
	Version  Version
	Name     string
	Addr     string   // host:port of the doveadm listener, the same for life
	Password string   // doveadm_password
	Users    []string // as given in Options
	Dir      string   // everything that belongs to the instance, with its name outside any chroot; gone after Close
	Config   string   // path of dovecot.conf, in Dir; Restart and Reload read it again

	port  *Port
	guard *guard
	mails atomic.Int64 // number of the last message that SaveMail wrote

	mu  sync.Mutex // guards run, held while processes are started or ended
	run *run       // nil while the instance is stopped
}

// Start starts an instance and returns when it serves. ctx bounds the start,
// not the life of the instance. The caller ends it with Close; should the
// caller's process die before, the instance and its directory go as well.
func Start(ctx context.Context, opts Options) (*Server, error) {
	s := &Server{Version: opts.Version, Name: opts.Name, Password: opts.Password, Users: opts.Users}
	if s.Version == "" {
		s.Version = V23
	}
	if s.Name == "" {
		s.Name = "dovecot"
	}
	if s.Password == "" {
		s.Password = rand.Text()
	}
	if err := s.start(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("start dovecot instance %q: %w", s.Name, err), s.Close())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, opts Options) error {
	if os.Geteuid() != 0 {
		return errors.New("dovecot needs root to run as the users whose mail it reads: run this as root (sudo)")
	}
	if err := checkUsers(opts.Users); err != nil {
		return err
	}
	var err error
	if s.Dir, err = s.Version.MkdirTemp(s.Name); err != nil {
		return err
	}
	if s.guard, err = startGuard(s.Dir); err != nil {
		return errors.Join(err, os.Remove(s.Dir))
	}
	if s.port, err = ReservePort(); err != nil {
		return err
	}
	s.Addr = s.port.Addr
	s.Config = filepath.Join(s.Dir, "dovecot.conf")
	if err := s.writeFiles(opts); err != nil {
		return err
	}
	return s.Restart(ctx)
}

// Restart stops the instance if it runs and starts it again, on the same port
// and with the same mail. ctx bounds the start.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(); err != nil {
		return err
	}
	// A killed master leaves its pid file behind, and refuses to start if
	// another process got that number since.
	if err := os.Remove(filepath.Join(s.Dir, "run", "master.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	run, err := startRun(ctx, s.Version, s.Dir, s.Config)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.Log())
	}
	s.run = run
	return s.guard.watch(run.group)
}

// Stop ends the instance as systemd does: every process is told to terminate,
// commands that run may finish (Dovecot waits for them for about six seconds),
// whatever is left after that is killed. The port refuses connections
// afterwards. For a stop as by hand, which leaves processes with open
// connections behind, run Doveadm with "stop"; Stop, Kill, Restart and Close
// end those as well.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Server) stop() error {
	if s.run == nil {
		return nil
	}
	return s.ended(s.run.stop())
}

// Kill ends all processes of the instance at once (SIGKILL): connections break
// in the middle of whatever they are doing.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	return s.ended(s.run.kill())
}

// ended notes that a run is over. A run whose processes did not go away stays
// with the guard, which tries again at the end.
func (s *Server) ended(err error) error {
	if err == nil {
		err = s.guard.watch(0)
	}
	s.run = nil
	if err != nil {
		return fmt.Errorf("stop dovecot instance %q: %w", s.Name, err)
	}
	return nil
}

// Signal sends sig to all processes of the instance, for example SIGSTOP and
// SIGCONT: a stopped instance still accepts connections (the kernel does) and
// says nothing.
func (s *Server) Signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return fmt.Errorf("signal dovecot instance %q: it is stopped", s.Name)
	}
	return syscall.Kill(-s.run.group, sig)
}

// Reload makes the master read the configuration again and returns when it
// did. New connections get the new configuration; idle ones are closed by
// Dovecot six seconds later.
func (s *Server) Reload(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return fmt.Errorf("reload dovecot instance %q: it is stopped", s.Name)
	}
	if err := s.run.reload(ctx); err != nil {
		return fmt.Errorf("reload dovecot instance %q: %w", s.Name, err)
	}
	return nil
}

// Processes returns the process ids of the instance's processes of one name,
// as ps -o comm shows it ("doveadm-server", "auth", "dovecot" for the master),
// or of all of them if name is empty. Orphans of a stopped master count.
func (s *Server) Processes(name string) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	var pids []int
	for _, p := range processGroup(s.run.group) {
		if name == "" || p.name == name {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// Log returns what the instance has logged so far, over all its runs.
func (s *Server) Log() string {
	var log strings.Builder
	for _, name := range []string{"stderr.log", "dovecot.log"} {
		text, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			fmt.Fprintln(&log, err)
		}
		log.Write(text)
	}
	return log.String()
}

// WaitLog returns when the log contains text, or with an error that shows the
// log when ctx ends before.
func (s *Server) WaitLog(ctx context.Context, text string) error {
	err := poll(ctx, func() bool { return strings.Contains(s.Log(), text) })
	if err != nil {
		return fmt.Errorf("dovecot instance %q did not log %q: %w; its log:\n%s", s.Name, text, err, s.Log())
	}
	return nil
}

// Doveadm runs doveadm with the instance's own configuration, as its
// administrator would on that machine: it does not use the doveadm listener.
func (s *Server) Doveadm(ctx context.Context, args ...string) (Result, error) {
	config, err := s.Version.Inside(s.Config)
	if err != nil {
		return Result{}, err
	}
	cmd, err := Command(ctx, s.Version, "doveadm", append([]string{"-c", config}, args...)...)
	if err != nil {
		return Result{}, err
	}
	return Run(ctx, cmd)
}

// Client returns the doveadm command as a remote client of the instance, of the
// same version.
func (s *Server) Client() Client {
	return Client{Version: s.Version, Addr: s.Addr, Password: s.Password}
}

// Close kills the instance, removes its directory and gives the port back. It
// reports a master that had crashed unnoticed. A second Close does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if s.run != nil {
		errs = append(errs, s.ended(errors.Join(s.run.crashed(), s.run.kill())))
	}
	if s.port != nil {
		errs = append(errs, s.port.Close())
		s.port = nil
	}
	if s.guard != nil {
		errs = append(errs, s.guard.close())
		s.guard = nil
	}
	return errors.Join(errs...)
}
