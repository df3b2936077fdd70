package router

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Exceptions are users who are not where the routes say. A decision asks them
// before all routes, so they do not have to ask elsewhere.
type Exceptions interface {
	// Exception returns the shard of a user in normal form, and since when that
	// is so. It reports false for a user who is where the routes say.
	Exception(user string) (shard string, since time.Time, ok bool)
}

// ExceptionsRoute is what Decision.Route says of a user with an exception.
const ExceptionsRoute = "moves"

// Except puts e before all routes. It is to be called before the first decision.
func (t *Table) Except(e Exceptions, shards []string) {
	r := &exceptions{known: e, decisions: make(map[string]Decision)}
	for _, shard := range shards {
		r.decisions[shard] = Decision{Shard: shard, Route: ExceptionsRoute, Reason: "the user was moved there"}
	}
	t.routes = append([]route{r}, t.routes...)
}

// Home is Route without the exceptions: where the user would be if it had none.
func (t *Table) Home(ctx context.Context, user string) (Decision, error) {
	if t.closed.Load() {
		return Decision{}, ErrClosed
	}
	normal := t.names.User(user)
	for _, r := range t.routes {
		if _, ok := r.(*exceptions); ok || normal == "" {
			continue
		}
		d, ok, err := r.decide(ctx, normal)
		if err != nil {
			return Decision{}, fmt.Errorf("route %s: %w", r.name(), err)
		}
		if ok {
			return d, nil
		}
	}
	return Decision{}, fmt.Errorf("%w %q", ErrNoRoute, user)
}

// exceptions is the route that Except makes.
type exceptions struct {
	known     Exceptions
	decisions map[string]Decision // by shard, made in advance so that a decision does not allocate
}

func (e *exceptions) name() string { return ExceptionsRoute }

func (e *exceptions) decide(_ context.Context, user string) (Decision, bool, error) {
	shard, _, ok := e.known.Exception(user)
	if !ok {
		return Decision{}, false, nil
	}
	d, ok := e.decisions[shard]
	if !ok {
		return Decision{}, false, fmt.Errorf("the user was moved to %q, and the configuration has no such shard", shard)
	}
	return d, true, nil
}

func (e *exceptions) explain(_ context.Context, user string) (string, error) {
	shard, since, ok := e.known.Exception(user)
	if !ok {
		return "the user was not moved", nil
	}
	if _, ok := e.decisions[shard]; !ok {
		return "", errors.New("the user was moved to a shard that the configuration does not have")
	}
	return "the user was moved there at " + since.UTC().Format(time.RFC3339), nil
}

func (e *exceptions) close() {}
