package acceptance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// clientPassword is the password of the proxy's client "doveadm".
const clientPassword = "client-secret"

// cluster is backends, each one a shard of its own, and what routes to them.
type cluster struct {
	t       *testing.T
	servers []*dovecot.Server
	dir     string
}

// startCluster starts n backends with perBackend users each: u1-1, u1-2, ...
// on the first, u2-1, ... on the second.
func startCluster(t *testing.T, n, perBackend int, o dovecot.Options) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	for i := range n {
		opts := o
		opts.Name = fmt.Sprintf("mail%d", i+1)
		for j := range perBackend {
			opts.Users = append(opts.Users, fmt.Sprintf("u%d-%d", i+1, j+1))
		}
		s := dovecottest.Start(t, opts)
		c.servers = append(c.servers, s)
	}
	return c
}

// config returns a configuration for the cluster: users go to their backend by
// a match route; extra comes behind.
func (c *cluster) config(addr, backendSettings, extra string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listener \"main\" {\n  address = %q\n}\n", addr)
	fmt.Fprintf(&b, "client \"doveadm\" {\n  password = \"{PLAIN}%s\"\n}\n", clientPassword)
	for i, s := range c.servers {
		fmt.Fprintf(&b, "shard \"s%d\" {\n  backend %q {\n    address = %q\n    password = %q\n  }\n}\n", i+1, s.Name, s.Addr, s.Password)
		fmt.Fprintf(&b, "route \"match\" {\n  users = [\"u%d-*\"]\n  shard = \"s%d\"\n}\n", i+1, i+1)
	}
	fmt.Fprintf(&b, "backend_defaults {\n%s\n}\n%s\n", backendSettings, extra)
	return b.String()
}

// proxyProcess is a running doveadm-proxy.
type proxyProcess struct {
	t      *testing.T
	Addr   string
	Config string // path of the configuration
	cmd    *exec.Cmd
	exited chan error
	killed bool // by the test
	log    written
}

// written is what a program has written so far.
type written struct {
	mu   sync.Mutex
	text []byte // what is in it stays as it is
}

func (w *written) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	return len(b), nil
}

// String is asked for so often that it copies nothing.
func (w *written) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return unsafe.String(unsafe.SliceData(w.text), len(w.text))
}

// startProxy runs binary with the configuration that makeConfig returns for an
// address, and waits until it is ready.
func startProxy(t *testing.T, binary func() (string, error), makeConfig func(addr string) string) *proxyProcess {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	p := &proxyProcess{t: t, Addr: port.Addr, Config: filepath.Join(t.TempDir(), "proxy.hcl"), exited: make(chan error, 1)}
	p.writeConfig(makeConfig(port.Addr))
	p.cmd = exec.Command(path, "serve", "--config", p.Config)
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(p.end)
	p.waitLog("ready")
	return p
}

func (p *proxyProcess) writeConfig(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.Config, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Log returns the log so far.
func (p *proxyProcess) Log() string { return p.log.String() }

// waitLog waits until the log has the text.
func (p *proxyProcess) waitLog(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(p.Log(), text); {
		if time.Now().After(deadline) {
			p.t.Fatalf("the log does not say %q:\n%s", text, p.Log())
		}
		select {
		case err := <-p.exited:
			p.exited <- err
			p.t.Fatalf("the proxy ended: %v\n%s", err, p.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *proxyProcess) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// kill ends the proxy as a crash would.
func (p *proxyProcess) kill() {
	p.t.Helper()
	p.killed = true
	p.signal(syscall.SIGKILL)
	p.wait()
}

// wait returns the exit code.
func (p *proxyProcess) wait() int {
	p.t.Helper()
	select {
	case err := <-p.exited:
		p.exited <- err
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			p.t.Fatal(err)
		}
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(60 * time.Second):
		p.t.Fatalf("the proxy does not end:\n%s", p.Log())
		return -1
	}
}

// end stops the proxy; whatever the test did, it must have stopped well and
// found no data race.
func (p *proxyProcess) end() {
	if p.cmd.ProcessState == nil {
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	select {
	case err := <-p.exited:
		if err != nil && !p.killed {
			p.t.Errorf("the proxy ended with %v", err)
		}
	case <-time.After(60 * time.Second):
		p.cmd.Process.Kill()
		p.t.Error("the proxy did not end after SIGTERM")
	}
	log := p.Log()
	for _, bad := range []string{"DATA RACE", "panic", "ended by a bug"} {
		if strings.Contains(log, bad) {
			p.t.Errorf("the log has %q", bad)
		}
	}
	if p.t.Failed() {
		if len(log) > 8_000 {
			log = log[:2_000] + "\n[...]\n" + log[len(log)-6_000:]
		}
		p.t.Logf("log of the proxy:\n%s", log)
	}
}

// runBinary runs a binary of ours and returns what it printed, and its exit code.
func runBinary(t *testing.T, binary func() (string, error), env []string, args ...string) (out string, code int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	both, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v\n%s", args, err, both)
	}
	return string(both), cmd.ProcessState.ExitCode()
}

// cli runs the real command against addr.
func cli(t *testing.T, addr, password, name string, args ...string) dovecot.Result {
	t.Helper()
	return dovecottest.Run(t, dovecot.Client{Addr: addr, Password: password}, name, args...)
}

var (
	sessionPattern = regexp.MustCompile(`<\d+><[^>]*>`)
	pidPattern     = regexp.MustCompile(`doveadm\(\d+\)`)
)

// comparable drops what differs between two runs of the same command: the
// address that the client connected to, process and session ids.
func comparable(text, addr string) string {
	text = strings.ReplaceAll(text, addr, "ADDR")
	text = sessionPattern.ReplaceAllString(text, "<PID><SESSION>")
	return pidPattern.ReplaceAllString(text, "doveadm(PID)")
}
