package proxy

import (
	"context"
	"net/netip"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/access"
)

// authorize refuses a command that its client may not run, before anything else
// is done about it.
func (s *session) authorize(r *request) *refusal {
	for {
		snap := s.proxy.snapshot.Load()
		refused := snap.authorize(untilCut{s}, s.client, s.peer.From, r)
		if refused != routesClosed || s.proxy.snapshot.Load() == snap {
			return refused
		}
	}
}

func (snap *snapshot) authorize(ctx context.Context, client string, from netip.Addr, r *request) *refusal {
	q, refused := snap.question(ctx, client, from, r)
	if refused != nil {
		return refused
	}
	d := snap.rules.Decide(&q)
	if d.Allowed {
		return nil
	}
	return &refusal{denied, snap.deniedCode(q), snap.rules.Refusal(&q, d)}
}

// question is what the rules are asked about a command that was prepared. It is
// refused if they ask for its shard and nobody can tell.
func (snap *snapshot) question(ctx context.Context, client string, from netip.Addr, r *request) (access.Request, *refusal) {
	q := access.Request{
		Client:  client,
		From:    from,
		Command: r.info,
		Name:    r.cmd.Name,
		User:    snap.names.User(r.cmd.User),
		Effects: r.info.Effects(r.cmd.Args),
	}
	if q.Effects.OtherUser != "" {
		q.Effects.OtherUser = snap.names.User(q.Effects.OtherUser)
	}
	if strings.ContainsAny(q.User, "*?") {
		// No server expands it, but no user name has it either.
		q.Effects.Danger |= doveadm.TouchesUsers
		q.Effects.Everyone = true
	}
	if snap.rules.AsksShard(client) {
		shard, refused := snap.shardOf(ctx, r)
		if refused != nil && refused.outcome == noRoute {
			return q, refused
		}
		q.Shard = shard
	}
	return q, nil
}

// deniedCode is the status of a command that was denied. Where that is only
// because nobody here knows the command, or an option of it, it is what servers
// answer who do not know it either.
func (snap *snapshot) deniedCode(q access.Request) string {
	if q.Effects.Danger&doveadm.Unforeseen == 0 {
		return doveadm.CodeNoPerm
	}
	if q.Command.Series == 0 || q.Command.Kind == doveadm.ClientCommand {
		return ""
	}
	q.Effects.Danger &^= doveadm.Unforeseen
	if snap.rules.Decide(&q).Allowed {
		return doveadm.CodeUsage
	}
	return doveadm.CodeNoPerm
}
