// Package config turns HCL files into checked plain values. It builds no live
// object: no connection, route or listener exists because a configuration was
// loaded. What it returns is complete (every default filled in) and consistent
// (every reference resolved), so that its readers need no checks of their own.
//
// Each kind of block has a file of its own with its struct, its table of
// attributes and its checks. The table is bound to the struct and is the only
// place that knows an attribute's name, type, default and meaning: the decoder,
// [Print] and [Reference] all read it.
package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Config is one whole, valid configuration. It is not changed after Load
// returned it and may be read from any goroutine.
type Config struct {
	Log       Log
	Listeners []Listener // in the order they are written
	Clients   []Client
	Shards    []Shard
	Router    Router
	Routes    []Route // in the order they are asked
	// Elsewhere has the settings of servers that routes name by an address which
	// no backend has, nil if they may not.
	Elsewhere *Backend
	Limits    Limits
	Referrals Referrals
	Admin     Admin
	Audit     Audit
	Moves     Moves

	LoginDefence LoginDefence
}

// Load reads a configuration from a file, or from the *.hcl files of a
// directory in the order of their names, as if they were one file. Files whose
// name starts with a dot are left out.
//
// All problems are returned at once, in the order of files and lines. The
// Config is nil if one of them is an error; warnings come with a Config. No
// diagnostic holds a secret; use [WriteDiagnostics] or [Problems] to show them.
func Load(path string) (*Config, hcl.Diagnostics) {
	sources, diags := readSources(path)
	if diags.HasErrors() {
		return nil, diags
	}
	return load(sources)
}

// Parse is Load for one file that is in memory. The directory of name is where
// relative paths start.
func Parse(name string, src []byte) (*Config, hcl.Diagnostics) {
	return load([]*source{{name: name, bytes: src}})
}

func load(sources []*source) (*Config, hcl.Diagnostics) {
	l := newLoader(sources)
	root := l.root()
	var blocks hclsyntax.Blocks
	for _, s := range sources {
		l.diags = append(l.diags, s.parse(root)...)
		for _, attr := range inOrder(s.body().Attributes) {
			l.unknownAttr(root, attr)
		}
		blocks = append(blocks, l.topLevel(root, s)...)
	}
	l.blocks(root, blocks, &place{attrs: map[string]value{}}, "")
	l.check()
	diags := finish(l.diags, sources)
	if diags.HasErrors() {
		return nil, diags
	}
	return l.config(), diags
}

// loader collects what the files say, each thing with its place, and all that
// is wrong with it.
type loader struct {
	sources []*source
	diags   hcl.Diagnostics
	unsure  bool // a whole block may be there, unread

	log       Log
	router    Router
	limits    Limits
	referrals Referrals
	admin     Admin
	audit     Audit
	moves     Moves
	defence   LoginDefence
	listeners []*placed[Listener]
	clients   []*placed[Client]
	rules     []*placed[Rule]
	defaults  placed[Backend]
	shards    []*placed[Shard]
	backends  []inShard
	routes    []*placed[Route]
	elsewhere *Backend
	// Server blocks of rings.
	ringPlaces []ringPlace
	// A route is unreadable or reads a file, so which shards have users cannot
	// be told.
	routesUnsure bool
}

func newLoader(sources []*source) *loader {
	l := &loader{sources: sources}
	l.log.block().reset()
	l.router.block().reset()
	l.limits.block().reset()
	l.referrals.block().reset()
	l.defence.block().reset()
	l.defaults.value.defaultsBlock().reset()
	l.defaults.value.HealthCheck.Interval = 0 // there is no block
	return l
}

// root is the table of the blocks that stand in no other block, bound to l.
// They are decoded in this order: backend_defaults comes before the backends
// that start from it.
func (l *loader) root() block {
	return block{
		blocks: []block{
			new(Listener).block().by(l.listener),
			new(Client).block().by(l.client),
			l.defaults.value.defaultsBlock().by(l.backendDefaults),
			new(Shard).block().by(l.shard),
			l.router.block().by(l.routerBlock),
			new(Route).block().by(l.route),
			l.limits.block(),
			l.defence.block(),
			l.referrals.block(),
			l.log.block(),
			l.admin.block().by(l.adminBlock),
			new(Audit).block().by(l.auditLog),
			new(Moves).block().by(l.movesBlock),
		},
	}
}

// end is the place for what is missing in the whole.
func (l *loader) end() hcl.Range { return l.sources[len(l.sources)-1].body().EndRange }

// check finds what is wrong with the blocks taken together.
func (l *loader) check() {
	l.checkListeners()
	l.checkClients()
	l.checkShards()
	l.checkRules()
	l.checkRoutes()
}

// config returns what was loaded without error.
func (l *loader) config() *Config {
	return &Config{
		Log:       l.log,
		Listeners: values(l.listeners),
		Clients:   values(l.clients),
		Shards:    values(l.shards),
		Router:    l.router,
		Routes:    values(l.routes),
		Elsewhere: l.elsewhere,
		Limits:    l.limits,
		Referrals: l.referrals,
		Admin:     l.admin,
		Audit:     l.audit,
		Moves:     l.moves,

		LoginDefence: l.defence,
	}
}
