package proxy

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// watchInterval is how often the clients of running commands are looked
	// at. One that is gone is found out within four of them.
	watchInterval = 200 * time.Millisecond
	// watchAtOnce bounds how many are looked at then: where more commands run,
	// finding out takes longer and costs no more.
	watchAtOnce = 1000
	// knockInterval is how often a client that has said all is sent nothing.
	knockInterval = time.Second
)

// errClientGone is why a session is cut whose client is gone.
var errClientGone = errors.New("the client closed the connection")

// watch looks for clients that went away while a command of theirs runs or
// waits: nobody reads from them then. It returns when p is cut off.
func (p *Proxy) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	var room, busy []*session // busy, a part of room, is those still to be looked at
	for {
		select {
		case <-p.cut.Done():
			return
		case <-ticker.C:
		}
		if p.commands.Load() == 0 {
			clear(busy)
			busy = nil
			continue
		}
		if len(busy) == 0 {
			room = room[:0]
			p.mu.Lock()
			for s := range p.sessions {
				if s.commands.Load() > 0 && !s.tunnels.Load() {
					room = append(room, s)
				}
			}
			p.mu.Unlock()
			busy = room
		}
		now := busy[:min(len(busy), watchAtOnce)]
		busy = busy[len(now):]
		for _, s := range now {
			// Its command may have ended meanwhile.
			if s.commands.Load() > 0 && !s.tunnels.Load() {
				s.lookForClient()
			}
		}
		clear(now)
	}
}

// lookForClient cuts the session if its client is gone. A client may have said
// all that it has to say and wait for the reply: from here that looks the same
// as one that closed, until it is sent something.
func (s *session) lookForClient() {
	events := poll(s.socket, unix.POLLRDHUP|unix.POLLOUT)
	switch {
	case events&(unix.POLLERR|unix.POLLHUP) != 0:
		s.cut(errClientGone)
	case events&unix.POLLRDHUP == 0:
	case s.knockAt.IsZero():
		s.knockAt = time.Now() // not at once: a command may be about to end
	case events&unix.POLLOUT != 0 && !time.Now().Before(s.knockAt):
		s.knock()
	}
}

// knock sends a client what means nothing. Where it has closed, its system
// answers with a reset. Clients of version 1.0 know nothing that means nothing.
func (s *session) knock() {
	if !s.writing.TryLock() {
		return // the write finds out
	}
	defer s.writing.Unlock()
	nothing := s.wire.AppendNothing(nil)
	if s.partial || len(nothing) == 0 {
		return
	}
	// The socket has room, as poll said.
	now := time.Now()
	s.knockAt = now.Add(knockInterval)
	s.nc.SetWriteDeadline(now.Add(watchInterval))
	s.nc.Write(nothing)
	s.nc.SetWriteDeadline(time.Time{})
}

// poll returns which of events hold, and those that are always asked for. Of
// what is no socket it knows none.
func poll(nc net.Conn, events int16) int16 {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	fds := []unix.PollFd{{Events: events}}
	raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		if _, err := unix.Poll(fds, 0); err != nil {
			fds[0].Revents = 0
		}
	})
	return fds[0].Revents
}
