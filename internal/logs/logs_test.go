package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what a log writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.buf.Reset()
	return o.buf.String()
}

func newLog(o Options) (*System, hclog.Logger, *output) {
	out := new(output)
	o.Name, o.Output, o.NoTime = "doveadm-proxy", out, true
	s := New(o)
	return s, s.Logger(), out
}

// TestHeldBack: a thousand lines a second are a few, with the number of those
// that they stand for; the first ones and the last one are always there.
func TestHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log, out := newLog(Options{Level: hclog.Info})
		defer s.Close()
		one, other := log.Named("pool").With("backend", "mail1"), log.Named("pool").With("backend", "mail2")
		for i := range 1000 {
			one.Warn("cannot connect to backend", "error", fmt.Errorf("dial tcp 10.0.0.1:24245: from port %d: refused", i))
			time.Sleep(time.Millisecond)
		}
		other.Warn("cannot connect to backend", "error", errors.New("dial tcp 10.0.0.2:24245: refused"))
		now := out.take()
		if n := strings.Count(now, "backend=mail1"); n != otherLines.lines || !strings.HasPrefix(now, "[WARN]  doveadm-proxy.pool: cannot connect to backend: backend=mail1 error=\"dial tcp 10.0.0.1:24245: from port 0: refused\"\n") {
			t.Errorf("%d lines at once:\n%s", n, now)
		}
		if !strings.Contains(now, "backend=mail2") {
			t.Error("another backend's first line is missing")
		}
		time.Sleep(otherLines.window)
		synctest.Wait()
		if later := out.take(); later != "[WARN]  doveadm-proxy.pool: cannot connect to backend: backend=mail1 error=\"dial tcp 10.0.0.1:24245: from port 999: refused\" repeated=995\n" {
			t.Errorf("later:\n%s", later)
		}
		if s.HeldBack() != 995 {
			t.Errorf("%d held back", s.HeldBack())
		}
		one.Warn("cannot connect to backend", "error", errors.New("x"))
		if later := out.take(); strings.Count(later, "\n") != 1 {
			t.Errorf("the first of the next window:\n%s", later)
		}

		// Nothing is held back of what says one thing each: information, sessions.
		session := log.With("session", 1)
		for range 100 {
			log.Info("x")
			session.Warn("login failed: wrong name or password")
		}
		if n := strings.Count(out.take(), "\n"); n != 200 {
			t.Errorf("%d of 200 lines", n)
		}
		// Commands: each kind has a number of its own in each second.
		for range 100 {
			session.Error("command", "outcome", "unavailable", "backend", "mail1", "user", "alice")
			session.Error("command", "outcome", "lost", "backend", "mail1", "user", "alice")
			session.Info("command", "outcome", "answered")
		}
		if n := strings.Count(out.take(), "\n"); n != 100+2*commandLines.lines {
			t.Errorf("%d lines of commands", n)
		}
		s.Close()
		if last := out.take(); strings.Count(last, " repeated=80\n") != 2 {
			t.Errorf("at the end:\n%s", last)
		}
		one.Warn("after the end")
		if got := out.take(); got == "" {
			t.Error("nothing after the end")
		}
	})
}

func TestLevels(t *testing.T) {
	s, log, out := newLog(Options{Level: hclog.Info})
	defer s.Close()
	pool, deep, admin := log.Named("pool"), log.Named("pool").Named("dial").With("x", 1), log.Named("admin")
	said := func() (all string) {
		for _, l := range []hclog.Logger{log, pool, deep, admin} {
			l.Debug("d")
			if l.IsDebug() {
				all += "+"
			}
		}
		return all + " " + strings.NewReplacer("[DEBUG] ", "", "doveadm-proxy", "", "\n", "", ": d", ";").Replace(out.take())
	}
	for _, step := range []struct{ component, level, want string }{
		{"", "", " "},
		{"pool", "debug", "++ .pool;.pool.dial;: x=1"},
		{"pool.dial", "info", "+ .pool;"},
		{"", "debug", "+++ ;.pool;.admin;"},
		{"pool.dial", "", "++++ ;.pool;.pool.dial;: x=1.admin;"},
		{"", "warn", "++ .pool;.pool.dial;: x=1"},
		{"pool", "", " "},
	} {
		if step != (struct{ component, level, want string }{"", "", " "}) {
			if err := s.SetLevel(step.component, step.level); err != nil {
				t.Fatal(err)
			}
		}
		if got := said(); got != step.want {
			t.Errorf("after %s=%s: %q, want %q", step.component, step.level, got, step.want)
		}
	}
	for _, bad := range [][2]string{{"nobody", "debug"}, {"pool", "loud"}, {"", ""}} {
		if err := s.SetLevel(bad[0], bad[1]); err == nil {
			t.Errorf("took %q", bad)
		}
	}
	s.SetLevel("admin", "trace")
	if l := s.Levels(); l.Level != "warn" || l.Components["pool"] != "warn" || l.Components["admin"] != "trace" || fmt.Sprint(l.Own) != "[admin]" {
		t.Errorf("%+v", l)
	}
	log.SetLevel(hclog.Error)
	if log.GetLevel() != hclog.Error || admin.GetLevel() != hclog.Trace {
		t.Error("SetLevel of a logger")
	}
}

// TestJSON: one object a line, without others in it.
func TestJSON(t *testing.T) {
	out := new(output)
	s := New(Options{Name: "doveadm-proxy", Level: hclog.Info, JSON: true, Output: out})
	defer s.Close()
	s.Logger().With("address", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}).Info("listening",
		"error", errors.New("x\ny"), "took", time.Second, "at", time.Unix(0, 0).UTC(), "n", 7, "ok", true, "list", []string{"a"})
	var got map[string]any
	if err := json.Unmarshal([]byte(out.take()), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"@level": "info", "@module": "doveadm-proxy", "@message": "listening", "address": "192.0.2.1:1", "error": "x\ny",
		"took": "1s", "at": "1970-01-01T00:00:00Z", "n": 7.0, "ok": true, "list": "[a]",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	if _, err := time.Parse(time.RFC3339Nano, got["@timestamp"].(string)); err != nil {
		t.Error(err)
	}
}

// TestJournal: each line has its priority, those of a stack too.
func TestJournal(t *testing.T) {
	s, log, out := newLog(Options{Level: hclog.Trace, Journal: true})
	defer s.Close()
	log.Trace("t")
	log.Debug("d")
	log.Info("i")
	log.Warn("w")
	log.Error("e", "stack", "one\ntwo")
	want := "<7>[TRACE] doveadm-proxy: t\n<7>[DEBUG] doveadm-proxy: d\n<6>[INFO]  doveadm-proxy: i\n<4>[WARN]  doveadm-proxy: w\n" +
		"<3>[ERROR] doveadm-proxy: e:\n<3>  stack=\n<3>  | one\n<3>  | two\n"
	if got := out.take(); strings.ReplaceAll(got, "<3>  \n", "") != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestIsJournal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for stream, want := range map[string]bool{"": false, "x": false, "1:2": false} {
		t.Setenv("JOURNAL_STREAM", stream)
		if IsJournal(f) != want {
			t.Errorf("%q", stream)
		}
	}
	device, inode := idOf(t, f)
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", device, inode))
	if !IsJournal(f) {
		t.Error("does not know the journal")
	}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log, _ := newLog(Options{Level: hclog.Error})
		defer s.Close()
		pool := log.Named("pool").With("backend", "mail1")
		log.Info("command", "outcome", "answered")
		log.Debug("d")
		for i := range 3 {
			pool.Warn("cannot connect to backend", "n", i)
			pool.Error("circuit breaker opened")
		}
		all := s.Events()
		if len(all) != 2 || all[0].Message != "circuit breaker opened" || all[0].Count != 3 || all[0].Level != "error" || all[0].Component != "pool" ||
			all[1].Fields["n"] != "2" || all[1].Fields["backend"] != "mail1" {
			t.Errorf("%+v", all)
		}
		time.Sleep(2 * joinTime)
		for i := range 2 * maxEvents {
			log.Info(fmt.Sprint(i))
		}
		if all = s.Events(); len(all) != maxEvents || all[0].Message != fmt.Sprint(2*maxEvents-1) {
			t.Errorf("%d events, the last is %q", len(all), all[0].Message)
		}
	})
}

// TestOffCostsNothing: a line below the level allocates nothing but its arguments.
func TestOffCostsNothing(t *testing.T) {
	s, log, _ := newLog(Options{Level: hclog.Warn})
	defer s.Close()
	log = log.With("session", 1)
	if n := testing.AllocsPerRun(100, func() {
		log.Debug("d")
		log.Info("command")
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
