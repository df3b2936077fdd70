package pool

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

// errLate is what a full queue before the backend looks like.
var errLate = &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}

// world is a pool and the backend that it is for.
type world struct {
	*Pool
	srv *doveadmtest.Server
	log *logLines

	mu   sync.Mutex
	down bool          // connections are refused
	mute bool          // connections are accepted, nobody greets
	drop bool          // connections are accepted and closed
	slow time.Duration // before a connection is accepted
	late bool          // that is too long
}

// defaults are those of the configuration.
func defaults() config.Backend {
	return config.Backend{
		Name:     "mail1",
		Password: config.NewSecret("secret"),
		Pool: config.Pool{
			MaxOpen: 8, MaxIdle: 4, IdleTimeout: 30 * time.Second, MaxLifetime: 5 * time.Minute, MaxCommands: 1000,
			AcquireTimeout: 10 * time.Second, MaxWaiting: 1000,
		},
		Breaker:  config.Breaker{Failures: 5, Open: 10 * time.Second, Probes: 1},
		Timeouts: config.Timeouts{Connect: 5 * time.Second, Handshake: 5 * time.Second},
	}
}

// inBubble runs test with a world in virtual time. At the end everything must
// have been released and must close.
func inBubble(t *testing.T, change func(b *config.Backend), test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		b := defaults()
		if change != nil {
			change(&b)
		}
		w := &world{log: &logLines{}}
		w.srv = doveadmtest.NewPipeServer(t, doveadmtest.Options{
			Minor:    doveadm.MaxMinor,
			Password: "secret",
			Connected: func(c *doveadmtest.Conn) {
				if w.get(&w.drop) {
					c.Close()
					return
				}
				if w.get(&w.mute) {
					c.Hang()
				}
			},
		})
		w.Pool = New(b, w.dialer(b), w.log.logger())
		defer func() {
			if t.Failed() { // what follows might wait for ever
				now, cancel := context.WithCancel(t.Context())
				cancel()
				w.Close(now)
			}
		}()
		test(t, w)
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s := w.Stat(); s.Open != 0 || s.InUse != 0 || s.Dialing != 0 || s.Waiting != 0 {
			t.Errorf("after Close: %+v", s)
		}
		if n := len(w.srv.Conns()); n != 0 {
			t.Errorf("the backend has %d connections after Close", n)
		}
	})
}

// login speaks the handshake on nc.
func login(ctx context.Context, nc net.Conn, b config.Backend) (*doveadm.ClientConn, error) {
	return newDialer(b, hclog.NewNullLogger()).login(ctx, nc, b.Password)
}

func (w *world) dialer(b config.Backend) DialFunc {
	return func(ctx context.Context) (*doveadm.ClientConn, error) {
		w.mu.Lock()
		down, slow := w.down, w.slow
		w.mu.Unlock()
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if down {
			return nil, errDown
		}
		if w.get(&w.late) {
			return nil, errLate
		}
		nc, err := w.srv.Dial(ctx, "", "")
		if err != nil {
			return nil, err
		}
		return login(ctx, nc, b)
	}
}

func (w *world) set(what *bool, to bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*what = to
}

// takes sets how long it takes until a connection is accepted.
func (w *world) takes(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slow = d
}

func (w *world) get(what *bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *what
}

// acquire returns a connection that there must be.
func (w *world) acquire(t *testing.T, use Use) *Conn {
	t.Helper()
	c, err := w.Acquire(t.Context(), use)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused is an Acquire that must fail with want.
func (w *world) refused(t *testing.T, want error) {
	t.Helper()
	c, err := w.Acquire(t.Context(), Shared)
	if err == nil {
		c.Release(Abandoned)
	}
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// pending is an Acquire that may have to wait.
type pending struct {
	use    Use
	cancel context.CancelFunc
	ended  chan struct{} // what follows is known
	conn   *Conn
	err    error
	took   time.Duration
}

// begin starts an Acquire and waits until it has done all that it can.
func (w *world) begin(t *testing.T, use Use) *pending { return w.beginFor(t, use, Client{}) }

func (w *world) beginFor(t *testing.T, use Use, client Client) *pending {
	a := &pending{use: use, ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	a.cancel = cancel
	go func() {
		defer cancel()
		start := time.Now()
		a.conn, a.err = w.AcquireFor(ctx, use, client)
		a.took = time.Since(start)
		close(a.ended)
	}()
	synctest.Wait()
	return a
}

// done reports whether a has ended, after all that it could do.
func (a *pending) done() bool {
	synctest.Wait()
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// got returns the connection that a must have by now.
func (a *pending) got(t *testing.T) *Conn {
	t.Helper()
	if !a.done() {
		t.Fatal("waits, want a connection")
	}
	if a.err != nil {
		t.Fatalf("%v, want a connection", a.err)
	}
	return a.conn
}

// failed checks that a has ended with want by now.
func (a *pending) failed(t *testing.T, want error) {
	t.Helper()
	if !a.done() {
		t.Fatalf("waits, want %v", want)
	}
	if !errors.Is(a.err, want) {
		t.Fatalf("%v, want %v", a.err, want)
	}
}

// waits checks that a still waits.
func (a *pending) waits(t *testing.T) {
	t.Helper()
	if a.done() {
		t.Fatalf("ended with error %v, want it to wait", a.err)
	}
}

var quota = doveadm.Command{User: "alice", Name: "quota get"}

// run runs a command that must succeed.
func run(t *testing.T, c *Conn) {
	t.Helper()
	reply, err := c.Client().Do(t.Context(), &quota)
	if err == nil {
		err = reply.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// closedFor returns why connections have been closed.
func (w *world) closedFor() map[CloseReason]uint64 { return w.Stat().Closed }

// logLines keeps a log.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, Level: hclog.Info, DisableTime: true})
}

// story returns level and first words of each line.
func (l *logLines) story() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(l.buf.String()) {
		text, _, _ := strings.Cut(line, ":")
		lines = append(lines, strings.Join(strings.Fields(text), " "))
	}
	return lines
}

func (l *logLines) told(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, l.story()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// has reports whether a line contains all words.
func (l *logLines) has(words ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(strings.Split(l.buf.String(), "\n"), func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	})
}
