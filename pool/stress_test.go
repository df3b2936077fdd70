package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// A stressed is a pool that many use at once, and the books about it.
type stressed struct {
	*Pool
	t      *testing.T
	max    int
	open   atomic.Int32 // sockets, from before their dial until they are closed
	dials  atomic.Int64
	owners sync.Map // *doveadm.ClientConn to the worker that has it
	dead   sync.Map // *doveadm.ClientConn that must not be handed out again
}

func newStressed(t *testing.T, b config.Backend, dial DialFunc) *stressed {
	s := &stressed{t: t, max: b.Pool.MaxOpen}
	s.Pool = New(b, func(ctx context.Context) (*doveadm.ClientConn, error) {
		s.dials.Add(1)
		if n := s.open.Add(1); int(n) > s.max {
			t.Errorf("%d connections, max_open is %d", n, s.max)
		}
		c, err := dial(ctx)
		if err != nil {
			s.open.Add(-1)
		}
		return c, err
	}, hclog.NewNullLogger())
	return s
}

// closed is called once when a connection has been closed.
func (s *stressed) closed(c *doveadm.ClientConn) {
	s.dead.Store(c, "closed here")
	s.open.Add(-1)
}

// acquire checks what it gets.
func (s *stressed) acquire(ctx context.Context, use Use, worker int) (*Conn, error) {
	c, err := s.Acquire(ctx, use)
	if err != nil {
		return nil, err
	}
	if other, taken := s.owners.LoadOrStore(c.Client(), worker); taken {
		s.t.Errorf("worker %d has the connection of worker %v", worker, other)
	}
	if why, dead := s.dead.Load(c.Client()); dead {
		s.t.Errorf("got a connection that is dead: %v", why)
	}
	if use == Fresh && c.link.commands > 0 {
		s.t.Errorf("%d commands ran on a fresh connection", c.link.commands)
	}
	return c, nil
}

func (s *stressed) release(c *Conn, o Outcome) {
	s.owners.Delete(c.Client())
	c.Release(o)
}

// end closes the pool, of which nothing is in use.
func (s *stressed) end() {
	if st := s.Stat(); st.InUse != 0 || st.Waiting != 0 || st.Open+st.Dialing > s.max {
		s.t.Errorf("after the last release: %+v", st)
	}
	if err := s.Close(context.Background()); err != nil {
		s.t.Error(err)
	}
	closed := uint64(0)
	st := s.Stat()
	for _, n := range st.Closed {
		closed += n
	}
	// Dials that Close ended are neither errors nor connections.
	if st.Open != 0 || st.Dialing != 0 || s.open.Load() != 0 || st.Dials != uint64(s.dials.Load()) || closed+st.DialErrors > st.Dials {
		s.t.Errorf("%d connections leaked, %d dials; %+v", s.open.Load(), s.dials.Load(), st)
	}
}

func seed(t *testing.T) uint64 {
	s := rand.Uint64()
	t.Logf("seed %d", s)
	return s
}

// watchedConn tells when it has been closed, and takes its time for it.
type watchedConn struct {
	net.Conn
	again  atomic.Bool
	closed func()
}

func (c *watchedConn) Close() error {
	err := c.Conn.Close()
	if !c.again.Swap(true) {
		time.Sleep(time.Millisecond)
		c.closed()
	}
	return err
}

// TestStressInVirtualTime lets many workers loose on a pool whose backend
// fails in all ways, at moments that often coincide. Nobody may wait for ever:
// a timeout of the wait is an error here.
func TestStressInVirtualTime(t *testing.T) {
	seed := seed(t)
	for round := range uint64(10) {
		t.Run(strconv.FormatUint(round, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stressInVirtualTime(t, rand.New(rand.NewPCG(seed, round))) })
		})
	}
}

func stressInVirtualTime(t *testing.T, rnd *rand.Rand) {
	const step = 10 * time.Millisecond
	var down, mute atomic.Bool
	handler := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		pause, _ := time.ParseDuration(cmd.Args[1])
		time.Sleep(pause)
		switch cmd.Args[0] {
		case "fail":
			c.Fields("half")
			c.Close()
		case "stray":
			c.Raw(append(doveadm.AppendPacket(nil, doveadm.ChannelReply, []byte("\n+\n")), doveadm.ChannelReply, 0))
		default:
			c.Fields("value")
			c.Status("+")
		}
	}
	connected := func(c *doveadmtest.Conn) {
		if mute.Load() {
			c.Hang()
		}
	}
	srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Minor: doveadm.MinorExtraFields, Handler: handler, Connected: connected})

	b := defaults()
	b.Timeouts.Handshake = 20 * step
	b.Breaker = config.Breaker{Failures: []int{1, 5, 20, 1000}[rnd.IntN(4)], Open: 50 * step, Probes: 1 + rnd.IntN(2)}
	b.Pool = config.Pool{
		MaxOpen: 1 + rnd.IntN(5), IdleTimeout: 30 * step, MaxLifetime: 300 * step,
		MaxCommands: 1 + rnd.IntN(20), MaxWaiting: rnd.IntN(30), AcquireTimeout: time.Hour,
	}
	b.Pool.MaxIdle = rnd.IntN(b.Pool.MaxOpen + 1)
	b.Pool.MinIdle = rnd.IntN(b.Pool.MaxIdle + 1)
	var s *stressed
	s = newStressed(t, b, func(ctx context.Context) (*doveadm.ClientConn, error) {
		time.Sleep(time.Duration(rand.IntN(3)) * step)
		if down.Load() {
			return nil, errDown
		}
		nc, err := srv.Dial(ctx, "", "")
		if err != nil {
			return nil, err
		}
		watched := &watchedConn{Conn: nc, closed: func() {}}
		c, err := login(ctx, watched, b)
		if err == nil {
			watched.closed = func() { s.closed(c) }
		}
		return c, err
	})

	var workers sync.WaitGroup
	var served atomic.Int64
	for worker := range 24 {
		rnd := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		workers.Go(func() {
			for range 60 {
				time.Sleep(time.Duration(rnd.IntN(20)) * step)
				if stressOnce(s, rnd, worker, step) {
					served.Add(1)
				}
			}
		})
	}
	weather := make(chan struct{})
	go func() {
		workers.Wait()
		close(weather)
	}()
	for over := false; !over; {
		select {
		case <-weather:
			over = true
		case <-time.After(time.Duration(1+rnd.IntN(100)) * step):
			down.Store(rnd.IntN(6) == 0)
			mute.Store(rnd.IntN(6) == 0)
			if rnd.IntN(5) == 0 {
				s.Retire()
			}
		}
	}
	s.end()
	synctest.Wait()
	if n := len(srv.Conns()); n != 0 {
		t.Errorf("the backend has %d connections after Close", n)
	}
	if served.Load() == 0 {
		t.Error("no command was served")
	}
	t.Logf("%d of %d served: %+v", served.Load(), 24*60, s.Stat())
}

// stressOnce runs one command, or not, and reports whether it was answered.
func stressOnce(s *stressed, rnd *rand.Rand, worker int, step time.Duration) bool {
	ctx, cancel := context.WithCancel(context.Background())
	if rnd.IntN(3) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(30))*step)
	}
	defer cancel()
	use := Shared
	if rnd.IntN(4) == 0 {
		use = Fresh
	}
	c, err := s.acquire(ctx, use, worker)
	if err != nil {
		if errors.Is(err, ErrTimeout) {
			s.t.Errorf("worker %d waited for ever: %v; %+v", worker, err, s.Stat())
		}
		return false
	}
	what := []string{"answer", "answer", "answer", "answer", "stray", "fail", "give up"}[rnd.IntN(7)]
	pause := time.Duration(rnd.IntN(10)) * step
	if what == "give up" {
		time.Sleep(pause)
		s.release(c, Abandoned)
		return false
	}
	reply, err := c.Client().Do(context.Background(), &doveadm.Command{User: "alice", Name: "quota get", Args: []string{what, pause.String()}})
	if err == nil {
		if reply.Next(); rnd.IntN(2) == 0 {
			c.Answering()
		}
		err = reply.Close()
	}
	switch {
	case err != nil && what != "fail":
		s.t.Errorf("%s: %v", what, err)
		fallthrough
	case err != nil:
		s.release(c, Failed)
		return false
	case use == Fresh:
		s.release(c, Answered)
	default:
		s.release(c, Reusable)
	}
	return true
}

// watchedTCP is watchedConn for a socket, which can be looked at.
type watchedTCP struct {
	*net.TCPConn
	again  atomic.Bool
	closed func()
}

func (c *watchedTCP) Close() error {
	err := c.TCPConn.Close()
	if !c.again.Swap(true) {
		c.closed()
	}
	return err
}

// TestStressOnLoopback has connections die with or behind their last status.
// None of these is handed out again, so that no command fails.
func TestStressOnLoopback(t *testing.T) {
	seed := seed(t)
	handler := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		c.Fields("value")
		c.Status("+")
		switch cmd.Args[0] {
		case "close":
			c.Close()
		case "reset":
			c.Reset()
		case "log":
			c.Log(doveadm.LogWarning, "Killed with signal 15")
			c.Close()
		}
	}
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: doveadm.MaxMinor, Password: "secret", Handler: handler})
	b := defaults()
	b.Pool.MaxOpen, b.Pool.MaxIdle, b.Pool.AcquireTimeout = 4, 3, time.Minute
	b.Breaker.Failures = 1
	var s *stressed
	s = newStressed(t, b, func(ctx context.Context) (*doveadm.ClientConn, error) {
		nc, err := srv.Dial(ctx, "", "")
		if err != nil {
			return nil, err
		}
		watched := &watchedTCP{TCPConn: nc.(*net.TCPConn), closed: func() {}}
		c, err := login(ctx, watched, b)
		if err == nil {
			watched.closed = func() { s.closed(c) }
		}
		return c, err
	})

	var workers sync.WaitGroup
	for worker := range 16 {
		rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
		workers.Go(func() {
			for i := range 100 {
				use := Shared
				if rnd.IntN(5) == 0 {
					use = Fresh
				}
				c, err := s.acquire(t.Context(), use, worker)
				if err != nil {
					t.Error(err)
					return
				}
				then := []string{"stay", "stay", "stay", "stay", "close", "reset", "log"}[rnd.IntN(7)]
				cmd := &doveadm.Command{User: fmt.Sprintf("user%d-%d", worker, i), Name: "quota get", Args: []string{then}}
				reply, err := c.Client().Do(t.Context(), cmd)
				if err == nil {
					err = reply.Close()
				}
				if then == "reset" && err != nil {
					s.release(c, Abandoned) // it took the reply with it
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", then, err)
					s.release(c, Abandoned)
					return
				}
				if then != "stay" {
					awaitReadable(t, c.Client().NetConn())
					s.dead.Store(c.Client(), then)
				}
				s.release(c, Reusable)
			}
		})
	}
	workers.Wait()
	s.end()
	if st := s.Stat(); st.DialErrors != 0 || st.BreakerOpened != 0 || st.Closed[closedDead]+st.Closed[closedStray] == 0 {
		t.Errorf("%+v", st)
	}
	t.Logf("%+v", s.Stat())
}
