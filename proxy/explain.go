package proxy

import (
	"context"
	"net/netip"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/access"
)

// Explainer says what a proxy with a configuration would do with a command,
// without doing it.
type Explainer struct {
	snap    *snapshot
	clients map[string]bool
}

// NewExplainer returns that of a configuration. It fails where New would, short
// of opening listeners.
func NewExplainer(cfg *config.Config) (*Explainer, error) {
	p, err := newParts(cfg, nil)
	if err != nil {
		return nil, err
	}
	if err := AddExceptions(context.Background(), p.table, cfg); err != nil {
		p.table.Close()
		return nil, err
	}
	e := &Explainer{&snapshot{config: cfg, parts: p}, make(map[string]bool)}
	for _, c := range cfg.Clients {
		e.clients[c.Name] = true
	}
	return e, nil
}

// Question is a command and who sends it.
type Question struct {
	Client  string
	From    netip.Addr // invalid: a UNIX socket
	Command doveadm.Command
}

// Explanation is the answer to a Question.
type Explanation struct {
	// Allowed: a backend would get the command.
	Allowed bool
	// Rule is the block that decided, empty where none did. Findings are all
	// blocks that were asked.
	Rule     string
	Findings []access.Finding
	// NoShard: the client may run it, but no shard has the user.
	NoShard bool
	// Status and Reason are what the client is told instead of a reply.
	Status, Reason string

	Command string // its full name
	Info    *doveadm.CommandInfo
	Effects doveadm.Effects

	Shard, Route, RouteReason string // empty: none
	Backends                  []config.Backend
	Limits                    config.Limits
}

// Close ends what routes have open.
func (e *Explainer) Close() { e.snap.table.Close() }

// HasClient reports whether the configuration has the client.
func (e *Explainer) HasClient(name string) bool { return e.clients[name] }

// Explain answers q as to a client of the newest version.
func (e *Explainer) Explain(ctx context.Context, q Question) Explanation {
	cmd := q.Command
	r, refused := prepare(&cmd, doveadm.MaxMinor)
	x := Explanation{Command: cmd.Name, Info: r.info, Limits: e.snap.config.Limits}
	asked, unknown := e.snap.question(ctx, q.Client, q.From.Unmap(), &r)
	x.Effects = asked.Effects
	switch {
	case refused != nil:
	case unknown != nil:
		refused = unknown
	default:
		var d access.Decision
		d, x.Findings = e.snap.rules.Explain(&asked)
		x.Rule = d.Rule
		refused = e.snap.authorize(ctx, q.Client, q.From.Unmap(), &r)
	}
	shard, unrouted := e.snap.shardOf(ctx, &r)
	if refused == nil && unrouted != nil {
		refused, x.NoShard = unrouted, true
	}
	if unrouted == nil {
		x.Shard = shard
		if d, err := e.snap.table.Route(ctx, cmd.User); err == nil {
			x.Route, x.RouteReason = d.Route, d.Reason
		}
		for _, s := range e.snap.config.Shards {
			if s.Name == shard {
				x.Backends = Preference(s, e.snap.names, cmd.User)
			}
		}
	}
	if refused != nil {
		x.Status, x.Reason = doveadm.Status{Code: refused.code}.String(), refused.reason
	}
	x.Allowed = refused == nil
	return x
}
