// Package tlsconn reads TLS connections without waiting, which package tls
// offers no way to do. To look at the socket beneath is not enough: what comes
// there may be a session ticket or a key update, and what has been read ahead
// of it is in the TLS connection.
package tlsconn

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Socket is what TLS is spoken over. Its methods other than those of net.Conn
// belong to whoever reads the TLS connection.
type Socket struct {
	net.Conn
	raw     syscall.RawConn // nil: no socket
	nowait  bool
	records records
}

// New returns the Socket on nc. The socket beneath is nc itself, or what it is
// made of, from where nothing more has been read ahead when Now is called.
func New(nc, socket net.Conn) *Socket {
	s := &Socket{Conn: nc}
	if sc, ok := socket.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

// Now calls read, which reads the TLS connection, and lets it fail with
// os.ErrDeadlineExceeded instead of wait. The TLS connection can be used on
// after that error. Deadlines do not matter. Without a socket, for instance on
// a pipe, it returns that error at once.
func (s *Socket) Now(read func() error) error {
	if s.raw == nil {
		return os.ErrDeadlineExceeded
	}
	s.nowait = true
	defer func() { s.nowait = false }()
	return read()
}

// Inside reports whether a part of a record has come and the rest has not.
func (s *Socket) Inside() bool { return s.records.inside() }

// CloseWrite sends a FIN where that is possible.
func (s *Socket) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// Read is for the TLS connection.
func (s *Socket) Read(p []byte) (n int, err error) {
	if s.nowait {
		n, err = s.receive(p)
	} else {
		n, err = s.Conn.Read(p)
	}
	s.records.follow(p[:n])
	return n, err
}

// receive reads what there is. Package tls takes os.ErrDeadlineExceeded for a
// timeout, after which it goes on where it was.
func (s *Socket) receive(p []byte) (n int, err error) {
	var readErr error
	// Control and not Read: deadlines do not matter here.
	err = s.raw.Control(func(fd uintptr) {
		n, _, readErr = syscall.Recvfrom(int(fd), p, syscall.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return 0, err
	case readErr == syscall.EAGAIN || readErr == syscall.EINTR:
		return 0, os.ErrDeadlineExceeded
	case readErr != nil:
		return 0, os.NewSyscallError("recvfrom", readErr)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// records follows the records of a TLS connection, which begin with their
// type, version and length (RFC 8446, 5.1).
type records struct {
	header [5]byte
	have   int // bytes of the header that have come
	left   int // bytes of the record that are still to come
}

func (r *records) follow(p []byte) {
	for len(p) > 0 {
		if r.left > 0 {
			n := min(r.left, len(p))
			r.left -= n
			p = p[n:]
			continue
		}
		n := copy(r.header[r.have:], p)
		r.have += n
		p = p[n:]
		if r.have == len(r.header) {
			r.left = int(r.header[3])<<8 | int(r.header[4])
			r.have = 0
		}
	}
}

func (r *records) inside() bool { return r.have > 0 || r.left > 0 }
