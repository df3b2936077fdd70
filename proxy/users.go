package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/moves"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// Errors of moves that are answers: nothing was begun.
var (
	ErrNoMoves = errors.New("there is no moves block in the configuration, so users cannot be moved: add \"moves {}\"")
	// ErrNothingToDo says that what is wanted is so already.
	ErrNothingToDo = errors.New("nothing to do")
)

// MoveUser says which user is to be moved, and how.
type MoveUser struct {
	User    string // as clients write it
	Shard   string // empty: back to where the routes say, and the exception goes
	Copy    bool   // the mail is copied first
	MaxHold time.Duration
	Report  func(step, detail string) // may be nil
}

// MoveUser moves a user to another shard while commands go on.
func (p *Proxy) MoveUser(ctx context.Context, m MoveUser) (moves.Result, error) {
	if p.moves == nil {
		return moves.Result{}, ErrNoMoves
	}
	snap := p.snapshot.Load()
	if err := checkUser(m.User); err != nil {
		return moves.Result{}, err
	}
	user := snap.names.User(m.User)
	now, had := p.moves.Gate.Find(user)
	move := moves.Move{User: user, To: m.Shard, Forget: m.Shard == "", Exception: now.Shard, MaxHold: m.MaxHold}
	if m.Report != nil {
		move.Report = func(step moves.Step, detail string) { m.Report(string(step), detail) }
	}
	if at, err := snap.table.Route(ctx, m.User); err == nil {
		move.From = at.Shard
	} else if !errors.Is(err, router.ErrNoRoute) && !(had && snap.shards[now.Shard] == nil) {
		return moves.Result{}, err
	}
	if move.Forget {
		if !had {
			return moves.Result{}, fmt.Errorf("%w: the user has no exception", ErrNothingToDo)
		}
		home, err := snap.table.Home(ctx, m.User)
		if err != nil {
			return moves.Result{}, fmt.Errorf("where the user would be without the exception is not known: %w", err)
		}
		move.To = home.Shard
	}
	switch {
	case snap.shards[move.To] == nil:
		return moves.Result{}, fmt.Errorf("%w: %q", ErrNoShard, move.To)
	case !move.Forget && had && now.Shard == move.To:
		return moves.Result{}, fmt.Errorf("%w: the user was moved to %s at %s", ErrNothingToDo, move.To, now.Since.Format(time.RFC3339))
	}
	if m.Copy && move.From != move.To {
		c, err := newCopier(p, snap, m, move)
		if err != nil {
			return moves.Result{}, err
		}
		move.Copy, move.CopyHeld = c.copy, c.copyHeld
	}
	return p.moves.Move(ctx, move)
}

// checkUser refuses names that no user can have.
func checkUser(user string) error {
	if user == "" || hasControl(user) {
		return errors.New("this is not the name of a user")
	}
	return nil
}

// UserState is where a user is, and why.
type UserState struct {
	User      string // in normal form
	Shard     string // empty: none
	Route     string
	Reason    string
	Err       error // why Shard is not known
	Backends  []string
	Home      string // the shard that the routes say, without an exception
	HomeRoute string
	HomeErr   error
	Answers   []router.Answer // of the routes that were asked, in their order
	Moved     moves.State
	MovedErr  error // why Moved is not known
}

// ShowUser explains where a user is.
func (p *Proxy) ShowUser(ctx context.Context, name string) (UserState, error) {
	if err := checkUser(name); err != nil {
		return UserState{}, err
	}
	snap := p.snapshot.Load()
	s := UserState{User: snap.names.User(name)}
	if p.moves != nil {
		if s.Err = p.moves.Gate.Fresh(); s.Err == nil {
			s.Moved, s.MovedErr = p.moves.State(ctx, s.User)
		}
	}
	var d router.Decision
	if s.Err == nil {
		s.Answers = snap.table.Explain(ctx, name)
		if d, s.Err = snap.table.Route(ctx, name); s.Err == nil {
			s.Shard, s.Route, s.Reason = d.Shard, d.Route, d.Reason
			if shard := snap.shards[d.Shard]; shard != nil {
				for _, b := range shard.inOrder(name) {
					s.Backends = append(s.Backends, b.Name())
				}
			}
		}
	}
	if s.Err != nil || d.Route == router.ExceptionsRoute {
		d, s.HomeErr = snap.table.Home(ctx, name)
	}
	s.Home, s.HomeRoute = d.Shard, d.Route
	return s, nil
}

// ErrNoLookups says that no route asks elsewhere, so nothing is kept that could
// be too old.
var ErrNoLookups = errors.New("no route of the configuration looks users up elsewhere, so there is no answer to ask for again: maps are read by a reload, or by themselves with watch")

// Refresh drops what this proxy keeps of the answers of lookups about a user, or
// about all if name is empty. Commands that follow have them asked again.
func (p *Proxy) Refresh(name string) error {
	if name != "" {
		if err := checkUser(name); err != nil {
			return err
		}
	}
	snap := p.snapshot.Load()
	if len(snap.table.Lookups()) == 0 {
		return ErrNoLookups
	}
	if name != "" {
		// A user without a normal form is nobody's, and no route is asked.
		if name = snap.names.User(name); name == "" {
			return nil
		}
	}
	snap.table.Forget(name)
	return nil
}

// MovedUser is a user with an exception.
type MovedUser struct {
	User string
	moves.Exception
}

// MovedUsers calls yield for each user with an exception, sorted, until it
// returns false.
func (p *Proxy) MovedUsers(yield func(MovedUser) bool) error {
	if p.moves == nil {
		return ErrNoMoves
	}
	if err := p.moves.Gate.Fresh(); err != nil {
		return err
	}
	for _, user := range p.moves.Gate.Users() {
		if e, ok := p.moves.Gate.Find(user); ok && !yield(MovedUser{user, e}) {
			return nil
		}
	}
	return nil
}

// MovesStat is what the moves of users are like. It reports false without a
// moves block.
func (p *Proxy) MovesStat() (moves.Stat, bool) {
	if p.moves == nil {
		return moves.Stat{}, false
	}
	return p.moves.Stat(), true
}

// exceptionsTimeout is for reading them once, without a running proxy.
const exceptionsTimeout = 10 * time.Second

// AddExceptions puts the users who were moved before the routes of table, as
// they stand in the database of cfg now: for who asks routes without a proxy.
// Without a moves block, or where there is no database yet, it does nothing.
func AddExceptions(ctx context.Context, table *router.Table, cfg *config.Config) error {
	if cfg.Moves.Driver == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, exceptionsTimeout)
	defer cancel()
	e, err := moves.Read(ctx, cfg.Moves)
	if err != nil {
		return fmt.Errorf("moves: %w", err)
	}
	if e == nil {
		return nil
	}
	var shards []string
	for _, s := range cfg.Shards {
		shards = append(shards, s.Name)
	}
	table.Except(e, shards)
	return nil
}
