package proxy

import (
	"context"
	"time"
)

// Most sessions and commands never wait for anything but their sockets, so what
// they would wait with is made when they do.

// context is over when the session is cut.
func (s *session) context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.madeContext()
}

// madeContext is context for who holds mu.
func (s *session) madeContext() context.Context {
	if s.over == nil {
		s.over, s.end = context.WithCancelCause(context.Background())
		if s.gone != nil {
			s.end(s.gone)
		}
	}
	return s.over
}

// untilCut is the context of a session.
type untilCut struct{ *session }

func (c untilCut) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c untilCut) Done() <-chan struct{}       { return c.context().Done() }
func (c untilCut) Err() error                  { return c.context().Err() }
func (c untilCut) Value(key any) any           { return c.context().Value(key) }

// untilLate is the context of a login: over with the session, and at loginBy.
type untilLate struct{ *session }

func (c untilLate) Deadline() (time.Time, bool) { return c.loginBy, true }
func (c untilLate) Done() <-chan struct{}       { return c.made().Done() }
func (c untilLate) Err() error                  { return c.made().Err() }
func (c untilLate) Value(key any) any           { return c.made().Value(key) }

func (c untilLate) made() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.login == nil {
		c.login, c.loginEnd = context.WithDeadline(c.madeContext(), c.loginBy)
	}
	return c.login
}

// endLogin ends the context of the login. It stays: who has it may ask it late.
func (s *session) endLogin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login != nil {
		s.loginEnd()
	}
}

// waits is the context for what a task waits for: it ends with the task, with
// the session, and when an operator ends the command. The one that waits is the
// task itself, but a context that is derived from it is asked by its timer, too,
// and after the end (see nextTask).
type waits struct{ task *task }

func (w waits) Deadline() (time.Time, bool) { return time.Time{}, false }
func (w waits) Done() <-chan struct{}       { return w.made().Done() }
func (w waits) Err() error                  { return w.made().Err() }
func (w waits) Value(key any) any           { return w.made().Value(key) }

// made returns the context that w stands for.
func (w waits) made() context.Context {
	t := w.task
	s := t.session
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &t.live
	if l.waits == nil {
		l.waits, l.stop = context.WithCancelCause(s.madeContext())
		t.waiting()
		if l.killed != nil {
			l.stop(l.killed)
		}
	}
	return l.waits
}

// waiting tells those who ask that the task waits. The caller holds the
// session's mu.
func (t *task) waiting() {
	t.live.shard = t.res.shard
	if t.live.phase == PhaseBegins {
		t.live.phase = PhaseWaiting
	}
}

// queues is waits for the queue of a pool, where many commands wait: no memory
// is needed for each. Contexts are not to be derived from it.
type queues struct{ task *task }

func (q queues) Deadline() (time.Time, bool) { return time.Time{}, false }
func (q queues) Value(any) any               { return nil }

// Err returns why the wait has ended.
func (q queues) Err() error {
	t := q.task
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	return t.stopped()
}

// stopped returns why the task shall wait no longer. The caller holds the
// session's mu.
func (t *task) stopped() error {
	switch {
	case t.session.gone != nil:
		return t.session.gone
	case t.live.killed != nil:
		return t.live.killed
	}
	return nil
}

// Done returns a channel that the session uses again, unless it was closed.
func (q queues) Done() <-chan struct{} {
	t := q.task
	s := t.session
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &t.live
	if l.halt == nil {
		if l.halt = s.spareHalt; l.halt == nil {
			l.halt = make(chan struct{})
		}
		s.spareHalt = nil
		t.waiting()
		if t.stopped() != nil {
			close(l.halt)
		}
	}
	return l.halt
}

// stopWaiting ends the waits of the task, for a reason that stopped returns from
// now on. The caller holds the session's mu, and calls it once.
func (t *task) stopWaiting() {
	if t.live.stop != nil {
		t.live.stop(t.stopped())
	}
	if t.live.halt != nil {
		close(t.live.halt)
	}
}

// waited ends what waits and queues have made. The caller holds the session's
// mu.
func (t *task) waited() {
	if t.live.stop != nil {
		t.live.stop(nil)
	}
	if t.live.halt != nil && t.stopped() == nil {
		t.session.spareHalt = t.live.halt
	}
}
