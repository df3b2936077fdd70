package proxy

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// sender writes to a socket without waiting. It is made once for a session: the
// runtime allocates for each look at a socket. Who writes holds session.writing.
type sender struct {
	nc    net.Conn
	raw   syscall.RawConn // nil: nc is no socket
	write func(fd uintptr) bool
	rest  []byte
	err   error
}

func (s *sender) use(nc net.Conn) {
	*s = sender{nc: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		s.raw, s.err = sc.SyscallConn()
		s.write = s.writeSome
	}
}

func (s *sender) writeSome(fd uintptr) bool {
	for len(s.rest) > 0 {
		n, err := syscall.Write(int(fd), s.rest)
		switch err {
		case nil:
			s.rest = s.rest[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			s.err = err
			return true
		}
	}
	return true
}

// trySend writes what the client's socket takes without waiting and returns the
// rest. Connections that are no sockets take nothing. The caller holds writing;
// no write deadline is set.
func (s *session) trySend(p []byte) ([]byte, error) {
	out := &s.sender
	if out.nc != s.nc {
		out.use(s.nc)
	}
	if out.raw == nil || out.err != nil || len(p) == 0 {
		return p, out.err
	}
	out.rest = p
	err := out.raw.Write(out.write)
	p, out.rest = out.rest, nil
	if err == nil {
		err, out.err = out.err, nil
	}
	return p, err
}

// sendWithin is trySend that waits for the client, for limit at most.
func (s *session) sendWithin(p []byte, limit time.Duration) ([]byte, error) {
	if s.sender.raw == nil {
		return p, nil // after half a record of TLS there could be no other
	}
	s.nc.SetWriteDeadline(time.Now().Add(limit))
	n, err := s.nc.Write(p)
	s.nc.SetWriteDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return p[n:], err
}
