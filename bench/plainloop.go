package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// plainLoop is the plain relay without goroutines: a thread for each processor,
// as HAProxy has, that waits for its share of the sockets by epoll. It tells how
// much of what the plain relay costs is Go's way to wait for sockets, and so how
// fast a proxy in Go could be that had another.
type plainLoop struct {
	poll    *poller
	socks   []*plainSock // by descriptor
	idle    []*plainSock // connections to the backend
	waiting []*plainSock // clients with a request, the first came first
}

// plainSock is a client or a connection to the backend.
type plainSock struct {
	fd     int
	peer   *plainSock // the other end while a command runs; nil otherwise
	client bool
	logins int    // answers that its handshake still needs
	buf    []byte // a request, or the beginning of a reply
	n      int
}

// runPlainLoops serves clients of address. It returns only with an error.
func runPlainLoops(address, backend string) error {
	addr, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return err
	}
	failed := make(chan error)
	loops := runtime.NumCPU()
	for range loops {
		go func() { failed <- runPlainLoop(addr, backend, nullConns/loops) }()
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return <-failed
}

// runPlainLoop serves some of the clients of addr over so many connections.
func runPlainLoop(addr *net.TCPAddr, backend string, conns int) error {
	runtime.LockOSThread()
	poll, err := newPoller()
	if err != nil {
		return err
	}
	l := &plainLoop{poll: poll}
	for range conns {
		c, err := dialPlain(backend)
		if err != nil {
			return err
		}
		file, err := c.nc.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		defer file.Close()
		c.nc.Close() // Go's poller would be told of each reply, too
		fd := int(file.Fd())
		if err := unix.SetNonblock(fd, true); err != nil {
			return err
		}
		s, err := l.add(fd)
		if err != nil {
			return err
		}
		l.idle = append(l.idle, s)
	}
	listener, err := listen(addr, true)
	if err != nil {
		return err
	}
	if err := l.poll.add(listener, listener, unix.EPOLLIN); err != nil {
		return err
	}
	greeting := fmt.Appendf(nil, "VERSION\tdoveadm-client\t1\t%d\n-\n", doveadm.MinorExtraFields)
	for {
		events, err := l.poll.wait(-1)
		if err != nil {
			return err
		}
		for _, e := range events {
			fd := int(e.Fd)
			if fd == listener {
				err = l.accept(listener)
			} else if s := l.socks[fd]; s.client {
				err = l.request(s, greeting)
			} else {
				err = l.reply(s)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (l *plainLoop) add(fd int) (*plainSock, error) {
	for len(l.socks) <= fd {
		l.socks = append(l.socks, nil)
	}
	s := &plainSock{fd: fd, buf: make([]byte, 4096)}
	l.socks[fd] = s
	return s, l.poll.add(fd, fd, unix.EPOLLIN)
}

func (l *plainLoop) accept(listener int) error {
	fd, err := accept(listener)
	if err == errAgain {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := l.add(fd)
	if err != nil {
		return err
	}
	s.client, s.logins = true, 2
	return nil
}

// request reads from a client.
func (l *plainLoop) request(s *plainSock, greeting []byte) error {
	n, err := read(s.fd, s.buf)
	switch {
	case err == errAgain:
		return nil
	case err != nil || n == 0:
		unix.Close(s.fd)
		return nil
	case s.logins > 0:
		answer := greeting
		if s.logins--; s.logins == 0 {
			answer = []byte("+\n")
		}
		_, err = write(s.fd, answer)
		return err
	}
	s.n = n
	if len(l.idle) == 0 {
		l.waiting = append(l.waiting, s)
		return nil
	}
	c := l.idle[len(l.idle)-1]
	l.idle = l.idle[:len(l.idle)-1]
	return l.send(c, s)
}

// send has c run the request of s.
func (l *plainLoop) send(c, s *plainSock) error {
	c.peer, c.n = s, 0
	rest, err := write(c.fd, s.buf[:s.n])
	if len(rest) > 0 {
		return errPlain
	}
	return err
}

// reply reads from the backend.
func (l *plainLoop) reply(c *plainSock) error {
	n, err := read(c.fd, c.buf[c.n:])
	if err == errAgain {
		return nil
	}
	if err != nil || n == 0 || c.peer == nil {
		return errPlain
	}
	c.n += n
	if !bytes.HasSuffix(c.buf[:c.n], []byte("\n+\n")) {
		return nil
	}
	s, reply := c.peer, c.buf[:c.n]
	c.peer = nil
	if len(l.waiting) > 0 {
		// The next one first, so that the backend works meanwhile.
		next := l.waiting[0]
		l.waiting = append(l.waiting[:0], l.waiting[1:]...)
		if err := l.send(c, next); err != nil {
			return err
		}
	} else {
		l.idle = append(l.idle, c)
	}
	_, err = write(s.fd, reply)
	return err
}
