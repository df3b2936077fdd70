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
	"strconv"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

const (
	backends        = 3
	usersPerBackend = 10
	mailsPerUser    = 10

	// maxIdle is the proxy's default of max_idle: so many connections to each
	// backend it may keep while nobody uses them.
	maxIdle = 8
	// maxClients can have a direct connection each: Dovecot's process_limit
	// is 100.
	maxClients = backends * (100 - maxIdle)

	// The proxy starts and ends in a fraction of a second.
	proxyTimeout = 15 * time.Second
)

// site is the backends and the proxy in front of them. The proxy has the
// settings that it has if nothing else is said: its pool, its log (into a
// file), and a password that is hashed as "doveadm-proxy hash" does it.
type site struct {
	dir     string // of the proxy
	servers []*dovecot.Server
	masters []int         // process ids of the servers' masters
	port    *dovecot.Port // of the proxy
	proxy   *exec.Cmd
	exited  chan error // gets the proxy's end

	endpoints [2][]endpoint // by way and by backend
}

// way is one of the two ways to the users' mail.
type way int

const (
	direct  way = iota // to the backend that has it
	proxied            // through the proxy
)

func (w way) String() string {
	if w == direct {
		return "directly at the user's backend"
	}
	return "through the proxy"
}

// endpoint is something to connect to.
type endpoint struct {
	addr, password string
}

var configTemplate = template.Must(template.New("config").Parse(`listener "main" {
  address = "{{.Addr}}"
}

client "doveadm" {
  password = "{{.Hash}}"
}
{{range .Servers}}
shard "{{.Name}}" {
  backend "{{.Name}}" {
    address  = "{{.Addr}}"
    password = "{{.Password}}"
  }
}

route "match" {
  users = ["*@{{.Name}}"]
  shard = "{{.Name}}"
}
{{end}}`))

// startSite starts everything. On an error nothing is left.
func startSite(ctx context.Context, binary string) (*site, error) {
	s := &site{}
	if err := s.start(ctx, binary); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) start(ctx context.Context, binary string) error {
	for n := range backends {
		name := fmt.Sprintf("mail%d", n+1)
		var users []string
		for u := range usersPerBackend {
			users = append(users, fmt.Sprintf("user%d@%s", u+1, name))
		}
		server, err := dovecot.Start(ctx, dovecot.Options{Name: name, Users: users})
		if err != nil {
			return err
		}
		s.servers = append(s.servers, server)
		if err := server.Seed(mailsPerUser); err != nil {
			return err
		}
		master, err := os.ReadFile(filepath.Join(server.Dir, "run", "master.pid"))
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(master)))
		if err != nil {
			return err
		}
		s.masters = append(s.masters, pid)
	}
	var err error
	if s.dir, err = os.MkdirTemp("/tmp", "bench-"); err != nil {
		return err
	}
	if s.port, err = dovecot.ReservePort(); err != nil {
		return err
	}
	const password = "client-password"
	hash, err := auth.Generate(auth.DefaultScheme, password)
	if err != nil {
		return err
	}
	var config bytes.Buffer
	err = configTemplate.Execute(&config, map[string]any{"Addr": s.port.Addr, "Hash": hash, "Servers": s.servers})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "proxy.hcl"), config.Bytes(), 0o600); err != nil {
		return err
	}
	for _, server := range s.servers {
		s.endpoints[direct] = append(s.endpoints[direct], endpoint{server.Addr, server.Password})
		s.endpoints[proxied] = append(s.endpoints[proxied], endpoint{s.port.Addr, password})
	}
	return s.startProxy(ctx, binary)
}

// startProxy starts the proxy and returns when it accepts connections.
func (s *site) startProxy(ctx context.Context, binary string) error {
	path, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	log, err := os.Create(s.logPath())
	if err != nil {
		return err
	}
	defer log.Close()
	s.proxy = exec.Command(path, "serve", "--config", filepath.Join(s.dir, "proxy.hcl"))
	s.proxy.Stdout, s.proxy.Stderr = log, log
	// In a process group of its own a Ctrl-C reaches the benchmark alone, which
	// then ends everything in order.
	s.proxy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.proxy.Start(); err != nil {
		s.proxy = nil
		return fmt.Errorf("start the proxy: %w (make build builds it)", err)
	}
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.proxy.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := net.Dial("tcp", s.port.Addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-retry.C:
		case err := <-s.exited:
			s.proxy = nil // nothing left to stop
			return fmt.Errorf("the proxy ended instead of serving (%v); its output:\n%s", err, s.proxyLog())
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not accept connections: %w; its output:\n%s", ctx.Err(), s.proxyLog())
		}
	}
}

func (s *site) logPath() string { return filepath.Join(s.dir, "proxy.log") }

// proxyLog returns the end of the proxy's log, which has a line for each
// command.
func (s *site) proxyLog() string {
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	const most = 4000
	return string(text[max(0, len(text)-most):])
}

// close ends everything and removes it. A proxy that does not end well when
// told to is an error.
func (s *site) close() error {
	var errs []error
	if s.proxy != nil {
		errs = append(errs, s.stopProxy())
	}
	for _, server := range s.servers {
		errs = append(errs, server.Close())
	}
	if s.port != nil {
		errs = append(errs, s.port.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

func (s *site) stopProxy() error {
	if err := s.proxy.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(proxyTimeout)
	defer timeout.Stop()
	select {
	case err := <-s.exited:
		if err != nil {
			return fmt.Errorf("the proxy did not end well: %w; the end of its log:\n%s", err, s.proxyLog())
		}
		return nil
	case <-timeout.C:
		s.proxy.Process.Kill()
		<-s.exited
		return fmt.Errorf("the proxy was still running %s after SIGTERM; the end of its log:\n%s", proxyTimeout, s.proxyLog())
	}
}
