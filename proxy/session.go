package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// session is one client connection from accept to close. Its goroutine reads a
// command, runs it to its end, and reads the next.
type session struct {
	proxy    *Proxy
	listener *listener
	nc       net.Conn
	wire     *doveadm.ServerConn
	log      hclog.Logger
	client   string // who logged in
	cmd      doveadm.Command
	out      []byte // what goes to the client next

	// mu guards what follows.
	mu      sync.Mutex
	busy    bool       // a command runs
	ending  bool       // no further command is read
	gone    bool       // cut
	backend *pool.Conn // that runs the command
}

const (
	// failureDelay is how long a failed login waits for its answer.
	failureDelay = 500 * time.Millisecond
	// lingerTime and lingerBytes bound how long a session reads what its
	// client still sends after the proxy has closed, so that the last lines
	// reach the client instead of a reset.
	lingerTime  = 2 * time.Second
	lingerBytes = 32 << 20
)

func newSession(p *Proxy, l *listener, nc net.Conn) *session {
	return &session{
		proxy:    p,
		listener: l,
		nc:       nc,
		wire:     doveadm.NewServerConn(nc, 0),
		log:      p.log.With("session", p.nextID.Add(1), "peer", peerName(nc)),
	}
}

func (s *session) serve() {
	defer s.forget()
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("session ended by a bug", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	if err := s.handshake(); err != nil {
		return
	}
	s.serveCommands()
}

// forget closes the connection and takes the session out of the books.
func (s *session) forget() {
	s.nc.Close()
	p := s.proxy
	p.mu.Lock()
	delete(p.sessions, s)
	p.mu.Unlock()
	s.listener.sessions.Add(-1)
}

// handshake greets and logs the client in, all of it within one deadline.
func (s *session) handshake() error {
	limits := s.proxy.snapshot.Load().config.Limits
	deadline := time.Now().Add(limits.HandshakeTimeout)
	s.nc.SetDeadline(deadline)
	ctx, cancel := context.WithDeadline(s.proxy.cut, deadline)
	defer cancel()

	authenticate := func(username, password string) (bool, error) {
		s.client = username
		return s.proxy.snapshot.Load().verifier.Verify(ctx, username, password)
	}
	if trusted := s.listener.config().Client; trusted != "" {
		s.client = trusted
		authenticate = nil
	}
	err := s.wire.Handshake(authenticate)
	if err == nil {
		s.nc.SetDeadline(time.Time{})
		s.log.Debug("logged in", "client", s.client, "minor", uint32(s.wire.ClientMinor()))
		return nil
	}
	s.handshakeFailed(err, deadline)
	return err
}

func (s *session) handshakeFailed(err error, deadline time.Time) {
	var bad *doveadm.ProtocolError
	switch {
	case errors.Is(err, doveadm.ErrLoginFailed):
		s.log.Warn("login failed: wrong name or password", "client", printable(s.client))
	case errors.As(err, &bad):
		s.log.Warn("handshake failed", "reason", bad.What)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		s.log.Warn("handshake failed", "reason", "not logged in within handshake_timeout")
		return
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.log.Debug("handshake failed", "reason", err)
		return
	default:
		s.log.Info("handshake failed", "reason", err)
		return
	}
	// Dovecot answers at once; a guesser shall not learn as fast.
	pause := time.NewTimer(min(failureDelay, time.Until(deadline)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.proxy.cut.Done():
	}
	s.wire.RefuseLogin()
	s.linger()
}

func (s *session) serveCommands() {
	for s.mayRead() {
		err := s.wire.ReadCommand(&s.cmd)
		if !s.begin(err) {
			return
		}
		keep := s.run()
		s.wire.Shrink()
		if !keep {
			s.linger()
			return
		}
	}
	s.linger()
}

// mayRead prepares for the next command and reports whether there shall be
// one.
func (s *session) mayRead() bool {
	idle := s.proxy.snapshot.Load().config.Limits.IdleTimeout
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
	if s.ending || s.gone {
		return false
	}
	if idle > 0 {
		s.nc.SetReadDeadline(time.Now().Add(idle))
	}
	return true
}

// begin takes a command that was read and reports whether it is to be run.
func (s *session) begin(err error) bool {
	s.mu.Lock()
	s.busy = err == nil && !s.gone
	gone, ending := s.gone, s.ending || s.gone
	s.mu.Unlock()

	var flag doveadm.UnknownFlagError
	switch {
	case err == nil:
		return !gone
	case ending:
		s.log.Debug("session closed", "reason", "shutting down")
		s.linger()
	case errors.Is(err, io.EOF):
		s.log.Debug("session closed by client")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.log.Info("session closed", "reason", "idle_timeout", "client", s.client)
	case errors.Is(err, doveadm.ErrNoCommand), errors.Is(err, doveadm.ErrNUL), errors.As(err, &flag):
		s.refuseLine("doveadm client: " + err.Error())
	case errors.Is(err, doveadm.ErrLineTooLong):
		s.refuseLine(fmt.Sprintf("doveadm client: command line is longer than %d bytes", doveadm.MaxLine))
	default:
		s.log.Info("session lost", "client", s.client, "error", err)
	}
	return false
}

// refuseLine ends a session after a line that is no command, as Dovecot does:
// a log line and no status.
func (s *session) refuseLine(text string) {
	s.log.Warn("session closed", "client", s.client, "reason", text)
	s.out = s.wire.AppendLog(s.out[:0], doveadm.LogError, logPrefix+text)
	s.write(s.out)
	s.linger()
}

// logPrefix begins the log lines that clients get from the proxy itself.
const logPrefix = "doveadm-proxy: "

// write sends p within write_timeout.
func (s *session) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	s.nc.SetWriteDeadline(time.Now().Add(s.proxy.snapshot.Load().config.Limits.WriteTimeout))
	_, err := s.nc.Write(p)
	return err
}

// linger ends the connection so that the client reads everything that was
// written: closing with unread bytes would send a reset, which overtakes them.
func (s *session) linger() {
	half, ok := s.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	s.mu.Lock()
	s.nc.SetReadDeadline(time.Now().Add(lingerTime))
	s.mu.Unlock()
	io.CopyN(io.Discard, s.nc, lingerBytes)
}

// endWhenIdle makes the session close: now if it waits for a command, else
// after the one that runs.
func (s *session) endWhenIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	if !s.busy {
		s.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// cut ends the session in the middle of what it does.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	s.nc.Close()
	if s.backend != nil {
		s.backend.Client().Close()
	}
}

// hold remembers the connection that runs the command, so that cut reaches it.
// It reports false if the session has been cut.
func (s *session) hold(c *pool.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backend = c
	return !s.gone
}

// printable makes text from a peer fit for a log.
func printable(text string) string {
	if len(text) > 256 {
		text = text[:256] + "..."
	}
	for _, r := range text {
		if !strconv.IsPrint(r) {
			return strconv.Quote(text)
		}
	}
	return text
}
