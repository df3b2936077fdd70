// Package doveadmtest is a scripted doveadm server for tests. It speaks the
// handshake as a Dovecot server of a chosen minor version does and leaves each
// command to a function, which answers it or misbehaves as the test wants.
//
// It shares the encoding of fields and packets with package doveadm, but
// neither its handshake nor its reading of lines nor its STREAM format, so that
// a mistake there does not meet the same mistake here.
package doveadmtest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Options script a Server.
type Options struct {
	// Minor is the version of the server: 0 is Dovecot up to 2.2.32, which
	// greets before it has read anything; 1 is 2.2.34 to 2.3.8; 2 is 2.3.9 to
	// 2.3.21; 3 is 2.4; 4 is what comes after 2.4.4, which writes STREAM format
	// to clients that announced 4.
	Minor doveadm.Minor

	// GreetFirst makes a server of minor 1 behave as 2.2.33, which sends "-"
	// at once and its VERSION line later.
	GreetFirst bool

	// Password is what a client must send with the user name "doveadm". If it
	// is empty, the server greets with "+", as on a UNIX socket of mode 0600.
	Password string

	// TLS, if not nil, is spoken from the first byte on, or with STARTTLS true
	// by clients that ask for it. Minor has to be 2 or more for that.
	TLS      *tls.Config
	STARTTLS bool

	// Connected, if not nil, is called with each new connection before the
	// handshake. To go without a handshake, let it call Close, Reset or Hang.
	Connected func(c *Conn)

	// Handler, if not nil, is called for each command. It runs on the
	// connection's own goroutine, so at the same time as the handlers of other
	// connections. The command may be kept. A nil Handler answers "+".
	Handler func(c *Conn, cmd *doveadm.Command)

	// Address is where NewServer listens; "127.0.0.1:0" if empty. With the
	// address of a closed Server, the new one is that server come back.
	Address string
}

// Server is a scripted doveadm server. Its methods may be called at any time
// by any goroutine.
type Server struct {
	options  Options
	listener net.Listener // nil without a network
	ctx      context.Context
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex // guards what is below; never held during I/O
	closed   bool
	accepted int
	maxOpen  int
	conns    []*Conn
	commands []doveadm.Command
}

// NewServer listens on loopback. At the end of the test it closes every
// connection and waits for all its goroutines.
func NewServer(t testing.TB, o Options) *Server {
	t.Helper()
	address := o.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := NewPipeServer(t, o)
	s.listener = listener
	s.running.Go(func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			s.accept(nc)
		}
	})
	return s
}

// NewPipeServer returns a server without a listener for tests in a
// testing/synctest bubble: Dial connects to it over a Pipe.
func NewPipeServer(t testing.TB, o Options) *Server {
	s := &Server{options: o}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	t.Cleanup(s.Close)
	return s
}

// Addr is where the server listens, and "pipe" if it does not.
func (s *Server) Addr() string {
	if s.listener == nil {
		return "pipe"
	}
	return s.listener.Addr().String()
}

// Dial connects to the server. It can stand for net.Dialer.DialContext; the
// network and address are ignored.
func (s *Server) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if s.listener != nil {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	}
	client, server := Pipe()
	if !s.accept(server) {
		return nil, errors.New("doveadmtest: the server is closed")
	}
	return client, nil
}

// accept closes nc and returns false if the server is closed.
func (s *Server) accept(nc net.Conn) bool {
	c := &Conn{server: s, nc: nc}
	if s.options.TLS != nil && !s.options.STARTTLS {
		c.nc = tls.Server(nc, s.options.TLS)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		nc.Close()
		return false
	}
	s.accepted++
	c.number = s.accepted
	s.conns = append(s.conns, c)
	s.maxOpen = max(s.maxOpen, len(s.conns))
	s.running.Add(1)
	s.mu.Unlock()
	go c.serve()
	return true
}

func (s *Server) gone(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.conns, c); i >= 0 {
		s.conns = slices.Delete(s.conns, i, i+1)
	}
}

// Accepted is the number of connections so far.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// MaxOpen is the highest number of connections that were open together.
func (s *Server) MaxOpen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxOpen
}

// Conns returns the open connections in the order they came. A test can write
// to them and close them while they are idle.
func (s *Server) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conns)
}

// Commands returns the commands received on all connections, in the order they
// came. Without those OPTION requests that the server obeys.
func (s *Server) Commands() []doveadm.Command {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

func (s *Server) received(cmd *doveadm.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, *cmd)
}

// Close stops the server: the listener and all connections are closed, the
// Context of each Conn ends, and all handlers are waited for. The end of the
// test calls it, too. It must not be called by a Handler.
func (s *Server) Close() {
	s.cancel()
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Lock()
	s.closed = true
	conns := slices.Clone(s.conns)
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	s.running.Wait()
}
