package pool

import (
	"io"
	"net"
	"os"
	"syscall"
)

// socket is what TLS is spoken over. It can be read without waiting, which TLS
// itself offers no way to do: a look at the bytes of the socket does not tell a
// session ticket or a key update, which may come at any time, from a reply.
type socket struct {
	net.Conn
	raw     syscall.RawConn // nil: no socket
	nowait  bool            // Read fails as by a deadline if there is nothing to read
	records records
}

func newSocket(nc net.Conn) *socket {
	s := &socket{Conn: nc}
	if sc, ok := nc.(syscall.Conn); ok {
		s.raw, _ = sc.SyscallConn()
	}
	return s
}

func (s *socket) Read(p []byte) (n int, err error) {
	if s.nowait {
		n, err = s.receive(p)
	} else {
		n, err = s.Conn.Read(p)
	}
	s.records.follow(p[:n])
	return n, err
}

// receive reads what there is. After os.ErrDeadlineExceeded, which package tls
// takes for a timeout, the TLS connection can be used on.
func (s *socket) receive(p []byte) (n int, err error) {
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

// inside reports whether a part of a record is missing.
func (r *records) inside() bool { return r.have > 0 || r.left > 0 }
