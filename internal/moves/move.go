package moves

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// maxUser bounds the name of a user who is moved, in bytes: an index of MySQL
// holds so much.
const maxUser = 512

// Step is a step of a move, in the order in which they are reported.
type Step string

// The steps.
const (
	StepCopy     Step = "copy"        // the copy begins; nobody waits
	StepPrepare  Step = "prepare"     // the proxies are told
	StepHold     Step = "hold"        // new commands of the user wait, running ones are waited for
	StepQuiet    Step = "quiet"       // none runs any more, on any proxy
	StepSwitch   Step = "switch"      // to be written
	StepDone     Step = "done"        // written: commands go to the new shard
	StepRollBack Step = "rolled back" // the user stays where it was
)

// Move is what is to be done with a user, who is in normal form.
type Move struct {
	User, From, To string

	// Exception is the shard of the exception with which From was found out;
	// empty: there was none. With another one the move is not made.
	Exception string

	// Forget: the exception goes. To is the shard that the routes say.
	Forget bool

	// MaxHold bounds the time for which commands wait; 0: as it is configured.
	MaxHold time.Duration

	// Copy copies the mail while commands go on, CopyHeld what has changed since
	// while they wait. An error of theirs ends the move. Each may be nil.
	Copy, CopyHeld func(ctx context.Context) error

	// Report, unless it is nil, hears of each step before it is made.
	Report func(step Step, detail string)
}

// Result is what a move was like.
type Result struct {
	ID      string
	Held    time.Duration // from before the hold until this proxy has ended it
	Total   time.Duration
	Waiting int // commands that waited on this proxy when it was switched
}

// Move makes a move. With an error the user is where it was, unless it is an
// *UnknownError.
func (n *Node) Move(ctx context.Context, m Move) (Result, error) {
	if err := n.beginMoving(); err != nil {
		return Result{}, err
	}
	defer n.movers.Done()
	switch {
	case len(m.User) > maxUser:
		return Result{}, fmt.Errorf("user names of more than %d bytes cannot be moved", maxUser)
	case !utf8.ValidString(m.User) || strings.Contains(m.User, "\x00"):
		return Result{}, errors.New("the name of the user is not UTF-8")
	}
	if err := n.Gate.Fresh(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(n.moving, func() { cancel(context.Cause(n.moving)) })
	defer stop()
	a := &attempt{node: n, Move: m, id: rand.Text()[:12], start: time.Now()}
	if a.MaxHold == 0 {
		a.MaxHold = n.settings.Load().MaxHold
	}
	result, err := a.run(ctx, cancel)
	if err != nil {
		n.stats.failed.Add(1)
		n.log.Warn("move failed", "user", m.User, "from", m.From, "to", m.To, "move", a.id, "held_ms", result.Held.Milliseconds(), "error", err)
		return result, err
	}
	n.stats.moved.Add(1)
	for longest := n.stats.longest.Load(); int64(result.Held) > longest && !n.stats.longest.CompareAndSwap(longest, int64(result.Held)); longest = n.stats.longest.Load() {
	}
	n.log.Info("moved", "user", m.User, "from", m.From, "to", m.To, "exception", !m.Forget, "move", a.id, "held_ms", result.Held.Milliseconds(), "total_ms", result.Total.Milliseconds())
	return result, nil
}

func (n *Node) beginMoving() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return ErrStopping
	}
	n.movers.Add(1)
	return nil
}

// UnknownError says that it is not known whether a move has happened: the
// database was lost while it was written. Commands of the user wait, and fail,
// until the database says it.
type UnknownError struct{ Err error }

func (e *UnknownError) Error() string {
	return "it is not known whether the user was moved: ask by \"user show\" when the database can be reached again: " + e.Err.Error()
}
func (e *UnknownError) Unwrap() error { return e.Err }

// attempt is a Move under way.
type attempt struct {
	Move
	node  *Node
	id    string
	start time.Time
}

func (a *attempt) report(step Step, detail string) {
	a.node.log.Debug("move", "user", a.User, "move", a.id, "step", string(step), "detail", detail)
	if a.Report != nil {
		a.Report(step, detail)
	}
}

func (a *attempt) run(ctx context.Context, cancel context.CancelCauseFunc) (r Result, err error) {
	r.ID = a.id
	n := a.node
	first := phasePrepare
	if a.Copy != nil {
		first = phaseCopy
	}
	err = n.brief(ctx, func(ctx context.Context) error {
		return n.store.begin(ctx, a.User, moveRow{id: a.id, phase: first, to: a.To, moverName: n.name}, n.id, moveLease)
	})
	if err != nil {
		// A row that was written nevertheless is over when its lease ends.
		return r, err
	}
	keeping, stopKeeping := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		a.keep(keeping, cancel)
	}()
	defer func() {
		stopKeeping()
		<-kept
		r.Total = time.Since(a.start)
	}()

	err = a.phases(ctx, first, &r)
	if err == nil {
		a.report(StepDone, "")
		return r, nil
	}
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
		err = cause
	}
	return r, a.rollBack(ctx, err)
}

func (a *attempt) phases(ctx context.Context, phase string, r *Result) error {
	n := a.node
	var now row
	err := n.brief(ctx, func(ctx context.Context) (err error) {
		now, err = n.store.user(ctx, a.User)
		return err
	})
	switch {
	case err != nil:
		return err
	case now.move.id != a.id:
		return ErrEnded
	case now.shard != a.Exception:
		return errors.New("the user was moved by another proxy a moment ago: look at \"user show\", and try again")
	}
	if phase == phaseCopy {
		a.report(StepCopy, "")
		if err := a.Copy(ctx); err != nil {
			return err
		}
	}
	a.report(StepPrepare, "")
	if phase == phaseCopy {
		if err := n.brief(ctx, func(ctx context.Context) error { return n.store.enter(ctx, a.User, a.id, phasePrepare, moveLease) }); err != nil {
			return err
		}
	}
	n.nudge()
	// The proxies learn of it before anybody waits, so that the hold does not
	// last as long as the slowest takes to look.
	answering, cancel := context.WithTimeout(ctx, n.settings.Load().AnswerTimeout)
	defer cancel()
	if err := a.await(answering, phasePrepare); err != nil {
		return a.explain(ctx, err, fmt.Sprintf("within moves.answer_timeout (%s)", n.settings.Load().AnswerTimeout))
	}

	a.report(StepHold, "")
	begin := time.Now()
	defer func() { r.Held = time.Since(begin) }()
	held, cancel := context.WithTimeout(ctx, a.MaxHold)
	defer cancel()
	bound := fmt.Sprintf("within the time for which a user may be on hold (%s: max_hold)", a.MaxHold)
	if err := n.store.enter(held, a.User, a.id, phaseHold, moveLease); err != nil {
		return err
	}
	n.nudge()
	if err := a.await(held, phaseHold); err != nil {
		return a.explain(ctx, err, bound)
	}
	a.report(StepQuiet, "")
	if a.CopyHeld != nil {
		if err := a.CopyHeld(held); err != nil {
			if held.Err() != nil && ctx.Err() == nil {
				err = fmt.Errorf("the mail was not copied and compared %s: %w", bound, err)
			}
			return err
		}
	}
	a.report(StepSwitch, "")
	to := a.To
	if a.Forget {
		to = ""
	}
	r.Waiting = n.Gate.Waiting(a.User)
	if held.Err() != nil {
		return a.explain(ctx, held.Err(), bound)
	}
	err = n.store.commit(held, a.User, a.id, a.From, to)
	var unsure *commitError
	if errors.As(err, &unsure) {
		err = a.findOut(ctx, unsure)
	}
	if err != nil {
		return err
	}
	n.nudge()
	a.released(ctx)
	return nil
}

// keep renews the lease of the move.
func (a *attempt) keep(ctx context.Context, cancel context.CancelCauseFunc) {
	ticker := time.NewTicker(moveLease / 5)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		within, stop := context.WithTimeout(ctx, moveLease/5)
		err := a.node.store.prolong(within, a.User, a.id, moveLease)
		stop()
		if errors.Is(err, ErrEnded) {
			// Or it was switched a moment ago; then nobody looks at this.
			cancel(ErrEnded)
			return
		}
	}
}

// await waits until all members have answered.
func (a *attempt) await(ctx context.Context, phase string) error {
	ticker := time.NewTicker(fastPoll / 2)
	defer ticker.Stop()
	var last []member
	for {
		silent, err := a.node.store.silent(ctx, a.id, phase)
		switch {
		case err == nil && len(silent) == 0:
			return nil
		case err == nil:
			last = silent
		}
		select {
		case <-ctx.Done():
			if last == nil {
				return errors.Join(ctx.Err(), err)
			}
			return &silentError{phase, last}
		case <-ticker.C:
		}
	}
}

// silentError names the members that have not answered.
type silentError struct {
	phase   string
	members []member
}

func (e *silentError) Error() string {
	var names []string
	for _, m := range e.members {
		name := m.name
		if m.left > 0 && m.left < endless/2 {
			name += fmt.Sprintf(" (its lease ends in %s)", m.left.Round(time.Second))
		}
		names = append(names, name)
	}
	if e.phase == phasePrepare {
		return "these proxies have not answered: " + strings.Join(names, ", ")
	}
	return "commands of the user still run on, or nothing was heard from: " + strings.Join(names, ", ")
}

func (a *attempt) explain(ctx context.Context, err error, bound string) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w, %s", err, bound)
}

// findOut finds out what became of a commit that was interrupted. Whoever gives
// the move up comes after it, because both change the same row.
func (a *attempt) findOut(ctx context.Context, unsure *commitError) error {
	ctx = context.WithoutCancel(ctx)
	deadline := time.Now().Add(statementTimeout)
	for {
		var now row
		var ended bool
		err := a.node.brief(ctx, func(ctx context.Context) (err error) {
			if ended, err = a.node.store.end(ctx, a.User, a.id); err == nil && !ended {
				now, err = a.node.store.user(ctx, a.User)
			}
			return err
		})
		switch {
		case err == nil && ended:
			return unsure
		case err == nil && now.move.id != a.id && (now.shard == a.To || a.Forget && now.shard == ""):
			return nil
		case err == nil:
			return errors.Join(unsure, ErrEnded)
		case time.Now().After(deadline):
			return &UnknownError{unsure}
		}
		time.Sleep(fastPoll)
	}
}

// released waits until this proxy has learned of its own switch, so that who
// asked for the move finds the user where it is. The others learn it at the same
// time, or a moment later.
func (a *attempt) released(ctx context.Context) {
	deadline := time.Now().Add(statementTimeout)
	for ctx.Err() == nil && a.node.Gate.holds(a.User, a.id) && time.Now().Before(deadline) {
		a.node.nudge()
		time.Sleep(time.Millisecond)
	}
}

// rollBack ends the move. If the database cannot be told, the lease of the move
// ends it.
func (a *attempt) rollBack(ctx context.Context, why error) error {
	var unknown *UnknownError
	if errors.As(why, &unknown) {
		return why
	}
	a.report(StepRollBack, why.Error())
	err := a.node.brief(context.WithoutCancel(ctx), func(ctx context.Context) error {
		_, err := a.node.store.end(ctx, a.User, a.id)
		return err
	})
	a.node.nudge()
	if err != nil {
		return fmt.Errorf("%w; the database could not be told, so commands of the user wait until the lease of the move ends (%s)", why, moveLease)
	}
	return why
}

// brief bounds a piece of work at the database.
func (n *Node) brief(ctx context.Context, do func(ctx context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return do(within)
}

// holds reports whether the user is on hold by a move.
func (g *Gate) holds(user, move string) bool {
	s := g.stripe(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[user]
	return h != nil && h.move == move
}
