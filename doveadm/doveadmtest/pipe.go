package doveadmtest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how much one direction of a Pipe holds before writes block.
const pipeBuffer = 64 << 10

// Pipe returns the two ends of a connection in memory. It differs from net.Pipe
// in what it has in common with a socket: a write of up to 64 KiB does not wait
// for the reader, and what was written before Close is still read. It works in
// a testing/synctest bubble.
func Pipe() (client, server net.Conn) {
	up, down := newFlow(), newFlow()
	return &pipeConn{in: down, out: up}, &pipeConn{in: up, out: down}
}

// flow is one direction.
type flow struct {
	mu   sync.Mutex
	cond *sync.Cond // of any change below
	buf  []byte
	end  error // what the reader gets behind buf; set by the writer's Close
	gone bool  // the reader closed

	read, write deadline
}

type deadline struct {
	timer   *time.Timer
	expired bool
}

func newFlow() *flow {
	f := &flow{}
	f.cond = sync.NewCond(&f.mu)
	return f
}

func (f *flow) set(d *deadline, t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.timer, d.expired = nil, false
	switch wait := time.Until(t); {
	case t.IsZero():
	case wait <= 0:
		d.expired = true
	default:
		var timer *time.Timer
		timer = time.AfterFunc(wait, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			if d.timer == timer {
				d.expired = true
				f.cond.Broadcast()
			}
		})
		d.timer = timer
	}
	f.cond.Broadcast()
}

// stop ends the flow from one side and frees its timers.
func (f *flow) stop(d *deadline, change func()) {
	f.set(d, time.Time{})
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	f.cond.Broadcast()
}

type pipeConn struct {
	in, out *flow
}

func (c *pipeConn) Read(p []byte) (int, error) {
	f := c.in
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.gone:
			return 0, net.ErrClosed
		case f.read.expired:
			return 0, os.ErrDeadlineExceeded
		case len(f.buf) > 0:
			n := copy(p, f.buf)
			f.buf = f.buf[n:]
			f.cond.Broadcast()
			return n, nil
		case f.end != nil:
			return 0, f.end
		case len(p) == 0:
			return 0, nil
		}
		f.cond.Wait()
	}
}

func (c *pipeConn) Write(p []byte) (int, error) {
	f := c.out
	f.mu.Lock()
	defer f.mu.Unlock()
	written := 0
	for {
		switch {
		case f.end != nil:
			return written, net.ErrClosed
		case f.write.expired:
			return written, os.ErrDeadlineExceeded
		case f.gone:
			return written, syscall.EPIPE
		}
		n := min(len(p), pipeBuffer-len(f.buf))
		f.buf = append(f.buf, p[:n]...)
		p, written = p[n:], written+n
		f.cond.Broadcast()
		if len(p) == 0 {
			return written, nil
		}
		f.cond.Wait()
	}
}

func (c *pipeConn) Close() error { c.close(io.EOF); return nil }

// reset closes as a socket does that sends RST: what was not read is lost.
func (c *pipeConn) reset() { c.close(syscall.ECONNRESET) }

func (c *pipeConn) close(end error) {
	c.in.stop(&c.in.read, func() { c.in.gone, c.in.buf = true, nil })
	c.out.stop(&c.out.write, func() {
		if c.out.end != nil {
			return
		}
		if c.out.end = end; end != io.EOF {
			c.out.buf = nil
		}
	})
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.in.set(&c.in.read, t)
	return nil
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.set(&c.out.write, t)
	return nil
}

func (c *pipeConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	c.SetWriteDeadline(t)
	return nil
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (c *pipeConn) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr { return pipeAddr{} }
