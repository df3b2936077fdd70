package acceptance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// couple is two Dovecots that are one shard, behind a proxy with an admin
// endpoint.
type couple struct {
	t       *testing.T
	servers []*dovecot.Server
	dir     string // of the admin socket and the state file
	balance string
	extra   string // of backend_defaults
	*proxyProcess
}

// startCouple starts them, the second one as version.
func startCouple(t *testing.T, version dovecot.Version, balance, extra string) *couple {
	t.Helper()
	c := &couple{t: t, dir: t.TempDir(), balance: balance, extra: extra}
	for i, v := range []dovecot.Version{dovecot.V23, version} {
		c.servers = append(c.servers, dovecottest.Start(t, dovecot.Options{
			Version: v, Name: fmt.Sprintf("mail%d", i+1), Users: []string{"u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "probe"},
		}))
	}
	c.proxyProcess = startProxy(t, racy, c.config)
	return c
}

func (c *couple) config(addr string) string {
	return fmt.Sprintf(`
listener "main" {
  address = %q
}
client "doveadm" {
  password = "{PLAIN}%s"
}
shard "s1" {
  balance    = %q
  slow_start = "1s"
  backend "mail1" {
    address  = %q
    password = %q
  }
  backend "mail2" {
    address  = %q
    password = %q
  }
}
backend_defaults {
  pool {
    max_open        = 4
    acquire_timeout = "60s"
  }
  %s
}
admin {
  address    = "unix:%s/admin.sock"
  state_file = "%s/operator.json"
}
`, addr, clientPassword, c.balance, c.servers[0].Addr, c.servers[0].Password, c.servers[1].Addr, c.servers[1].Password, c.extra, c.dir, c.dir)
}

// control runs a command that talks to the proxy and returns what it prints.
func (c *couple) control(args ...string) string {
	c.t.Helper()
	path, err := racy()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, "--admin", "unix:"+filepath.Join(c.dir, "admin.sock"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%q: %v\n%s", args, err, &stderr)
	}
	return string(out)
}

// member returns a backend as the admin endpoint shows it.
func (c *couple) member(name string) admin.Backend {
	c.t.Helper()
	client, err := admin.NewClient(admin.Access{Address: "unix:" + filepath.Join(c.dir, "admin.sock")})
	if err != nil {
		c.t.Fatal(err)
	}
	all, err := client.Backends(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, b := range all.Backends {
		if b.Name == name {
			return b
		}
	}
	c.t.Fatalf("no backend %s in %+v", name, all)
	return admin.Backend{}
}

// until waits for a state of a backend.
func (c *couple) until(name, what string, is func(b admin.Backend) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		b := c.member(name)
		if is(b) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s is not %s: %+v", name, what, b)
		}
	}
}

// load is clients that run commands until they are told to stop.
type load struct {
	stop   chan struct{}
	ended  sync.WaitGroup
	mu     sync.Mutex // guards what follows
	told   *sync.Cond // of each command that ended
	done   int
	failed []string // the last log line of each
	broken error    // a session that ended, or worse
}

// startLoad runs commands of which some may be repeated and some may not, each
// client for a user of its own: a mailbox that is there already when it is
// created is a command that ran twice.
func startLoad(c *couple, clients int) *load {
	l := &load{stop: make(chan struct{})}
	l.told = sync.NewCond(&l.mu)
	for i := range clients {
		l.ended.Go(func() {
			if err := l.client(c, i); err != nil {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.broken = errors.Join(l.broken, fmt.Errorf("client %d: %w", i, err))
				l.told.Broadcast()
			}
		})
	}
	return l
}

func (l *load) client(c *couple, i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	last := ""
	client, err := doveadm.Dial(ctx, c.Addr, doveadm.ClientOptions{
		Password: clientPassword, Minor: doveadm.MaxMinor, OnLog: func(_ doveadm.LogLevel, text string) { last = text },
	})
	if err != nil {
		return err
	}
	defer client.Close()
	user := fmt.Sprintf("u%d", i+1)
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return nil
		case <-time.After(10 * time.Millisecond): // the backends have health checks, too
		}
		var err error
		if n%3 == 0 {
			_, err = runCommand(ctx, client, user, "mailbox create", fmt.Sprintf("box-%d-%d", i, n))
		} else {
			_, err = runCommand(ctx, client, user, "mailbox list")
		}
		var status *doveadm.StatusError
		l.mu.Lock()
		l.done++
		switch {
		case err == nil:
		case errors.As(err, &status):
			l.failed = append(l.failed, status.Error()+": "+last)
		default:
			l.mu.Unlock()
			return err
		}
		l.told.Broadcast()
		l.mu.Unlock()
	}
}

// more waits until n further commands have ended.
func (l *load) more(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for until := l.done + n; l.done < until && l.broken == nil; {
		l.told.Wait()
	}
}

// end stops the clients and returns what failed.
func (l *load) end(t *testing.T) (done int, failed []string) {
	t.Helper()
	close(l.stop)
	l.ended.Wait()
	if l.broken != nil {
		t.Error(l.broken)
	}
	return l.done, l.failed
}

// unlockMail removes the lock files of a Dovecot that was killed. One that has no
// process id in it yet, its successor would wait for, for two minutes.
func unlockMail(t *testing.T, s *dovecot.Server) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(s.Dir, "mail"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".lock") {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMemberKilled kills one of two members under load, twice: nothing fails
// but what had been sent to it, and its users come back to it.
func TestMemberKilled(t *testing.T) {
	t.Parallel()
	c := startCouple(t, dovecot.V23, "order", "breaker {\n failures = 2\n open = \"500ms\"\n}\nhealth_check {\n interval = \"300ms\"\n timeout = \"30s\"\n fall = 2\n}")
	l := startLoad(c, 8)
	const kills = 2
	for range kills {
		l.more(100)
		if err := c.servers[0].Kill(); err != nil {
			t.Fatal(err)
		}
		unlockMail(t, c.servers[0])
		c.until("mail1", "failing", func(b admin.Backend) bool { return b.Health == pool.Failing })
		before := c.member("mail1").Commands
		l.more(100)
		if err := c.servers[0].Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.until("mail1", "up", func(b admin.Backend) bool { return b.Health == pool.Up })
		c.until("mail1", "used again", func(b admin.Backend) bool { return b.Commands > before+20 })
	}
	done, failed := l.end(t)
	for _, f := range failed {
		if !strings.Contains(f, "closed the connection without a reply") && !strings.Contains(f, "in the middle of the command") {
			t.Errorf("failed, although nothing had been sent: %s", f)
		}
	}
	if most := kills * 4; len(failed) > most { // max_open of them had been sent
		t.Errorf("%d commands failed, %d at most can have been on their way: %q", len(failed), most, failed)
	}
	if n := strings.Count(c.Log(), "outcome=unavailable"); n > 0 {
		t.Errorf("%d commands found no connection", n)
	}
	t.Logf("%d commands, %d of them lost with their backend", done, len(failed))
}

// TestDrainUnderLoad takes a member out of service and back while commands run:
// none fails, nothing is left on it.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	c := startCouple(t, dovecot.V24, "user", "")
	l := startLoad(c, 8)
	l.more(100)
	if one, two := c.member("mail1").Commands, c.member("mail2").Commands; one == 0 || two == 0 {
		t.Errorf("%d and %d commands: the users are not spread", one, two)
	}
	for _, name := range []string{"mail1", "mail2", "mail1"} {
		c.control("drain", name)
		c.until(name, "drained", func(b admin.Backend) bool { return b.Operator == pool.Draining && b.Open+b.Dialing+b.Waiting == 0 })
		before := c.member(name).Commands
		l.more(50)
		if b := c.member(name); b.Commands != before || b.Open != 0 {
			t.Errorf("commands go to it: %+v", b)
		}
		c.control("resume", name)
		c.until(name, "used again", func(b admin.Backend) bool { return b.Commands > before })
	}
	done, failed := l.end(t)
	if len(failed) > 0 {
		t.Errorf("%d of %d commands failed: %q", len(failed), done, failed)
	}
	t.Logf("%d commands, %d failed", done, len(failed))
}

// TestHealthOfRealBackends: checks of both versions see a backend that stops
// answering and one that answers again, by a command for a user; nobody has to
// wait for it meanwhile.
func TestHealthOfRealBackends(t *testing.T) {
	t.Parallel()
	c := startCouple(t, dovecot.V24, "order", "health_check {\n interval = \"500ms\"\n timeout = \"10s\"\n fall = 1\n rise = 2\n user = \"probe\"\n}")
	up := func(b admin.Backend) bool { return b.Health == pool.Up }
	failing := func(b admin.Backend) bool { return b.Health == pool.Failing }
	c.until("mail1", "up", up)
	c.until("mail2", "up", up)
	if n := c.member("mail1").HealthErrors + c.member("mail2").HealthErrors; n > 0 {
		t.Errorf("%d checks of healthy backends failed", n)
	}
	for i, s := range c.servers {
		name, other := s.Name, c.servers[1-i].Name
		if err := s.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		c.until(name, "failing", failing)
		before := c.member(other).Commands
		for range 5 {
			if code, logs := status(t, c.Addr, "u1", "mailbox list"); code != "+" {
				t.Errorf("status %s, %q", code, logs)
			}
		}
		if n := c.member(other).Commands - before; n != 5 {
			t.Errorf("%d of 5 commands ran on %s", n, other)
		}
		if err := s.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		c.until(name, "up", up)
	}
	if log := c.Log(); strings.Count(log, "health checks fail") != 2 || strings.Count(log, "health checks work again") != 2 {
		t.Error("not one line for each change")
	}
}

// TestStateSurvivesKill: what an operator wants is still known to the next
// process when this one is killed, and a broken state file is no obstacle.
func TestStateSurvivesKill(t *testing.T) {
	t.Parallel()
	c := startCouple(t, dovecot.V23, "order", "")
	c.control("drain", "mail1")
	c.kill()
	c.proxyProcess = startProxy(t, racy, c.config)
	c.waitLog("backend is out of service, as an operator wants it")
	if b := c.member("mail1"); b.Operator != pool.Draining || b.OperatorSince == nil {
		t.Errorf("%+v", b)
	}
	if code, logs := status(t, c.Addr, "u1", "mailbox list"); code != "+" || c.member("mail2").Commands != 1 {
		t.Errorf("status %s, %q; %d commands on mail2", code, logs, c.member("mail2").Commands)
	}
	c.control("resume", "mail1")
	if code, logs := status(t, c.Addr, "u1", "mailbox list"); code != "+" {
		t.Errorf("status %s, %q", code, logs)
	}
	if b := c.member("mail1"); b.Operator != pool.Active {
		t.Errorf("%+v", b)
	}
}
