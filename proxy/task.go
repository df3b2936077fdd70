package proxy

import (
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// task is one command of a session on its way: read from the client, run on a
// backend, answered.
//
// A session runs one task at a time, in its own goroutine, unless the client
// has sent more commands ahead. Then tasks of different users run side by side
// and each reply waits for its turn.
type task struct {
	session *session
	client  client // of the snapshot with which the command began
	cmd     doveadm.Command
	input   *input // of a command that reads one
	read    int64  // bytes of it
	request request
	refused *refusal // the answer is known before a backend is asked
	out     output
	relay   relay
	res     result
	live    live
	trace   *traced // nil: nobody asks for it

	entered [2]string // the users for whom the command has passed the gate of moves
	within  int       // how many of them there are

	// Of a task that runs beside others; executed and answered are nil for one
	// that runs alone.
	after    *task         // the previous one for the same user
	executed chan struct{} // closed when no backend has to do with it any more
	answered chan struct{} // closed when its client has the reply
	ran      bool          // executed is closed
}

// hasRun lets the next task for the same user begin.
func (t *task) hasRun() {
	if !t.request.info.Tunnel { // that has only begun
		t.depart()
	}
	if t.executed != nil && !t.ran {
		t.ran = true
		close(t.executed)
	}
}

// runAlone runs a task in the session's goroutine and reports whether the
// session goes on.
func (s *session) runAlone(t *task) (keep bool) {
	t.out.start(s.out)
	keep = t.run()
	s.out = t.out.buffer()
	return keep
}

// pipeline is what a session knows of the tasks that run beside each other.
// Only the session's goroutine uses it.
type pipeline struct {
	slots chan struct{}    // holds one for each running task
	users map[string]*task // the last task of each user
	last  *task            // the last one of all
}

// runBeside starts a task in a goroutine of its own, as soon as there is a
// slot. The session joins it by waitForTasks.
func (s *session) runBeside(t *task, depth int) {
	p := &s.pipeline
	if cap(p.slots) != depth {
		s.waitForTasks()
		*p = pipeline{slots: make(chan struct{}, depth), users: make(map[string]*task)}
	}
	p.slots <- struct{}{}
	p.forgetUsers()
	user := s.proxy.snapshot.Load().names.User(t.cmd.User)
	t.executed, t.answered = make(chan struct{}), make(chan struct{})
	t.after = p.users[user]
	p.users[user] = t
	if p.last != nil {
		t.out.turn = p.last.answered
	}
	p.last = t
	s.running.Add(1)
	s.tasks.Go(func() {
		defer func() { <-p.slots }()
		defer s.running.Add(-1)
		// In this order also if run panics: the next in the row finds the
		// session ended.
		defer close(t.answered)
		defer t.hasRun()
		keep := false
		defer func() {
			if !keep {
				s.endAfterTasks()
			}
		}()
		defer s.reportPanic()
		if t.after != nil {
			<-t.after.executed
			t.after = nil
		}
		t.out.start(nil)
		keep = t.run()
	})
}

// forgetUsers keeps users from growing with the length of a batch: it drops
// those whose last task nobody has to wait for.
func (p *pipeline) forgetUsers() {
	if len(p.users) < 2*cap(p.slots) {
		return
	}
	for user, t := range p.users {
		select {
		case <-t.executed:
			delete(p.users, user)
		default:
		}
	}
}

// waitForTasks returns when no task runs.
func (s *session) waitForTasks() {
	s.tasks.Wait()
	s.pipeline = pipeline{}
}

// endAfterTasks ends the session: no further command is read, and no further
// reply is written.
func (s *session) endAfterTasks() {
	s.broken.Store(true)
	s.endWhenIdle()
}
