package config

import (
	"net/netip"
	"time"
)

// Lookup is what all routes that ask outside the process have in common.
type Lookup struct {
	Timeout    time.Duration // of one lookup
	MaxLookups int           // at the same time
	Cache      LookupCache
	Breaker    Breaker
	// Networks has the servers that an answer may name by their address although
	// no shard has them.
	Networks []netip.Prefix
	// Backends has the shards of the backends by their addresses.
	Backends map[string]string
}

// LookupCache holds answers of a source.
type LookupCache struct {
	Size        int           // users
	TTL         time.Duration // of an answer; 0: none is kept
	NegativeTTL time.Duration // of "not found"; 0: it is not kept
	Refresh     time.Duration // age at which an answer that is used is asked for again; 0: never
	Stale       time.Duration // how much longer than TTL an answer is good while lookups fail
}

// attrs and blocks stand in each route that asks elsewhere.
func (l *Lookup) attrs() []attr {
	return []attr{
		{
			name: "timeout", field: duration(&l.Timeout, 1), def: `"2s"`,
			doc: "Time for one lookup, waiting for its turn and connecting included.",
		},
		{
			name: "max_lookups", field: count(&l.MaxLookups, 1), def: `16`,
			doc: "Lookups at the same time, and so connections to the source. More wait for their turn.",
		},
		{
			name: "networks", field: networks(&l.Networks), example: `["10.0.1.0/24"]`,
			doc: "An answer may name a server by its address, `host:port`. If a backend has this address, that is the backend's shard; any other has to be in one of these networks. It gets the name and password of `backend_defaults`, and all else from there, too.",
		},
	}
}

func (l *Lookup) blocks() []block {
	return []block{l.Cache.block(), l.Breaker.lookupBlock()}
}

func (c *LookupCache) block() block {
	return block{
		name: "cache", in: "route",
		doc: "Answers that are kept, for routes that ask elsewhere. Each route has a cache of its own; a reload that does not change the route keeps it. " +
			"However many commands want the same user, one lookup is made. A lookup that fails is never taken for \"not found\".",
		example: `
route "sql" {
  driver = "postgres"
  dsn    = env("ROUTE_DSN")
  query  = "SELECT shard FROM mailbox WHERE username = $1"
  cache {
    ttl   = "5m"
    stale = "6h"
  }
}`,
		attrs: []attr{
			{
				name: "size", field: count(&c.Size, 1), def: `100000`,
				doc: "Users whose answers are kept. A user of 22 characters takes about 220 bytes. Of more than these, those who are used least go.",
			},
			{
				name: "ttl", field: duration(&c.TTL, 0), def: `"1m"`,
				doc: "How long an answer is used. `0s`: none is kept, each command asks.",
			},
			{
				name: "negative_ttl", field: duration(&c.NegativeTTL, 0), def: `"10s"`,
				doc: "How long it is believed that the source does not know a user. `0s`: not at all.",
			},
			{
				name: "refresh", field: duration(&c.Refresh, 0), example: `"45s"`,
				doc: "An answer of this age that is used is asked for again, in the background: users with commands never wait for a lookup. Without the attribute: three quarters of `ttl`. `0s`: never.",
			},
			{
				name: "stale", field: duration(&c.Stale, 0), def: `"1h"`,
				doc: "While lookups fail: how long after its `ttl` an answer is still used. Only answers that name a place are, not those that say a user is unknown. `0s`: not at all.",
			},
		},
	}
}

func (b *Breaker) lookupBlock() block {
	return block{
		name: "breaker", in: "route",
		doc: "The circuit breaker of a source that a route asks. When lookups keep failing it opens: until the source is tried again, lookups fail at once instead of after their `timeout`.",
		attrs: []attr{
			{
				name: "failures", field: count(&b.Failures, 1), def: `5`,
				doc: "Failed lookups in a row after which it opens. Whether a user is known is no failure.",
			},
			{
				name: "open", field: duration(&b.Open, 1), def: `"5s"`,
				doc: "Time until a lookup is let through as a probe.",
			},
			{
				name: "probes", field: count(&b.Probes, 1), def: `1`,
				doc: "Lookups that are let through as probes. When all of them work the breaker closes; when one fails it opens again.",
			},
		},
	}
}

// settle gives the attributes that nobody wrote the values that follow from
// others.
func (l *Lookup) settle(at *place) {
	if !at.has("cache.refresh") {
		l.Cache.Refresh = l.Cache.TTL / 4 * 3
	}
}
