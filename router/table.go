package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// ErrNoRoute says that no route names a shard for the user. It is an answer,
// not a failure: asking again gives the same.
var ErrNoRoute = errors.New("no route names a shard for the user")

// Table maps users to shards. It is safe for concurrent use.
type Table struct {
	names   *Names
	routes  []route
	remotes []*lookups // of those that ask elsewhere
	changes atomic.Uint64
	closed  atomic.Bool
}

// Decision is a shard together with who decided so and why.
type Decision struct {
	Shard  string // empty: Target is the server
	Route  string // match #2, file /etc/doveadm-proxy/users.map, or ring
	Reason string // one clause for a person to read
	// Target is a server that no shard has, or says how that of the shard is to
	// be spoken to; nil as a rule.
	Target *lookup.Target
}

// Place returns the name of the shard, or the address of a server that no shard
// has; empty if there is neither.
func (d Decision) Place() string {
	if d.Shard == "" && d.Target != nil {
		return d.Target.Address()
	}
	return d.Shard
}

// route is one element of the chain.
type route interface {
	name() string
	// decide is asked for a user in normal form. It reports false if it leaves
	// the user to the next route. An error means that the answer could not be
	// found out, which is never the same as leaving the user to the next one.
	// Unless it has to ask elsewhere, it does not allocate.
	decide(ctx context.Context, user string) (Decision, bool, error)
	// explain says why decide answers what it does.
	explain(ctx context.Context, user string) (reason string, err error)
	// close ends what the route keeps open or runs, and waits for it.
	close()
}

// New builds the table of routes, in their order, over the named shards, for
// users in the normal form of names. It
// reads the map files. Everything that is wrong is reported at once, joined;
// what is wrong in a map file names the file and the line.
func New(names *Names, routes []config.Route, shards []string) (*Table, error) {
	return (*Table)(nil).Next(names, routes, shards)
}

// Next builds the table that takes the place of t, which stays as it is until
// its own Close. Routes that ask elsewhere and did not change keep their
// connections, their caches and their breakers, and maps that did not change are
// not read again.
func (t *Table) Next(names *Names, routes []config.Route, shards []string) (*Table, error) {
	next := &Table{names: names}
	var errs []error
	matches, rings := 0, 0
	for i, r := range routes {
		var built route
		var problems []error
		name := r.Kind
		switch r.Kind {
		case "match":
			matches++
			name = fmt.Sprintf("match #%d", matches)
			built, problems = newMatch(name, r, names, shards)
		case "file":
			name = "file " + r.Path
			built, problems = newFile(name, r, names, shards, t)
		case "ring":
			if rings++; rings > 1 {
				name = fmt.Sprintf("ring #%d", rings)
			}
			built, problems = newRing(name, r, names, shards)
			if after := len(routes) - 1 - i; after > 0 && r.Match.Empty() {
				problems = append(problems, fmt.Errorf("it decides for every user, so what stands after it "+
					"(%d of the routes) is never asked: move it to the end", after))
			}
		default:
			name = remoteName(r, routes[:i])
			var source Source
			if source, problems = newSource(r); source != nil {
				asking := newRemote(name, r, shards, source, t)
				next.remotes = append(next.remotes, asking.lookups)
				built = asking
			} else if len(problems) == 0 {
				problems = []error{errors.New("unknown kind of route: use " + kinds)}
			}
		}
		if len(problems) == 0 {
			next.routes = append(next.routes, built)
		}
		for _, problem := range problems {
			errs = append(errs, fmt.Errorf("route %s: %w", name, problem))
		}
	}
	if err := errors.Join(errs...); err != nil {
		next.Close()
		return nil, err
	}
	return next, nil
}

// Follow makes the table read its map files again when they change, until its
// Close. What became of them is logged, and whether lookups work.
func (t *Table) Follow(log hclog.Logger) {
	for _, r := range t.routes {
		switch r := r.(type) {
		case *file:
			r.from.follow(log)
		case *remote:
			log := log.With("route", r.label)
			r.lookups.log.Store(&log)
		}
	}
}

// Close ends what routes keep open or run, and waits for it. Route returns
// ErrClosed from then on, if it is not waiting for an answer already.
func (t *Table) Close() {
	if t.closed.Swap(true) {
		return
	}
	for _, r := range t.routes {
		r.close()
	}
}

// Route returns the decision for user as a client writes it, ErrNoRoute if no route names a shard, or
// another error if a route could not find out its answer, also because ctx is
// over; ErrClosed is to be asked again of the table that followed. Unless a
// route has to ask elsewhere it does not allocate, but for a user that has to be
// put in lower case or has no route.
func (t *Table) Route(ctx context.Context, user string) (Decision, error) {
	if t.closed.Load() {
		return Decision{}, ErrClosed
	}
	normal := t.names.User(user)
	if normal != "" {
		for _, r := range t.routes {
			d, ok, err := r.decide(ctx, normal)
			if err != nil {
				return Decision{}, fmt.Errorf("route %s: %w", r.name(), err)
			}
			if ok {
				return d, nil
			}
		}
	}
	return Decision{}, fmt.Errorf("%w %q", ErrNoRoute, user)
}

// Answer is what one route says about a user.
type Answer struct {
	Route  string        // as in Decision
	Shard  string        // or the address of a server; empty: the route leaves the user to the next one
	Reason string        // as in Decision, in more detail: the line of a map
	Err    error         // the route could not find out its answer; no other is asked
	Age    time.Duration // of an answer from a cache; 0: it is new, or the route has none
}

// Explain returns the answers of the routes that are asked for user, in their
// order: all up to the one that decides, or all if none does.
func (t *Table) Explain(ctx context.Context, user string) []Answer {
	normal := t.names.User(user)
	if normal == "" {
		return nil
	}
	var answers []Answer
	for _, r := range t.routes {
		d, ok, err := r.decide(ctx, normal)
		answer := Answer{Route: r.name(), Shard: d.Place(), Err: err}
		if err == nil {
			answer.Reason, answer.Err = r.explain(ctx, normal)
		}
		answers = append(answers, answer)
		if ok || answer.Err != nil {
			break
		}
	}
	return answers
}

// checkShard reports a shard that is not among those that exist.
func checkShard(name string, shards []string) error {
	if slices.Contains(shards, name) {
		return nil
	}
	return fmt.Errorf("unknown shard %q: use one of %s", name, list(shards))
}

// list names a few of many.
func list(names []string) string {
	const most = 8
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
