// Package authmaster asks Dovecot's auth process what its passdb says of users,
// over the protocol of its auth-master and auth-userdb sockets.
//
//	c := authmaster.New("unix", "/run/dovecot/auth-userdb")
//	defer c.Close()
//	reply, found, err := c.Pass(ctx, "alice@example.com")
//
// Lookups share one connection, on which they do not wait for each other.
package authmaster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// ErrClosed says that the client was closed.
var ErrClosed = errors.New("the client is closed")

// errGone is why a lookup failed whose connection ended: it may be asked again.
type errGone struct{ error }

func (e errGone) Unwrap() error { return e.error }

// Client looks users up. It connects when it is asked, and again when the
// server closed the connection. All methods may be called from any goroutine.
type Client struct {
	network, address string

	mu      sync.Mutex
	conn    *conn // nil: none is open
	dialing chan struct{}
	closed  bool
	wg      sync.WaitGroup // readers
}

// New returns a client of the socket at an address.
func New(network, address string) *Client {
	return &Client{network: network, address: address}
}

// conn is one connection.
type conn struct {
	nc net.Conn

	mu      sync.Mutex
	nextID  uint32
	waiting map[uint32]chan<- result
	heard   time.Time // when the server said something for the last time
	err     error     // why the connection is of no use any more
}

// Pass returns the fields of the passdb for a user, false if it has none of
// that name. An error says that it could not be found out.
func (c *Client) Pass(ctx context.Context, user string) (Reply, bool, error) {
	for first := true; ; first = false {
		conn, fresh, err := c.connection(ctx)
		if err != nil {
			return Reply{}, false, fmt.Errorf("auth socket %s: %w", c.address, err)
		}
		r := conn.pass(ctx, user)
		// The server closes connections when it restarts; that a question was
		// lost then is nobody's business.
		if gone := (errGone{}); errors.As(r.err, &gone) {
			c.drop(conn)
			if first && !fresh && ctx.Err() == nil {
				continue
			}
		}
		if r.err != nil {
			return Reply{}, false, fmt.Errorf("auth socket %s: %w", c.address, r.err)
		}
		return r.reply, r.found, nil
	}
}

// connection returns the open connection, or a fresh one. One caller dials at a
// time.
func (c *Client) connection(ctx context.Context) (conn *conn, fresh bool, err error) {
	for {
		c.mu.Lock()
		switch {
		case c.closed:
			c.mu.Unlock()
			return nil, false, ErrClosed
		case c.conn != nil:
			conn := c.conn
			c.mu.Unlock()
			return conn, fresh, nil
		case c.dialing == nil:
			done := make(chan struct{})
			c.dialing = done
			c.mu.Unlock()
			conn, err := c.dial(ctx)
			c.mu.Lock()
			c.dialing = nil
			close(done)
			if err == nil && c.closed {
				conn.nc.Close()
				err = ErrClosed
			}
			if err == nil {
				c.conn = conn
				c.wg.Go(func() {
					conn.read()
					c.drop(conn)
				})
			}
			c.mu.Unlock()
			return conn, true, err
		}
		dialing := c.dialing
		c.mu.Unlock()
		select {
		case <-dialing:
			fresh = true
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
}

// dial opens a connection and reads the greeting.
func (c *Client) dial(ctx context.Context) (*conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, c.network, c.address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReaderSize(nc, maxReply)
	if _, err = fmt.Fprintf(nc, "VERSION\t%d\t%d\n", majorVersion, minorVersion); err == nil {
		err = handshake(r)
	}
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("no greeting: %w", context.Cause(ctx))
		}
		return nil, err
	}
	return &conn{nc: &greeted{nc, r}, waiting: make(map[uint32]chan<- result)}, nil
}

// greeted is a connection whose reader may have read more than the greeting.
type greeted struct {
	net.Conn
	r *bufio.Reader
}

// pass asks for one user and waits for the answer.
func (c *conn) pass(ctx context.Context, user string) result {
	answer := make(chan result, 1)
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return result{err: errGone{c.err}}
	}
	c.nextID++
	id := c.nextID
	request, err := appendRequest(nil, id, user)
	if err != nil {
		c.mu.Unlock()
		return result{err: err}
	}
	c.waiting[id] = answer
	asked := time.Now()
	// A few hundred bytes that the kernel takes at once, unless the server does
	// not read at all; then nobody's request would get through.
	if deadline, ok := ctx.Deadline(); ok {
		c.nc.SetWriteDeadline(deadline)
	}
	_, err = c.nc.Write(request)
	c.mu.Unlock()
	if err != nil {
		c.fail(err)
	}
	select {
	case r := <-answer:
		return r
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		silent := c.heard.Before(asked)
		c.mu.Unlock()
		err := fmt.Errorf("no answer in time: %w", context.Cause(ctx))
		if silent && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			// Not just a slow passdb, perhaps: the next one tries a new connection.
			c.fail(err)
			return result{err: errGone{err}}
		}
		return result{err: err}
	}
}

// read hands out answers until the connection ends.
func (c *conn) read() {
	r := c.nc.(*greeted).r
	for {
		line, err := readLine(r)
		if err != nil {
			c.fail(err)
			return
		}
		id, answer, err := parseReply(line)
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		c.heard = time.Now()
		waiting, ok := c.waiting[id]
		delete(c.waiting, id)
		known := ok || id <= c.nextID && id > 0 // else somebody who did not wait
		c.mu.Unlock()
		if !known {
			c.fail(fmt.Errorf("%w: an answer that nobody asked for", errProtocol))
			return
		}
		if ok {
			waiting <- answer
		}
	}
}

// fail ends a connection, and what waits for answers on it.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.nc.Close()
	}
	for id, waiting := range c.waiting {
		waiting <- result{err: errGone{c.err}}
		delete(c.waiting, id)
	}
}

// drop forgets a connection that is of no use any more.
func (c *Client) drop(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
}

// Close closes the connection and fails who waits for an answer.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.fail(ErrClosed)
	}
	c.wg.Wait()
}
