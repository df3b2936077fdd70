package proxy

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// routed is where a command belongs, as its authorization found out. To ask
// again for the command itself would cost a second lookup, and might give
// another answer.
type routed struct {
	table   *router.Table // nil: nobody has asked yet
	changes uint64        // of the table
	at      time.Time
	shard   string
	target  *lookup.Target // of the decision
	decided *atomic.Uint64 // counts for the route that named it
	refused *refusal
}

// routedTime is how long a command is routed as it was authorized. What comes
// in between can take longer: input, waiting for the commands before it.
const routedTime = time.Second

// routesClosed is a command whose snapshot was replaced, to be asked again with
// the new one.
var routesClosed = &refusal{noRoute, doveadm.CodeTempFail, router.ErrClosed.Error()}

// route finds the shard of the command. If it is another one than the one that
// its authorization looked at, the rules are asked again.
func (t *task) route(snap *snapshot) (refused *refusal) {
	was := t.request.routed
	t.res.shard, refused = snap.shardOf(waits{t}, &t.request)
	if refused == nil && was.table != nil && was.shard != t.res.shard {
		return snap.authorize(waits{t}, t.session.client, t.session.peer.From, &t.request)
	}
	if n := t.request.routed.decided; n != nil {
		n.Add(1)
	}
	return refused
}

// shardOf finds the shard of a command.
func (s *snapshot) shardOf(ctx context.Context, r *request) (string, *refusal) {
	changes := s.table.Changes()
	if r.routed.table == s.table && r.routed.changes == changes && time.Since(r.routed.at) < routedTime {
		return r.routed.shard, r.routed.refused
	}
	d, refused := s.askShard(ctx, r)
	if refused == nil || refused.outcome != noRoute {
		r.routed = routed{s.table, changes, time.Now(), d.Shard, d.Target, s.decided[d.Route], refused}
	}
	return d.Shard, refused
}

func (s *snapshot) askShard(ctx context.Context, r *request) (router.Decision, *refusal) {
	user := r.cmd.User
	if user == "" {
		// No user, no route; where there is one shard none is needed.
		if shard, ok := s.only(); ok {
			return router.Decision{Shard: shard}, nil
		}
		if r.info.Kind == doveadm.GlobalCommand {
			return router.Decision{}, &refusal{denied, doveadm.CodeUsage, r.cmd.Name + " is not for a mail user, and the user name field names none whose backend it could go to"}
		}
		return router.Decision{}, &refusal{noUser, doveadm.CodeNoUser, "no user name given"}
	}
	decision, err := s.table.Route(ctx, user)
	switch {
	case errors.Is(err, router.ErrClosed):
		return router.Decision{}, routesClosed
	case errors.Is(err, router.ErrNoRoute):
		return router.Decision{}, &refusal{noUser, doveadm.CodeNoUser, "no route names a shard for the user"}
	case err != nil:
		return router.Decision{}, &refusal{noRoute, doveadm.CodeTempFail, err.Error()}
	}
	return decision, nil
}

// serving returns the shard that a command was routed to: one of the
// configuration, or one made of a server that a route names by its address.
func (t *task) serving(snap *snapshot) (*shard, error) {
	if target := t.request.routed.target; target != nil && t.res.shard == "" {
		return snap.targeted(target)
	}
	return snap.shards[t.res.shard], nil
}

// userAtBackend returns the name that the backend is sent.
func (t *task) userAtBackend() string {
	if target := t.request.routed.target; target != nil && target.User != "" {
		return target.User
	}
	return t.cmd.User
}
