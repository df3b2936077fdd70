package moves

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// State is what is known of a user.
type State struct {
	Exception Exception // no shard: none
	Move      *Underway // nil: none
	Running   int       // commands of the user on this proxy
	Waiting   int
}

// Underway is a move that is being made.
type Underway struct {
	ID, To, By, Phase string
	Since             time.Time
}

// State asks the database about a user in normal form.
func (n *Node) State(ctx context.Context, user string) (State, error) {
	s := State{Running: n.Gate.Running(user), Waiting: n.Gate.Waiting(user)}
	var r row
	err := n.brief(ctx, func(ctx context.Context) (err error) {
		r, err = n.store.user(ctx, user)
		return err
	})
	if err != nil {
		return s, err
	}
	if r.shard != "" {
		s.Exception = Exception{Shard: r.shard, From: r.from, Since: time.UnixMilli(r.since).UTC()}
	}
	if m := r.move; m.live() {
		s.Move = &Underway{ID: m.id, To: m.to, By: m.moverName, Phase: m.phase, Since: time.UnixMilli(m.since).UTC()}
	}
	return s, nil
}

// Stat is what a node has done and is like.
type Stat struct {
	Fresh       bool // commands are let through
	Reachable   bool // the database, at the last try
	Exceptions  int
	Held        int           // users on hold
	Waiting     int           // commands that wait for that
	Moved       int64         // moves made here
	Failed      int64         // moves tried here that were rolled back
	Abandoned   int64         // moves of others that were rolled back here
	LongestHold time.Duration // of a move made here
}

// Stat returns it.
func (n *Node) Stat() Stat {
	s := Stat{
		Fresh: n.Gate.Fresh() == nil, Moved: n.stats.moved.Load(), Failed: n.stats.failed.Load(), Abandoned: n.stats.abandoned.Load(),
		LongestHold: time.Duration(n.stats.longest.Load()),
	}
	err := n.reachable.Load()
	s.Reachable = err != nil && *err == nil
	for i := range n.Gate.stripes {
		t := &n.Gate.stripes[i]
		t.mu.Lock()
		s.Exceptions += len(t.exceptions)
		s.Held += len(t.held)
		for _, h := range t.held {
			s.Waiting += len(h.waiters)
		}
		t.mu.Unlock()
	}
	return s
}

// Read returns the exceptions that stand in a database now. It is nil if there
// is no database yet. Nothing is written.
func Read(ctx context.Context, c config.Moves) (*Gate, error) {
	if c.Driver == config.MovesSQLite {
		if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	db, d, _, err := open(c)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	s := &store{db: db, d: d}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := s.after(ctx, -1)
	if err != nil {
		return nil, fmt.Errorf("the database of moved users cannot be read: %w", err)
	}
	g := newGate()
	for _, r := range rows {
		g.apply(r)
	}
	return g, nil
}
