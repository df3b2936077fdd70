package fault

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// pieceSize is how much is passed on at once at most.
const pieceSize = 16 << 10

// Link listens, and passes each connection on to a target. The fault that is
// set hits the connections that are open as well as new ones. All methods may
// be called from any goroutine.
type Link struct {
	Addr   string // host:port it listens on
	target string

	listener net.Listener
	ctx      context.Context // of dials
	cancel   context.CancelFunc
	wg       sync.WaitGroup // the accept loop and all connections

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	state  *state
	pairs  map[*pair]struct{}
	closed bool
}

// state is a fault while it is set.
type state struct {
	Fault
	over chan struct{} // closed when another one is set
}

// Listen makes a Link from addr, whose port may be 0, to target. The caller
// closes it. Seed is that of everything random.
func Listen(addr, target string, seed uint64) (*Link, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &Link{
		Addr: listener.Addr().String(), target: target, listener: listener,
		random: rand.New(rand.NewPCG(seed, 0)),
		state:  &state{over: make(chan struct{})},
		pairs:  make(map[*pair]struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(l.accept)
	return l, nil
}

// Set replaces the fault. The zero value ends it.
func (l *Link) Set(f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.state.over)
	l.state = &state{Fault: f, over: make(chan struct{})}
}

// Len returns how many connections there are.
func (l *Link) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pairs)
}

// Drop resets all connections that there are.
func (l *Link) Drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.reset()
	}
}

// Close stops listening, resets all connections and returns when nothing of the
// Link runs any more.
func (l *Link) Close() error {
	err := l.listener.Close()
	l.cancel()
	l.mu.Lock()
	l.closed = true
	for p := range l.pairs {
		p.reset()
	}
	l.mu.Unlock()
	l.wg.Wait()
	return err
}

func (l *Link) accept() {
	for {
		client, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // descriptors are short
			continue
		}
		l.wg.Go(func() { l.serve(client.(*net.TCPConn)) })
	}
}

// serve passes one connection on. A target that refuses is passed on as a
// reset, which is the nearest to it behind an accepted connection.
func (l *Link) serve(client *net.TCPConn) {
	nc, err := new(net.Dialer).DialContext(l.ctx, "tcp", l.target)
	if err != nil {
		client.SetLinger(0)
		client.Close()
		return
	}
	p := &pair{link: l, client: client, server: nc.(*net.TCPConn), over: make(chan struct{})}
	l.mu.Lock()
	if l.closed {
		p.reset()
	}
	l.pairs[p] = struct{}{}
	l.mu.Unlock()

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(p.server, p.client, ToServer) })
	pumps.Go(func() { p.pump(p.client, p.server, ToClient) })
	pumps.Wait()
	p.end(false)
	l.mu.Lock()
	delete(l.pairs, p)
	l.mu.Unlock()
}

func (l *Link) current() *state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// below returns a random number below n, or 0.
func (l *Link) below(n int) int {
	if n <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

// pair is a connection and the one that it is passed on by.
type pair struct {
	link           *Link
	client, server *net.TCPConn

	once sync.Once
	over chan struct{} // closed when both are
}

// end closes both connections.
func (p *pair) end(reset bool) {
	p.once.Do(func() {
		for _, c := range []*net.TCPConn{p.client, p.server} {
			if reset {
				c.SetLinger(0)
			}
			c.Close()
		}
		close(p.over)
	})
}

func (p *pair) reset() { p.end(true) }

// pump passes bytes on from src to dst until one of them ends.
func (p *pair) pump(dst, src *net.TCPConn, way Direction) {
	w := &oneWay{pair: p, dst: dst, way: way}
	buf := make([]byte, pieceSize)
	for {
		n, err := src.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			var ok bool
			if rest, ok = w.pass(rest); !ok {
				return
			}
		}
		if err == io.EOF {
			w.waitOut()
			dst.CloseWrite()
			return
		}
		if err != nil {
			p.reset()
			return
		}
	}
}

// oneWay is one direction of a pair.
type oneWay struct {
	pair *pair
	dst  *net.TCPConn
	way  Direction

	state   *state // under which left counts
	left    int    // bytes that pass before the end
	shut    bool   // nothing more is sent on
	corrupt corrupter
}

// look returns the fault as it is for this direction.
func (w *oneWay) look() *state {
	s := w.pair.link.current()
	if w.state != nil && w.state.over == s.over {
		return w.state
	}
	if s.Direction != Both && s.Direction != w.way {
		s = &state{over: s.over}
	}
	w.state, w.left = s, s.After+w.pair.link.below(s.Spread+1)
	return s
}

// pass sends the beginning of p on, as the fault has it, and returns the rest.
// It reports false when the connection is over.
func (w *oneWay) pass(p []byte) (rest []byte, ok bool) {
	s := w.look()
	if s.End != Open && w.left == 0 {
		switch s.End {
		case Cut:
			w.pair.end(false)
			return nil, false
		case Reset:
			w.pair.reset()
			return nil, false
		case HalfClose:
			if !w.shut {
				w.shut = true
				w.dst.CloseWrite()
			}
			return nil, true
		case Silence:
			return p, w.wait(s.over, 0)
		}
	}
	if w.shut {
		return nil, true
	}
	n := len(p)
	if s.End != Open {
		n = min(n, w.left)
	}
	if s.Drip > 0 {
		n = min(n, s.Drip)
	}
	delay := s.Delay + time.Duration(w.pair.link.below(int(s.Jitter)))
	if delay > 0 && !w.wait(s.over, delay) {
		return nil, false
	}
	w.corrupt.apply(s.Corrupt, p[:n], w.pair.link.below)
	if _, err := w.dst.Write(p[:n]); err != nil {
		w.pair.reset()
		return nil, false
	}
	w.left -= n
	return p[n:], true
}

// waitOut returns when the end of a connection may pass: no silence lasts.
func (w *oneWay) waitOut() {
	for s := w.look(); s.End == Silence && w.left == 0; s = w.look() {
		if !w.wait(s.over, 0) {
			return
		}
	}
}

// wait returns after d (0: never), when the fault is over, or with false when
// the connection is.
func (w *oneWay) wait(over <-chan struct{}, d time.Duration) bool {
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-over:
	case <-w.pair.over:
		return false
	}
	return true
}
