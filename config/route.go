package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Route is one route block. Kind says which fields have a meaning.
type Route struct {
	Kind   string   // match, file, sql, ldap, http, dovecot-auth or ring
	Match  Match    // match, ring: whom it is for
	Shard  string   // match
	Path   string   // file: "user shard" a line
	Format string   // file: MapText or MapCDB
	Shards []string // ring; all shards of the configuration if none is named
	Ring   Ring
	SQL    SQL
	LDAP   LDAP
	HTTP   HTTP
	Auth   DovecotAuth
	Lookup Lookup // of those that ask outside the process
}

// The formats of the file of a file route.
const (
	MapText = "text"
	MapCDB  = "cdb"
)

func (r *Route) block() block {
	return block{
		name: "route", label: "kind", many: true,
		doc: "Which shard a user belongs to. Routes are asked in the order they are written (in several files: in the order of the files' names); " +
			"the first that names a shard decides. A user for whom none does is unknown. Users are compared in the normal form that the `router` block describes; by default A to Z count as a to z. With one shard no route is needed: it gets every user.",
		example: `
route "match" {
  users = ["*@sales.example"]
  shard = "s2"
}

route "file" {
  path = "/etc/doveadm-proxy/users.map"
}

route "ring" {}`,
		kinds: []block{
			r.matchBlock(),
			{
				name: "route", kind: "file", label: "kind", many: true,
				doc: "Users by a file, for exceptions such as users who were moved by hand. Users who are not in it go on to the next route.",
				attrs: []attr{
					{
						name: "path", field: existingFile(&r.Path), required: true, example: `"/etc/doveadm-proxy/users.map"`,
						doc: "The file. Each line has a user and a shard with a space between them; `@domain` stands for all users of a domain who have no line, `*` for all others, `#` begins a comment. " +
							"It is read again when it changes; replace it by renaming another file. One that is wrong is not used: what was read before stays in use, and the log names the line.",
					},
					{
						name: "format", field: choice(&r.Format, MapText, MapCDB), def: `"text"`,
						doc: "`cdb`: the file is a constant database, as cdb(1) of Debian's tinycdb makes it, with users (or `@domain`, `*`) as keys and shards as values. It stays on disk and takes no memory.",
					},
				},
			},
			r.SQL.block(&r.Lookup),
			r.LDAP.block(&r.Lookup),
			r.HTTP.block(&r.Lookup),
			r.Auth.block(&r.Lookup),
			r.ringBlock(),
		},
	}
}

func (l *loader) route(b *hclsyntax.Block) {
	r := new(placed[Route])
	spec := r.value.block()
	if len(b.Labels) != 1 {
		l.labels(spec, b)
		l.routesUnsure = true
		return
	}
	var kinds []string
	for _, kind := range spec.kinds {
		kinds = append(kinds, kind.kind)
	}
	i := slices.Index(kinds, b.Labels[0])
	if i < 0 {
		l.unknownRoute(spec, b, kinds)
		l.routesUnsure = true
		return
	}
	kind := spec.kinds[i]
	if kind.kind == "ring" {
		kind = l.ringServers(r, kind)
	}
	r.at = l.block(kind, b, nil)
	r.value.Kind = b.Labels[0]
	switch r.value.Kind {
	case "sql":
		l.checkSQL(&r.value.SQL, &r.at)
	case "ldap":
		l.checkLDAP(&r.value.LDAP, &r.at)
	case "http":
		l.checkHTTP(&r.value.HTTP, &r.at)
	}
	r.value.Lookup.settle(&r.at)
	l.routes = append(l.routes, r)
}

func (l *loader) unknownRoute(spec block, b *hclsyntax.Block, kinds []string) {
	kind := b.Labels[0]
	if remedy, ok := spec.unsupported(kind); ok {
		l.errorf(b.LabelRanges[0], fmt.Sprintf("route %q is not supported by this version", kind), "%s", remedy)
		return
	}
	l.errorf(b.LabelRanges[0], fmt.Sprintf("Unknown kind of route %q", kind), "%s",
		join(nearest(kind, kinds), fmt.Sprintf("The kinds are %s.", list(kinds))))
}

func (l *loader) checkRoutes() {
	l.checkTargets()
	names := l.shardNames()
	var ring *placed[Route]
	reached := map[string]bool{}
	for _, r := range l.routes {
		if ring != nil {
			l.errorf(r.at.header, "Route after a ring", "It is never asked, because the ring at %s decides for every user. Move it before the ring, or remove it.", position(ring.at.header))
		}
		switch r.value.Kind {
		case "match":
			l.checkMatch(r)
			ok := l.known("shard", r.at.attrs["shard"], r.value.Shard, names)
			l.routesUnsure = l.routesUnsure || !ok
			reached[r.value.Shard] = true
		case "file", "sql", "ldap", "http", "dovecot-auth":
			// Whom it knows is not known here.
			l.routesUnsure = true
		case "ring":
			if r.value.Match.Empty() {
				ring = r
			}
			items, _ := r.at.attrs["shards"].is.([]value)
			for i, name := range r.value.Shards {
				ok := l.known("shard", items[i], name, names)
				l.routesUnsure = l.routesUnsure || !ok
			}
			if !r.at.has("shards") {
				r.value.Shards = slices.Clone(names)
			} else if len(r.value.Shards) == 0 {
				l.routesUnsure = true // its list was wrong
			}
			l.checkRing(r)
			for _, name := range r.value.Shards {
				reached[name] = true
			}
		}
	}
	switch {
	case l.unsure || l.routesUnsure:
	case len(l.routes) > 0:
		for _, s := range l.shards {
			if !reached[s.value.Name] {
				l.warnf(s.at.header, "Shard without users", "No route names this shard. Add it to a route, or remove it if it is no longer used.")
			}
		}
	case len(names) == 1:
		l.routes = append(l.routes, &placed[Route]{value: Route{Kind: "ring", Shards: slices.Clone(names), Ring: Ring{Algorithm: RingRendezvous}}})
	case len(names) > 1:
		l.errorf(l.shards[1].at.header, "No route", "With more than one shard, routes say which user is on which. Add a block: route \"ring\" {} spreads the users over all shards.")
	}
}
