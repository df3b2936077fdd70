package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller waits for sockets. It is epoll, used by one thread: a goroutine for
// each socket, with the reads that find nothing and the waking up that go with
// it, would take more of the machine than what is measured.
type poller struct {
	fd     int
	events [512]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) close() { unix.Close(p.fd) }

// add has fd watched; its events name slot.
func (p *poller) add(fd, slot int, events uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, fd, slot, events)
}

func (p *poller) change(fd, slot int, events uint32) error {
	return p.control(unix.EPOLL_CTL_MOD, fd, slot, events)
}

func (p *poller) control(op, fd, slot int, events uint32) error {
	e := unix.EpollEvent{Events: events, Fd: int32(slot)}
	if err := unix.EpollCtl(p.fd, op, fd, &e); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// wait returns what happened, after timeout at the latest; below 0: never.
func (p *poller) wait(timeout time.Duration) ([]unix.EpollEvent, error) {
	if timeout > 0 && timeout < time.Millisecond {
		return p.waitFine(timeout)
	}
	ms := -1
	if timeout >= 0 {
		ms = int(timeout.Milliseconds())
	}
	n, err := unix.EpollWait(p.fd, p.events[:], ms)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return p.events[:n], nil
}

// waitFine waits for less than the unit of epoll_wait by select on the epoll
// descriptor, which can be read when it has events.
func (p *poller) waitFine(timeout time.Duration) ([]unix.EpollEvent, error) {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	ts := unix.NsecToTimespec(int64(timeout))
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("ppoll: %w", err)
	}
	return p.wait(0)
}

// write writes what the socket takes and returns the rest.
func write(fd int, p []byte) ([]byte, error) {
	for len(p) > 0 {
		n, err := rawWrite(fd, p)
		switch err {
		case 0:
			p = p[n:]
		case syscall.EAGAIN:
			return p, nil
		case syscall.EINTR:
		default:
			return p, err
		}
	}
	return nil, nil
}

// errAgain is a read that found nothing.
var errAgain = errors.New("nothing to read")

// read reads once. Zero bytes are the end of the stream.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := rawRead(fd, p)
		switch err {
		case 0:
			return n, nil
		case syscall.EAGAIN:
			return 0, errAgain
		case syscall.EINTR:
		default:
			return 0, err
		}
	}
}
