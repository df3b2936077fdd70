package proxy

import (
	"errors"
	"fmt"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

var (
	// ErrNoSession says that no session has a number.
	ErrNoSession = errors.New("no session has this number")
	// ErrNoCommand says that no command with a number runs in a session.
	ErrNoCommand = errors.New("no command with this number runs in the session")
	// ErrReplying says that the backend is done with a command, so that there
	// is nothing to end but the session.
	ErrReplying = errors.New("the backend has answered, and the client takes the reply: kill the session")
)

// killed is why a command or a session ended: an operator wanted it.
type killed struct{ what string }

func (k *killed) Error() string { return "an operator ended the " + k.what }

// killGrace is what a session that an operator ends has to tell its client so.
const killGrace = 3 * time.Second

// KillSession ends a session: its commands get a temporary failure that says
// why, its client is told, and the connection is closed. A client that does not
// take that within a few seconds is cut off. by is who wants it, for the log.
func (p *Proxy) KillSession(id uint64, by string) error {
	for _, s := range p.sorted() {
		if s.id == id {
			p.log.Warn("a session is ended", "session", id, "by", by)
			s.kill(&killed{"session"})
			return nil
		}
	}
	return fmt.Errorf("%w: %d", ErrNoSession, id)
}

// KillCommand ends a command: its connection to the backend is closed, and its
// client gets a temporary failure that says why. The session goes on.
// The backend notices at its next output, or at the command's end.
func (p *Proxy) KillCommand(session, number uint64, by string) error {
	for _, s := range p.sorted() {
		if s.id != session {
			continue
		}
		err := s.killCommand(number)
		if err == nil {
			p.log.Warn("a command is ended", "session", session, "number", number, "by", by)
		}
		return err
	}
	return fmt.Errorf("%w: %d", ErrNoSession, session)
}

func (s *session) killCommand(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := s.latest; t != nil; t = t.live.next {
		switch {
		case t.live.number != number:
		case t.live.phase == PhaseReply:
			return ErrReplying
		default:
			t.kill(&killed{"command"})
			return nil
		}
	}
	return fmt.Errorf("%w: %d.%d", ErrNoCommand, s.id, number)
}

func (s *session) kill(why *killed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killedBy != nil {
		return
	}
	s.killedBy = why
	s.ending = true
	for t := s.latest; t != nil; t = t.live.next {
		t.kill(why)
	}
	if s.reading {
		s.readUntil(time.Unix(1, 0))
	}
	s.cutter = time.AfterFunc(killGrace, func() { s.cut(why) })
}

// kill ends the task where it stands. The caller holds the session's mu.
func (t *task) kill(why *killed) {
	l := &t.live
	if l.killed != nil {
		return
	}
	stopped := t.stopped() != nil
	l.killed = why
	if !stopped {
		t.stopWaiting()
	}
	if l.conn != nil {
		l.conn.Cut()
	}
}

// wasKilled returns who ended the task, nil if nobody did.
func (t *task) wasKilled() *killed {
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	return t.live.killed
}

// wasKilled returns who ends the session, nil if nobody does.
func (s *session) wasKilled() *killed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killedBy
}

// tellKilled says goodbye to the client of a session that an operator ends.
func (s *session) tellKilled() {
	why := s.wasKilled()
	s.logger().Info("session closed", "client", s.client, "reason", why.Error())
	s.out = s.wire.AppendLog(s.out[:0], doveadm.LogError, logPrefix+why.Error())
	s.write(s.out)
	s.linger()
}
