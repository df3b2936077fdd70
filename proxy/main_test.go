package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	clientName      = "panel"
	clientPassword  = "client secret"
	backendPassword = "backend secret"

	// patience is how long a test waits for what must happen.
	patience = 30 * time.Second
)

// minors are the versions of backends.
var minors = []doveadm.Minor{0, 1, 2, 3, 4}

type handler = func(c *doveadmtest.Conn, cmd *doveadm.Command)

// newBackend starts a scripted backend with the password that configure knows.
func newBackend(t testing.TB, minor doveadm.Minor, h handler) *doveadmtest.Server {
	t.Helper()
	return doveadmtest.NewServer(t, doveadmtest.Options{Minor: minor, Password: backendPassword, Handler: h})
}

// configure returns a configuration with the defaults of everything, changed
// by change, and a client who may do everything. Each backend is the only one of a shard: backend b1 of shard s1
// has the users *@s1, and alice is on s1.
func configure(t testing.TB, change func(c *config.Config), backends ...string) *config.Config {
	t.Helper()
	var hcl strings.Builder
	fmt.Fprintf(&hcl, `
listener "main" { address = "127.0.0.1:0" }
client %q {
  password = %q
  allow {
    commands  = ["*", "admin"]
    dangerous = ["files", "hosts", "programs", "users", "settings", "unknown"]
  }
}
backend_defaults { password = %q }
limits { spool_dir = %q }
route "match" {
  users = ["alice"]
  shard = "s1"
}
`, clientName, "{PLAIN}"+clientPassword, backendPassword, t.TempDir())
	for i, address := range backends {
		fmt.Fprintf(&hcl, "shard \"s%d\" {\n  backend \"b%[1]d\" { address = %[2]q }\n}\n", i+1, address)
		fmt.Fprintf(&hcl, "route \"match\" {\n  users = [\"*@s%d\"]\n  shard = \"s%[1]d\"\n}\n", i+1)
	}
	cfg, diags := config.Parse("test.hcl", []byte(hcl.String()))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if change != nil {
		change(cfg)
	}
	return cfg
}

// site is a running proxy and what it says.
type site struct {
	*proxy.Proxy
	log *logLines
	cfg *config.Config
}

// start runs a proxy until the end of the test. Then it must shut down at once
// and leave nothing in the spool directory.
func start(t testing.TB, cfg *config.Config) *site {
	t.Helper()
	s := &site{log: newLogLines(), cfg: cfg}
	p, err := proxy.New(cfg, proxy.Options{Log: s.log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	s.Proxy = p
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if left, err := os.ReadDir(cfg.Limits.SpoolDir); err != nil || len(left) > 0 {
			t.Errorf("left in the spool directory: %v, %v", left, err)
		}
		if t.Failed() {
			t.Logf("log of the proxy:\n%s", s.log)
		}
	})
	p.Serve()
	return s
}

// startWith is start for one backend of a minor version.
func startWith(t testing.TB, minor doveadm.Minor, h handler, change func(c *config.Config)) (*site, *doveadmtest.Server) {
	t.Helper()
	srv := newBackend(t, minor, h)
	return start(t, configure(t, change, srv.Addr())), srv
}

func first(c *config.Config) *config.Backend { return &c.Shards[0].Backends[0] }

// oneFailureOpens makes the breaker tell whether it was told of a failure:
// after a single one nothing is sent to the backend.
func oneFailureOpens(c *config.Config) {
	first(c).Breaker.Failures = 1
	first(c).Breaker.Open = time.Hour
}

// neverOpens lets a test fail as often as it wants.
func neverOpens(c *config.Config) { first(c).Breaker.Failures = 1 << 30 }

// both makes one change of several.
func both(changes ...func(c *config.Config)) func(c *config.Config) {
	return func(c *config.Config) {
		for _, change := range changes {
			change(c)
		}
	}
}

// answer is a handler that names the user and the connection.
func answer(c *doveadmtest.Conn, cmd *doveadm.Command) {
	c.Fields(cmd.User, fmt.Sprint(c.Number()))
	c.Status("+")
}

// unused returns the address of a port on which nobody listens. It is none of
// those that the servers of other tests get.
func unused(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for what no channel tells.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// logLines keeps a log.
type logLines struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed at the next write
}

func newLogLines() *logLines { return &logLines{changed: make(chan struct{})} }

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.buf.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logLines) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Debug, DisableTime: true})
}

// lines returns the lines that contain all words.
func (l *logLines) lines(words ...string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			found = append(found, line)
		}
	}
	return found
}

// wait waits for a line that contains all words, and returns it.
func (l *logLines) wait(t testing.TB, words ...string) string {
	t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if lines := l.lines(words...); len(lines) > 0 {
			return lines[0]
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no line with %q in the log:\n%s", words, l)
		}
	}
}

// must is for errors that only a broken test can have.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
