package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ErrDrainTimeout is the cause with which commands are cut at the end of a
// shutdown.
var ErrDrainTimeout = errors.New("drain timeout is over")

// errShutdown is why sessions are closed and, at the end of a shutdown, cut.
var errShutdown = errors.New("shutting down")

// What Shutdown gives its sessions: those who connect meanwhile wait for its end.
const (
	quietTime = time.Second
	busyTime  = 5 * time.Second
)

// Drain says how a shutdown goes.
type Drain struct {
	// Released is called once when all listeners are closed and no connection
	// will be accepted any more.
	Released func()

	// Quiet is how long a session has to be silent before it is closed: a
	// client that has just connected, or has just had an answer, is about to
	// send a command, and the end of the connection would end its whole run
	// over many users.
	Quiet time.Duration

	// Busy is how long sessions that are never silent are served: after that
	// they end behind the command that runs.
	Busy time.Duration
}

// Shutdown stops accepting, closes silent sessions and waits for running
// commands to end. When ctx ends first it cuts them. It returns when
// everything that the proxy started has ended.
func (p *Proxy) Shutdown(ctx context.Context) error {
	return p.Drain(ctx, Drain{Quiet: quietTime, Busy: busyTime})
}

// Drain is Shutdown for a proxy that may take its time, because another one
// has taken its place.
func (p *Proxy) Drain(ctx context.Context, o Drain) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.mu.Lock()
	p.ending = true
	listeners := p.listeners
	p.listeners = nil
	p.mu.Unlock()

	if p.moves != nil {
		p.moves.StopMoves()
	}
	p.log.Info("closing listeners", "listeners", len(listeners))
	for _, l := range listeners {
		l.close()
	}
	p.accepting.Wait()
	if o.Released != nil {
		o.Released()
	}

	// What was accepted until now is a session like the others.
	p.mu.Lock()
	p.draining = true
	p.log.Info("waiting for running commands", "sessions", len(p.sessions))
	for s := range p.sessions {
		s.endWhenQuiet(o.Quiet)
	}
	p.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		p.cutNow(ErrDrainTimeout)
		p.mu.Lock()
		defer p.mu.Unlock()
		for s := range p.sessions {
			s.cut(errShutdown)
		}
	})
	busy := time.AfterFunc(o.Busy, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for s := range p.sessions {
			s.endWhenIdle()
		}
	})
	p.serving.Wait()
	busy.Stop()
	p.endPauses()

	p.closeMoves() // no command runs any more
	p.log.Info("closing connections to the backends")
	errs := []error{}
	p.snapshot.Load().table.Close()
	for _, pool := range p.snapshot.Load().without(nil) {
		errs = append(errs, pool.Close(p.cut))
	}
	p.retiring.Wait()
	if !stop() {
		errs = append(errs, fmt.Errorf("commands were cut off: %w", ErrDrainTimeout))
	}
	p.cutNow(nil)
	p.watching.Wait()
	p.audit.Close()
	return errors.Join(errs...)
}

// endWhenQuiet makes the session close as soon as its client has been silent
// for so long.
func (s *session) endWhenQuiet(quiet time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = quiet
	switch {
	case !s.reading || s.ending:
	case time.Since(s.waiting) > quiet:
		s.readUntil(time.Unix(1, 0))
	default:
		s.readUntil(time.Now().Add(quiet))
	}
}

// stillTalks reports whether a session that closes because its client is silent
// has a command after all, which arrived at the last moment.
func (s *session) stillTalks(err error) bool {
	s.mu.Lock()
	closing := s.quiet > 0 && !s.ending && s.gone == nil
	s.mu.Unlock()
	return closing && errors.Is(err, os.ErrDeadlineExceeded) && s.hasArrived()
}

// hasArrived reports whether there is anything to read, or that the end of the
// connection is.
func (s *session) hasArrived() bool {
	sc, ok := s.socket.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	arrived := false
	raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		arrived = err == nil
	})
	return arrived
}
