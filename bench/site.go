package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// target is a way to a backend.
type target int

const (
	direct  target = iota
	proxied        // through the proxy as it is when nothing else is said: with a line in its log for each command
	quiet          // through the proxy with log level warn
	haproxy
	nginx
	ownProxy // Dovecot's own doveadm proxy
	plain    // a Go program that only reads and writes
	looped   // the same without goroutines
	targets
)

func (t target) String() string {
	return [...]string{"directly", "the proxy", "the proxy, log level warn", "HAProxy, TCP", "nginx, stream", "Dovecot's own doveadm proxy", "Go, only reads and writes", "Go, only reads and writes, a loop over epoll"}[t]
}

// backendKind is what commands are for.
type backendKind int

const (
	null backendKind = iota
	slow             // null with a delay
	dovecot23
	dovecot24
	kinds
)

// slowDelay is how long a command takes at the slow null backend: as long as a
// short one takes a Dovecot.
const slowDelay = time.Millisecond

func (k backendKind) String() string {
	return [...]string{"null backend", "null backend, 1 ms a command", "Dovecot 2.3", "Dovecot 2.4"}[k]
}

// domain is what the names of its users end in.
func (k backendKind) domain() string { return [...]string{"null", "slow", "d23", "d24"}[k] }

const (
	usersPerDovecot = 10
	mailsPerUser    = 10

	// maxIdle is the proxy's default of max_idle: so many connections to each
	// backend it may keep while nobody uses them.
	maxIdle = 8

	// nullConns is the proxy's max_open for the null backends, which unlike a
	// Dovecot are no slower with more: as many as HAProxy opens for 64 clients.
	nullConns = 64

	startTimeout = 20 * time.Second
	stopTimeout  = 15 * time.Second

	password = "benchmark-password"
)

// site is the backends and everything that is put before them. All of it runs
// all the time; only what is measured has something to do.
type site struct {
	dir      string
	ports    []*dovecot.Port
	children []*child
	dovecots map[backendKind]*dovecot.Server
	relay    *dovecot.Server // Dovecot's own doveadm proxy

	endpoints [kinds][targets]endpoint
	pids      [targets]int // of what stands between
	backends  [kinds]int
	admin     [targets]string // where the proxies tell their metrics

	poolSettings string // of the proxies that are started next; empty: the defaults, and nullConns
}

// child is a process that the site has started.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer
	output string // path
	exited chan error
}

// startSite starts what the backends of a run need. On an error nothing is
// left.
func startSite(ctx context.Context, binary string, works []work) (*site, error) {
	s := &site{dovecots: make(map[backendKind]*dovecot.Server)}
	if err := s.start(ctx, binary, works); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) start(ctx context.Context, binary string, works []work) error {
	var wanted [kinds]bool
	var through [targets]bool
	for _, w := range works {
		wanted[w.backend] = true
		for _, t := range w.targets {
			through[t] = true
		}
	}
	var err error
	if s.dir, err = os.MkdirTemp("/tmp", "bench-"); err != nil {
		return err
	}
	// nginx and HAProxy may run their work as another user.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var used []backendKind
	for k := range kinds {
		if !wanted[k] {
			continue
		}
		used = append(used, k)
		if k == dovecot23 || k == dovecot24 {
			if err := s.startDovecot(ctx, k); err != nil {
				return err
			}
			continue
		}
		addr, err := s.port()
		if err != nil {
			return err
		}
		args := []string{"null", "-listen", addr}
		if k == slow {
			args = append(args, "-delay", slowDelay.String())
		}
		c, err := s.run(ctx, k.String(), addr, self, args...)
		if err != nil {
			return err
		}
		s.endpoints[k][direct] = endpoint{addr, password}
		s.backends[k] = c.cmd.Process.Pid
	}
	if err := errors.Join(s.startHAProxy(ctx, used), s.startNginx(ctx, used)); err != nil {
		return err
	}
	for _, t := range []target{plain, looped} {
		if through[t] {
			if err := s.startPlain(ctx, self, t); err != nil {
				return err
			}
		}
	}
	if through[ownProxy] {
		if err := s.startRelay(ctx, used); err != nil {
			return err
		}
	}
	return errors.Join(s.startProxy(ctx, binary, proxied, "info", used), s.startProxy(ctx, binary, quiet, "warn", used))
}

// port returns an address that nothing else gets.
func (s *site) port() (string, error) {
	p, err := dovecot.ReservePort()
	if err != nil {
		return "", err
	}
	s.ports = append(s.ports, p)
	return p.Addr, nil
}

// processLimit lets 128 clients connect at the same time. With the 100 processes
// that Dovecot allows otherwise it resets connections of those who come
// directly.
const processLimit = "service doveadm {\n  process_limit = 200\n}\n"

func (s *site) startDovecot(ctx context.Context, k backendKind) error {
	version := dovecot.V23
	if k == dovecot24 {
		version = dovecot.V24
	}
	var users []string
	for u := range usersPerDovecot {
		users = append(users, fmt.Sprintf("u%d@%s", u, k.domain()))
	}
	server, err := dovecot.Start(ctx, dovecot.Options{Version: version, Name: k.domain(), Users: users, Password: password, Config: processLimit})
	if err != nil {
		return err
	}
	s.dovecots[k] = server
	if err := server.Seed(mailsPerUser); err != nil {
		return err
	}
	s.endpoints[k][direct] = endpoint{server.Addr, password}
	s.backends[k], err = masterPID(server)
	return err
}

func masterPID(server *dovecot.Server) (int, error) {
	text, err := os.ReadFile(filepath.Join(server.Dir, "run", "master.pid"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// startRelay starts a Dovecot whose passdb names another server for each user.
func (s *site) startRelay(ctx context.Context, used []backendKind) error {
	server, err := dovecot.Start(ctx, dovecot.Options{
		Name: "relay", Password: password, Config: "doveadm_port = 24245\n",
	})
	if err != nil {
		return err
	}
	s.relay = server
	var users strings.Builder
	for _, k := range used {
		host, port, err := net.SplitHostPort(s.endpoints[k][direct].addr)
		if err != nil {
			return err
		}
		for u := range maxUsers {
			fmt.Fprintf(&users, "u%d@%s:{PLAIN}unused::::::proxy=y host=%s port=%s\n", u, k.domain(), host, port)
		}
		s.endpoints[k][ownProxy] = endpoint{server.Addr, password}
	}
	if err := os.WriteFile(filepath.Join(server.Dir, "users"), []byte(users.String()), 0o644); err != nil {
		return err
	}
	// An auth process that has just looked at the file would not look again
	// within the same second.
	if err := server.Restart(ctx); err != nil {
		return err
	}
	s.pids[ownProxy], err = masterPID(server)
	return err
}

// startPlain starts a plain relay before the null backend.
func (s *site) startPlain(ctx context.Context, self string, t target) error {
	addr, err := s.port()
	if err != nil {
		return err
	}
	c, err := s.run(ctx, "plain relay", addr, self, "plain", "-listen", addr, "-backend", s.endpoints[null][direct].addr,
		fmt.Sprintf("-loop=%v", t == looped))
	if err != nil {
		return err
	}
	s.endpoints[null][t] = endpoint{addr, password}
	s.pids[t] = c.cmd.Process.Pid
	return nil
}

func (s *site) startHAProxy(ctx context.Context, used []backendKind) error {
	var config strings.Builder
	config.WriteString("global\n\tmaxconn 4000\ndefaults\n\tmode tcp\n\ttimeout connect 5s\n\ttimeout client 5m\n\ttimeout server 5m\n")
	addr := ""
	for _, k := range used {
		var err error
		if addr, err = s.port(); err != nil {
			return err
		}
		fmt.Fprintf(&config, "listen %s\n\tbind %s\n\tserver backend %s\n", k.domain(), addr, s.endpoints[k][direct].addr)
		s.endpoints[k][haproxy] = endpoint{addr, password}
	}
	path := filepath.Join(s.dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config.String()), 0o644); err != nil {
		return err
	}
	c, err := s.run(ctx, "HAProxy", addr, "haproxy", "-db", "-f", path)
	if err == nil {
		s.pids[haproxy] = c.cmd.Process.Pid
	}
	return err
}

func (s *site) startNginx(ctx context.Context, used []backendKind) error {
	var config strings.Builder
	fmt.Fprintf(&config, "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nworker_processes auto;\npid %s/nginx.pid;\n"+
		"error_log %s/nginx.log;\nevents { worker_connections 10000; }\nstream {\n", s.dir, s.dir)
	addr := ""
	for _, k := range used {
		var err error
		if addr, err = s.port(); err != nil {
			return err
		}
		fmt.Fprintf(&config, "\tserver { listen %s backlog=4096; proxy_pass %s; }\n", addr, s.endpoints[k][direct].addr)
		s.endpoints[k][nginx] = endpoint{addr, password}
	}
	config.WriteString("}\n")
	path := filepath.Join(s.dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(config.String()), 0o644); err != nil {
		return err
	}
	c, err := s.run(ctx, "nginx", addr, "nginx", "-c", path)
	if err == nil {
		s.pids[nginx] = c.cmd.Process.Pid
	}
	return err
}

// The proxy has the settings that it has if nothing else is said: its pool and
// a password that is hashed as "doveadm-proxy hash" does it.
var configTemplate = template.Must(template.New("config").Parse(`listener "main" {
  address = "{{.Addr}}"
}

log {
  level = "{{.Level}}"
}

client "doveadm" {
  password = "{{.Hash}}"
}

admin {
  address    = "{{.Admin}}"
  state_file = "{{.State}}"
}
{{range .Backends}}
shard "{{.Name}}" {
  backend "{{.Name}}" {
    address  = "{{.Addr}}"
    password = "{{.Password}}"
    {{- if .Pool}}
    pool {
      {{.Pool}}
    }
    {{- end}}
  }
}

route "match" {
  users = ["*@{{.Name}}"]
  shard = "{{.Name}}"
}
{{end}}`))

func (s *site) startProxy(ctx context.Context, binary string, t target, level string, used []backendKind) error {
	path, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	hash, err := auth.Generate(auth.DefaultScheme, password)
	if err != nil {
		return err
	}
	addr, err := s.port()
	if err != nil {
		return err
	}
	if s.admin[t], err = s.port(); err != nil {
		return err
	}
	type backend struct{ Name, Addr, Password, Pool string }
	var all []backend
	for _, k := range used {
		pool := s.poolSettings
		if pool == "" && (k == null || k == slow) {
			pool = fmt.Sprintf("max_open = %d\n      max_idle = %[1]d", nullConns)
		}
		all = append(all, backend{k.domain(), s.endpoints[k][direct].addr, password, pool})
		s.endpoints[k][t] = endpoint{addr, password}
	}
	name := fmt.Sprintf("%s-%d", level, len(s.children))
	var config bytes.Buffer
	err = configTemplate.Execute(&config, map[string]any{
		"Addr": addr, "Level": level, "Hash": hash, "Admin": s.admin[t], "Backends": all,
		"State": filepath.Join(s.dir, name+".state"),
	})
	if err != nil {
		return err
	}
	file := filepath.Join(s.dir, name+".hcl")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		return err
	}
	var c *child
	err = withTimerSlack(unitTimerSlack, func() error {
		var err error
		c, err = s.run(ctx, "proxy-"+name, addr, path, "serve", "--config", file)
		return err
	})
	if err != nil {
		return fmt.Errorf("%w (make build builds the proxy)", err)
	}
	s.pids[t] = c.cmd.Process.Pid
	return nil
}

// run starts a program and returns when it accepts connections.
func (s *site) run(ctx context.Context, name, addr, program string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(program, args...), output: filepath.Join(s.dir, strings.ReplaceAll(name, " ", "-")+".log"), exited: make(chan error, 1)}
	out, err := os.Create(c.output)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin")
	if c.cmd.Err != nil {
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
				c.cmd.Path, c.cmd.Err = filepath.Join(dir, program), nil
			}
		}
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	// In a process group of its own a Ctrl-C reaches the benchmark alone, which
	// then ends everything in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w (make deps installs what is missing)", name, err)
	}
	s.children = append(s.children, c)
	go func() { c.exited <- c.cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return c, conn.Close()
		}
		select {
		case <-retry.C:
		case err := <-c.exited:
			c.exited <- err
			return nil, fmt.Errorf("%s ended instead of serving (%v); its output:\n%s", name, err, c.said())
		case <-ctx.Done():
			return nil, fmt.Errorf("%s does not accept connections: %w; its output:\n%s", name, ctx.Err(), c.said())
		}
	}
}

// said returns the end of the output.
func (c *child) said() string {
	text, err := os.ReadFile(c.output)
	if err != nil {
		return err.Error()
	}
	const most = 4000
	return string(text[max(0, len(text)-most):])
}

// stop ends a child. One that does not end when told to is an error.
func (c *child) stop() error {
	c.stdin.Close()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-c.exited:
		return nil
	case <-timeout.C:
		c.cmd.Process.Kill()
		<-c.exited
		return fmt.Errorf("%s was still running %s after SIGTERM; the end of its output:\n%s", c.name, stopTimeout, c.said())
	}
}

// close ends everything and removes it.
func (s *site) close() error {
	var errs []error
	for i := len(s.children) - 1; i >= 0; i-- {
		errs = append(errs, s.children[i].stop())
	}
	if s.relay != nil {
		errs = append(errs, s.relay.Close())
	}
	for _, server := range s.dovecots {
		errs = append(errs, server.Close())
	}
	for _, p := range s.ports {
		errs = append(errs, p.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// settle waits until nothing is left at a Dovecot of the measurement before but
// what the proxy keeps open.
func (s *site) settle(ctx context.Context, k backendKind) error {
	if s.dovecots[k] == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		n, err := countProcesses(s.backends[k], "doveadm-server")
		if err != nil || n <= maxIdle {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s still has %d doveadm-server processes, and should have %d at most when no client is left: %w", k, n, maxIdle, ctx.Err())
		}
	}
}

// allocations returns how many a proxy has made so far; false where it does
// not tell.
func (s *site) allocations(t target) (float64, bool) {
	if s.admin[t] == "" {
		return 0, false
	}
	return metric(s.admin[t], "go_memstats_mallocs_total ")
}

// metric returns a metric of the proxy whose admin endpoint is at addr: the
// number behind what its line begins with.
func metric(addr, line string) (float64, bool) {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, false
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, false
	}
	for l := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(l, line); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return n, err == nil
		}
	}
	return 0, false
}
