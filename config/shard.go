package config

import (
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Shard is one shard block: the backends that serve the same mail.
type Shard struct {
	Name      string
	Backends  []Backend // in the order they are written
	Balance   string    // which backend a command goes to: one of the constants below
	SlowStart time.Duration
	Weight    int // its share of the users of a ring, relative to other shards
}

// The ways to choose among several backends of a shard. Backends with standby
// come after all others in each of them.
const (
	BalanceOrder     = "order"
	BalanceUser      = "user"
	BalanceLeastBusy = "least-busy"
)

func (s *Shard) block() block {
	return block{
		name: "shard", label: "name", many: true,
		doc: "The backends that serve the same mail. Every user belongs to one shard; routes say to which. Most shards have one backend. " +
			"Where there are several, `balance` says which one a command goes to; in each of its ways the commands of one user go to the same backend as long as the state of the backends does not change, " +
			"from all proxies. That keeps caches warm, and on replicated servers (dsync) nobody reads on one what was just written on the other. " +
			"When no connection to that backend can be had, the next one gets the command; a command that was sent is not sent to another. " +
			"At least one shard is needed.",
		example: `
shard "s1" {
  backend "mail1" {
    address = "10.0.1.1:24245"
  }
}

shard "s2" {
  backend "mail2" {
    address = "10.0.1.2:24245"
  }
}`,
		attrs: []attr{
			{
				name: "balance", field: choice(&s.Balance, BalanceOrder, BalanceUser, BalanceLeastBusy), def: `"order"`,
				doc: "`order`: the first backend that can be used, as they are written: a main server and its replicas. " +
					"`user`: all that are not `standby` are equals, and each user has one of them by a hash of the name: servers that share the work. When it cannot be used, its users are spread over the others. " +
					"`least-busy`: as `user`, but a command that would have to wait there because `max_open` is reached goes to the equal with the least to do for its size: only where it does not matter on which server a user is, as on shared storage that knows about locks.",
			},
			{
				name: "slow_start", field: duration(&s.SlowStart, 0), def: `"30s"`,
				doc: "A backend that has come back (its breaker closed, its health checks work again, an operator resumed it) gets its users back little by little over this time, each of them once, while the others can be used. `0s`: all at once.",
			},
			{
				name: "weight", field: count(&s.Weight, 0), def: `100`,
				doc: "Its share of the users whom a ring spreads, relative to the weights of the other shards. More weight takes users from all others, less gives some to all others, and nobody else moves. 0: a ring gives it nobody.",
			},
		},
		blocks: []block{new(Backend).block()},
	}
}

// inShard is a backend and the name of its shard.
type inShard struct {
	*placed[Backend]
	shard string
}

func (l *loader) shard(b *hclsyntax.Block) {
	s := new(placed[Shard])
	s.value.Name = label(b)
	spec := s.value.block()
	spec.blocks[0] = spec.blocks[0].by(func(b *hclsyntax.Block) { l.backend(s, b) })
	s.at = l.block(spec, b, nil)
	l.shards = append(l.shards, s)
	if len(s.value.Backends) == 0 {
		l.missingIn(s.at.whole, s.at.header, "No backend", "Nobody serves the users of this shard. Add a block to it: backend \"mail1\" { address = \"10.0.1.1:24245\" }")
	}
}

func (l *loader) checkShards() {
	if len(l.shards) == 0 {
		l.missing(l.end(), "No shard", "There is no backend to send commands to. Add a block: shard \"s1\" { … } with a block backend \"mail1\" { … } in it.")
	}
	shards := map[string]hcl.Range{}
	for _, s := range l.shards {
		l.unique("shard", s.value.Name, &s.at, shards)
	}
	l.checkBackendTLS()
	names := map[string]hcl.Range{}
	addresses := map[string]inShard{}
	for _, b := range l.backends {
		l.unique("backend", b.value.Name, &b.at, names)
		first, ok := addresses[b.value.Address]
		switch {
		case b.value.Address == "":
		case !ok:
			addresses[b.value.Address] = b
		case first.shard == b.shard:
			l.errorf(b.at.of("address"), "Address used twice",
				"The backend at %s of the same shard has the same address. Remove one of the two, or correct its address.", position(first.at.header))
		default:
			l.warnf(b.at.of("address"), "Address used in two shards",
				"The backend at %s of another shard has the same address. The users of both shards are on one server, over two pools of connections. Correct the address if that is not meant.", position(first.at.header))
		}
	}
}

func (l *loader) shardNames() []string {
	var names []string
	for _, s := range l.shards {
		names = append(names, s.value.Name)
	}
	return names
}
