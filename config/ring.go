package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The algorithms of a ring.
const (
	RingRendezvous = "rendezvous"
	RingDirector   = "director"
)

// maxVHosts is the most that a director takes from doveadm director add.
const maxVHosts = 1000

// Ring is what only route "ring" has. Route.Shards are those it gives users to.
type Ring struct {
	Algorithm string
	Weights   []int // of rendezvous: of the shards, in their order; nil: all are the same

	// Of director.
	UsernameHash string
	Tag          string
	Servers      []RingServer
}

// RingServer is a mail server as a director knows it.
type RingServer struct {
	Address netip.Addr
	Shard   string
	VHosts  int
	Tag     string
	Down    bool
}

func (r *Route) ringBlock() block {
	shards := texts(&r.Shards).where(func() bool { return len(r.Ring.Servers) == 0 })
	hash := userFormat(&r.Ring.UsernameHash).where(func() bool { return r.Ring.Algorithm == RingDirector })
	return block{
		name: "route", kind: "ring", label: "kind", many: true,
		doc: "Users spread over shards by a consistent hash of the user name. Shards get users in proportion to their `weight`. " +
			"`rendezvous` moves as few users as can be when shards are added, removed or weighted anew, and deviates from equal shares by chance only: adding a shard to n of them moves one user in n+1. " +
			"`director` gives the answers of a Dovecot 2.3 director; `server` blocks say what it knows of its mail servers. " +
			"A ring decides for every user, so it is the last route, unless `users`, `domains` or `regex` say whom it is for. See [routing.md](routing.md#ring).",
		example: `
route "ring" {
  algorithm     = "director"
  username_hash = "%Lu"
  server "10.0.1.1" {}
  server "10.0.1.2" {
    vhosts = 50
  }
}`,
		attrs: append([]attr{
			{
				name: "algorithm", field: choice(&r.Ring.Algorithm, RingRendezvous, RingDirector), def: `"` + RingRendezvous + `"`,
				doc: "`rendezvous`, or `director` for sites that come from a Dovecot director.",
			},
			{
				name: "shards", field: shards, example: `["s1", "s2"]`,
				doc: "The shards to spread over. Without the attribute: all. With `server` blocks it is left out: they name the shards.",
			},
			{
				name: "username_hash", field: hash, def: `"%Lu"`,
				doc: "Of `director`: what of the user is hashed, as in `director_username_hash`. It is applied to the user's normal form, as a director applies it to what its own `auth_username_format` made of the user.",
			},
			{
				name: "tag", field: text(&r.Ring.Tag), example: `"eu"`,
				doc: "Of `director`: only servers with this tag count, as for users whose passdb has `director_tag`. Without the attribute: only those without a tag.",
			},
		}, r.selectors("The ring is for these users; others go on to the next route. ")...),
		blocks: []block{new(RingServer).block()},
	}
}

func (s *RingServer) block() block {
	return block{
		name: "server", label: "IP address", many: true,
		doc: "A mail server of a director's ring, by its address (one of `director_mail_servers`). Without any, the ring has the backends of its shards that are not `standby`, each with the weight of its shard.",
		example: `
route "ring" {
  algorithm = "director"
  server "10.0.1.1" {}
  server "2001:db8::2" {
    shard  = "s2"
    vhosts = 50
    down   = true
  }
}`,
		attrs: []attr{
			{
				name: "shard", field: text(&s.Shard), example: `"s2"`,
				doc: "The shard that is on this server. Without the attribute: the one with a backend at this address.",
			},
			{
				name: "vhosts", field: count(&s.VHosts, 0).where(func() bool { return s.VHosts >= 0 }), example: `50`,
				doc: "Its weight, the vhost count of `doveadm director status`: 0 to 1000. Without the attribute: the weight of the shard, which is 100 if nothing is said, as a director's.",
			},
			{
				name: "tag", field: text(&s.Tag), example: `"eu"`,
				doc: "Its tag, what follows the `@` in `director_mail_servers`.",
			},
			{
				name: "down", field: toggle(&s.Down), def: `false`,
				doc: "`true`: it gets nobody, as after `doveadm director down`. Its users are spread over the others.",
			},
		},
	}
}

// ringServers decodes the server blocks of a ring.
func (l *loader) ringServers(r *placed[Route], spec block) block {
	spec.blocks = slices.Clone(spec.blocks)
	spec.blocks[0] = spec.blocks[0].by(func(b *hclsyntax.Block) {
		s := &placed[RingServer]{value: RingServer{VHosts: -1}}
		s.at = l.block(s.value.block(), b, nil)
		address, err := netip.ParseAddr(label(b))
		switch {
		case err != nil || address.Zone() != "":
			l.errorf(s.at.header, "Not an address", "A director knows servers by their IP addresses: server \"10.0.1.1\" { … } or server \"2001:db8::1\" { … }")
			l.routesUnsure = true
			return
		case s.value.VHosts > maxVHosts:
			l.errorf(s.at.of("vhosts"), "Too many vhosts", "A director takes at most %d.", maxVHosts)
		}
		s.value.Address = address
		r.value.Ring.Servers = append(r.value.Ring.Servers, s.value)
		l.ringPlaces = append(l.ringPlaces, ringPlace{s, r, len(r.value.Ring.Servers) - 1})
	})
	return spec
}

// ringPlace is a server block, to be finished when all shards are known.
type ringPlace struct {
	*placed[RingServer]
	ring  *placed[Route]
	index int // in its Servers
}

// checkRing finishes a ring: its shards, their weights, its servers.
func (l *loader) checkRing(r *placed[Route]) {
	ring := &r.value.Ring
	if ring.Algorithm == RingDirector {
		l.checkDirector(r)
		return
	}
	for _, name := range []string{"username_hash", "tag"} {
		if r.at.has(name) {
			l.errorf(r.at.of(name), fmt.Sprintf("%s without a director", name), "It belongs to algorithm = \"director\". Remove it, or write that.")
		}
	}
	if len(ring.Servers) > 0 {
		l.errorf(r.at.header, "Servers without a director", "server blocks belong to algorithm = \"director\". Remove them, or write that.")
	}
	ring.UsernameHash = ""
	var weights []int
	for _, name := range r.value.Shards {
		weights = append(weights, l.weight(name))
	}
	switch distinct := slices.Compact(slices.Sorted(slices.Values(weights))); {
	case len(distinct) > 1:
		ring.Weights = weights
	case len(distinct) == 1 && distinct[0] == 0 && !l.unsure && !l.routesUnsure:
		l.errorf(r.at.header, "No shard with a weight", "All shards of the ring have weight = 0, so it can give users to none of them.")
	}
}

// checkDirector fills in what server blocks leave out.
func (l *loader) checkDirector(r *placed[Route]) {
	ring := &r.value.Ring
	if len(ring.Servers) == 0 {
		l.serversOfShards(r)
		return
	}
	if r.at.has("shards") {
		l.errorf(r.at.of("shards"), "Shards beside servers", "The server blocks name the shards. Remove one of the two.")
	}
	r.value.Shards = nil
	for _, place := range l.ringPlaces {
		if place.ring != r {
			continue
		}
		s := &ring.Servers[place.index]
		if s.Shard == "" {
			s.Shard = l.shardAt(s.Address)
			if s.Shard == "" {
				l.missing(place.at.header, "Server of no shard", "No backend has this address, so say which shard is on it: server \"%s\" { shard = \"s1\" }", s.Address)
				l.routesUnsure = true
			}
		} else if !l.known("shard", place.at.attrs["shard"], s.Shard, l.shardNames()) {
			l.routesUnsure = true
		}
		if s.VHosts < 0 {
			s.VHosts = l.weight(s.Shard)
		}
		if s.Shard != "" && !slices.Contains(r.value.Shards, s.Shard) {
			r.value.Shards = append(r.value.Shards, s.Shard)
		}
		for _, other := range ring.Servers[:place.index] {
			if other.Address == s.Address && other.Tag == s.Tag {
				l.errorf(place.at.header, "Second server of this address", "The ring has one already. Remove one of the two.")
			}
		}
	}
}

// serversOfShards makes the servers of a ring without server blocks.
func (l *loader) serversOfShards(r *placed[Route]) {
	for _, b := range l.backends {
		if !slices.Contains(r.value.Shards, b.shard) || b.value.Standby || b.value.Address == "" {
			continue
		}
		host, _, _ := net.SplitHostPort(b.value.Address)
		address, err := netip.ParseAddr(host)
		if err != nil || address.Zone() != "" {
			l.errorf(b.at.of("address"), "Backend without an IP address", "The ring at %s works like a director, which knows servers by their IP addresses. Give it blocks: server \"10.0.1.1\" { shard = \"%s\" }",
				position(r.at.header), b.shard)
			continue
		}
		server := RingServer{Address: address, Shard: b.shard, VHosts: l.weight(b.shard), Tag: r.value.Ring.Tag}
		if !slices.ContainsFunc(r.value.Ring.Servers, func(s RingServer) bool { return s.Address == address }) {
			r.value.Ring.Servers = append(r.value.Ring.Servers, server)
		}
	}
}

// weight returns that of a shard.
func (l *loader) weight(shard string) int {
	for _, s := range l.shards {
		if s.value.Name == shard {
			return s.value.Weight
		}
	}
	return 0
}

// shardAt returns the shard with a backend at an address.
func (l *loader) shardAt(address netip.Addr) string {
	for _, b := range l.backends {
		host, _, _ := net.SplitHostPort(b.value.Address)
		if at, err := netip.ParseAddr(host); err == nil && at == address {
			return b.shard
		}
	}
	return ""
}
