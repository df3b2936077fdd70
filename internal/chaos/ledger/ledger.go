// Package ledger keeps the books of a run with faults: each command that was
// sent, what its client was told, what is found at the backends afterwards, and
// when which fault was there. Judge compares them.
//
// What it holds the proxy to:
//
//   - None is lost: each command gets an answer or sees the end of its session,
//     and what was told to be done is done.
//   - None is doubled: what a second run would leave twice is there once.
//   - None is wrong: a reply has what its own user has, all of it where it ends
//     in "+" and whole rows where it does not, and no failure says what is not so.
//   - Nobody else notices: where no fault is in the way of a command, it
//     succeeds, and no session ends but for a fault of its own client or of the
//     proxy itself.
package ledger

import (
	"slices"
	"sync"
	"time"
)

// Effect is what a command leaves behind for Judge to find.
type Effect uint8

const (
	None    Effect = iota
	Creates        // the mailbox Object
	Deletes        // the mailbox Object, which was there
	Saves          // the message Object; a second run leaves a second one
	Copies         // one message into the mailbox Object; likewise
)

// Command is what a client sent.
type Command struct {
	User   string
	Name   string
	Effect Effect
	Object string // unique among all commands with the same effect
	// Path is what the command passes: whatever can be the target of a fault.
	Path []string
}

// Answer is what the client was told.
type Answer uint8

const (
	Pending   Answer = iota // nothing yet
	Succeeded               // "+"
	Failed                  // another status
	Ended                   // the session ended before a status
	Left                    // the client did not wait for it
)

func (a Answer) String() string {
	return [...]string{"pending", "succeeded", "failed", "session ended", "client left"}[a]
}

// Entry is one command in the books.
type Entry struct {
	Command
	Sent, Told time.Time
	Answer     Answer
	Code       string // of a failure
	Why        string // what the log channel said, or how the session ended
	Problem    string // what is not so in the reply; empty: nothing
}

// Ledger takes the entries of all clients. Its methods may be called from any
// goroutine.
type Ledger struct {
	mu        sync.Mutex
	entries   []*Entry
	windows   []*Window
	succeeded map[string]time.Time // when the last success was sent, by what it passed
}

// Send writes down that c is about to be sent.
func (l *Ledger) Send(c Command) *Entry {
	e := &Entry{Command: c, Sent: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return e
}

// Tell writes down what the client was told. Code and why are of a failure,
// problem is what is not so in the reply.
func (l *Ledger) Tell(e *Entry, a Answer, code, why, problem string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.Told, e.Answer, e.Code, e.Why, e.Problem = time.Now(), a, code, why, problem
	if a != Succeeded {
		return
	}
	if l.succeeded == nil {
		l.succeeded = make(map[string]time.Time)
	}
	for _, target := range e.Path {
		if e.Sent.After(l.succeeded[target]) {
			l.succeeded[target] = e.Sent
		}
	}
}

// Window is the time of a fault.
type Window struct {
	Fault   string
	Targets []string // what of a Path it hits
	// Garbles: the bytes of replies are changed in a way that nobody can
	// detect. Rows may be wrong then, and nothing else.
	Garbles bool
	// Locks: processes of the backend may have been killed that held locks of
	// their users, or waited for them by a clock that was wrong.
	Locks bool
	// Harmless: nobody is to notice. It is no reason for anything.
	Harmless bool
	// Machine: not made, but seen: what all of this runs on was too slow.
	Machine  bool
	From, To time.Time // To is zero while it lasts
}

// Begin writes down that a fault begins, now unless From says when, and returns
// it for End.
func (l *Ledger) Begin(w Window) *Window {
	if w.From.IsZero() {
		w.From = time.Now()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.windows = append(l.windows, &w)
	return &w
}

// End writes down that a fault is over.
func (l *Ledger) End(w *Window) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.To = time.Now()
}

// Succeeded reports whether a command was sent after t and succeeded whose path
// has target.
func (l *Ledger) Succeeded(target string, t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.succeeded[target].After(t)
}

// Excused reports whether a fault at target, or what it left, may be the reason
// of what happened since t.
func (l *Ledger) Excused(target string, t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.windows, func(w *Window) bool {
		return !w.Harmless && slices.Contains(w.Targets, target) && (w.To.IsZero() || w.To.Add(Grace).After(t))
	})
}

// Len returns how many commands were sent so far.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}
