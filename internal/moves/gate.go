package moves

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of Gate.Enter. Each means that nothing of the command has begun.
var (
	// ErrStale says that the state of the database is not known, so that
	// nobody knows where a user is.
	ErrStale = errors.New("the database of moved users cannot be reached, so where users are is not known for sure (moves.lease)")
	// ErrHeld says that a command has waited for the end of a move for too long.
	ErrHeld = errors.New("the user is being moved")
)

// Exception says that a user is on a shard, whatever the routes say.
type Exception struct {
	Shard string
	From  string // the shard where it was
	Since time.Time
}

// Gate is what commands go through: it knows the exceptions, counts the commands
// that run for each user, and lets those wait whose user is on hold. All methods
// may be called from any goroutine.
type Gate struct {
	seed    maphash.Seed
	stripes [stripes]stripe

	maxWaiting  atomic.Int64 // commands of one user
	holdTimeout atomic.Int64 // of one command, nanoseconds

	// freshUntil is when the state is no longer known; nil: it is not known yet.
	freshUntil atomic.Pointer[time.Time]
	lasting    atomic.Bool // it is known as long as the process lives

	// quiet hears that the last command of a user on hold has ended.
	quiet chan struct{}
}

const stripes = 64

// stripe is a part of the users.
type stripe struct {
	mu         sync.Mutex // guards what follows; nothing waits under it
	running    map[string]int
	held       map[string]*hold
	exceptions map[string]Exception
	_          [32]byte // two stripes do not share a cache line
}

// hold is what keeps the commands of a user waiting, and those that wait, in the
// order in which they came.
type hold struct {
	move    string // its id
	mover   string // who moves the user
	waiters []*waiter
}

type waiter struct {
	user string
	let  chan struct{} // closed when the command may go on; it is counted then
}

func newGate() *Gate {
	g := &Gate{seed: maphash.MakeSeed(), quiet: make(chan struct{}, 1)}
	for i := range g.stripes {
		g.stripes[i].running = make(map[string]int)
		g.stripes[i].held = make(map[string]*hold)
		g.stripes[i].exceptions = make(map[string]Exception)
	}
	return g
}

func (g *Gate) stripe(user string) *stripe {
	return &g.stripes[maphash.String(g.seed, user)%stripes]
}

// Enter lets a command of user begin, which Leave ends. It waits while the user
// is on hold: until ctx ends, or for hold_timeout. Users are in normal form.
func (g *Gate) Enter(ctx context.Context, user string) error {
	if err := g.Fresh(); err != nil {
		return err
	}
	s := g.stripe(user)
	s.mu.Lock()
	h := s.held[user]
	if h == nil {
		s.running[user]++
		s.mu.Unlock()
		return nil
	}
	if most := g.maxWaiting.Load(); int64(len(h.waiters)) >= most {
		s.mu.Unlock()
		return fmt.Errorf("%w (move %s by %s), and %d of its commands wait already (moves.max_waiting)", ErrHeld, h.move, h.mover, most)
	}
	w := &waiter{user: user, let: make(chan struct{})}
	h.waiters = append(h.waiters, w)
	s.mu.Unlock()

	timeout := time.Duration(g.holdTimeout.Load())
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var err error
	select {
	case <-w.let:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-timer.C:
		err = errTimer
	}
	if err != nil {
		s.mu.Lock()
		h := s.held[user]
		// Who is no longer in the row has been let go on, and is counted.
		if h != nil && slices.Contains(h.waiters, w) {
			h.waiters = slices.DeleteFunc(h.waiters, func(o *waiter) bool { return o == w })
			move, mover := h.move, h.mover
			s.mu.Unlock()
			if err == errTimer {
				return fmt.Errorf("%w (move %s by %s), for longer than moves.hold_timeout (%s)", ErrHeld, move, mover, timeout)
			}
			return err
		}
		s.mu.Unlock()
	}
	if stale := g.Fresh(); stale != nil {
		err = stale
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if err == errTimer {
		err = nil
	}
	if err != nil {
		g.Leave(user)
	}
	return err
}

var errTimer = errors.New("moves: the timer of a command on hold")

// Leave ends what Enter began.
func (g *Gate) Leave(user string) {
	s := g.stripe(user)
	s.mu.Lock()
	n := s.running[user] - 1
	if n > 0 {
		s.running[user] = n
	} else {
		delete(s.running, user)
	}
	held := n == 0 && s.held[user] != nil
	s.mu.Unlock()
	if held {
		select {
		case g.quiet <- struct{}{}:
		default:
		}
	}
}

// Fresh returns ErrStale if it is not sure that the exceptions are all of them.
func (g *Gate) Fresh() error {
	until := g.freshUntil.Load()
	if until == nil {
		return ErrStale
	}
	if g.lasting.Load() {
		return nil
	}
	// By the monotonic clock, and by the other one in case the machine was
	// asleep.
	now := time.Now()
	if now.Before(*until) && now.Round(0).Before(until.Round(0)) {
		return nil
	}
	return ErrStale
}

// Find returns the exception of a user in normal form.
func (g *Gate) Find(user string) (Exception, bool) {
	s := g.stripe(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.exceptions[user]
	return e, ok
}

// Running returns how many commands of the user run here.
func (g *Gate) Running(user string) int {
	s := g.stripe(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running[user]
}

// Waiting returns how many commands of the user wait here for the end of a move.
func (g *Gate) Waiting(user string) int {
	s := g.stripe(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[user]; h != nil {
		return len(h.waiters)
	}
	return 0
}

// Users returns those who have an exception, sorted.
func (g *Gate) Users() []string {
	var users []string
	for i := range g.stripes {
		s := &g.stripes[i]
		s.mu.Lock()
		for user := range s.exceptions {
			users = append(users, user)
		}
		s.mu.Unlock()
	}
	slices.Sort(users)
	return users
}

// apply takes over what the database says of a user: the exception and whether
// it is on hold, both at the same moment.
func (g *Gate) apply(r row) {
	s := g.stripe(r.user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.shard != "" {
		s.exceptions[r.user] = Exception{Shard: r.shard, From: r.from, Since: time.UnixMilli(r.since).UTC()}
	} else {
		delete(s.exceptions, r.user)
	}
	h := s.held[r.user]
	switch {
	case r.move.phase == phaseHold && h == nil:
		s.held[r.user] = &hold{move: r.move.id, mover: r.move.moverName}
	case r.move.phase == phaseHold:
		h.move, h.mover = r.move.id, r.move.moverName // one move has followed another
	case h != nil:
		delete(s.held, r.user)
		for _, w := range h.waiters {
			s.running[r.user]++
			close(w.let)
		}
	}
}

// known returns all users of whom there is anything to know.
func (g *Gate) known() []string {
	var users []string
	for i := range g.stripes {
		s := &g.stripes[i]
		s.mu.Lock()
		for user := range s.exceptions {
			users = append(users, user)
		}
		for user := range s.held {
			if _, ok := s.exceptions[user]; !ok {
				users = append(users, user)
			}
		}
		s.mu.Unlock()
	}
	return users
}

// isQuiet reports whether the user is on hold by this move and none of its
// commands runs.
func (g *Gate) isQuiet(user, move string) bool {
	s := g.stripe(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[user]
	return h != nil && h.move == move && s.running[user] == 0
}

// fresh says until when the state is known.
func (g *Gate) fresh(until time.Time) { g.freshUntil.Store(&until) }

// Exception is Find for routes.
func (g *Gate) Exception(user string) (shard string, since time.Time, ok bool) {
	e, ok := g.Find(user)
	return e.Shard, e.Since, ok
}
