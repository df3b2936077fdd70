package proxy

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/access"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/identity"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// snapshot is one configuration at work. It does not change, but for the
// servers that no shard names.
type snapshot struct {
	meters *meters
	log    hclog.Logger
	config *config.Config
	parts
	known    *identity.Table
	verifier *auth.Verifier // of clients with a password
	clients  map[string]client
	shards   map[string]*shard
	pools    map[string]*pool.Pool     // by name of the backend
	decided  map[string]*atomic.Uint64 // commands, by the route that named their shard

	elsewhere elsewhere
}

// client is a client of the configuration, with the places that its commands
// may take at the same time; nil: as many as there are.
type client struct {
	config.Client
	places    *semaphore.Weighted
	passwords *clientPasswords
	budget    *budget
	meter     *clientMeter
	counts    *clientCounts
}

// clientCounts outlive reloads.
type clientCounts struct{ commands, failed, bytes atomic.Uint64 }

// newClient makes a client, which was what had its name before.
func newClient(c config.Client, stored auth.Passwords, was client, log hclog.Logger) client {
	n := client{Client: c, places: was.places, passwords: newClientPasswords(c, stored, was.passwords, log), budget: newBudget(c.Rates, was.budget), counts: was.counts}
	if n.counts == nil {
		n.counts = new(clientCounts)
	}
	switch {
	case was.passwords != nil && was.MaxCommands == c.MaxCommands:
		// Those who are at it count.
	case c.MaxCommands == 0:
		n.places = nil
	default:
		n.places = semaphore.NewWeighted(int64(c.MaxCommands))
	}
	return n
}

// place waits for a place for one more command of the client, which release
// frees.
func (c client) place(ctx context.Context, timeout time.Duration) error {
	if c.places == nil || c.places.TryAcquire(1) {
		return nil
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("max_commands of client %s is reached", printable(c.Name)))
		defer cancel()
	}
	if c.places.Acquire(ctx, 1) != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (c client) release() {
	if c.places != nil {
		c.places.Release(1)
	}
}

// forPool is how pools know the client.
func (c client) forPool() pool.Client {
	return pool.Client{Name: c.Name, Bulk: c.Priority == config.PriorityBulk}
}

// backend is a backend at work.
type backend struct {
	*pool.Pool
	config   config.Backend
	address  string
	timeouts config.Timeouts
	limits   config.Pool
	tunnels  *semaphore.Weighted
	bulk     *semaphore.Weighted // of tunnels: for bulk clients
	retries  *retryBudget
	meter    *backendMeter
}

func newBackend(p *pool.Pool, c config.Backend, meter *backendMeter) *backend {
	return &backend{p, c, c.Address, c.Timeouts, c.Pool, semaphore.NewWeighted(int64(c.Pool.MaxTunnels)), semaphore.NewWeighted(int64(max(1, c.Pool.MaxTunnels/2))), new(retryBudget), meter}
}

// build makes the snapshot of cfg with the pools of old where the backend is
// the same.
func (p *Proxy) build(cfg *config.Config, old *snapshot) (*snapshot, error) {
	made, err := newParts(cfg, old.routes())
	if err != nil {
		return nil, err
	}
	made.table.Follow(p.log.Named("router"))
	sources := make(map[string]auth.Source)
	s := &snapshot{
		meters:  p.meters,
		log:     p.log.Named("pool"),
		config:  cfg,
		parts:   made,
		known:   identity.New(cfg.Clients),
		clients: make(map[string]client),
		shards:  make(map[string]*shard),
		pools:   make(map[string]*pool.Pool),
		decided: make(map[string]*atomic.Uint64),
	}
	for _, name := range made.table.RouteNames() {
		s.decided[name] = p.meters.route(name)
	}
	if p.moves != nil {
		made.table.Except(p.moves.Gate, shardNames(cfg))
	}
	for _, c := range cfg.Clients {
		var was client
		if old != nil {
			was = old.clients[c.Name]
		}
		client := newClient(c, made.passwords[c.Name], was, p.log)
		client.meter = p.meters.client(c.Name)
		s.clients[c.Name] = client
		if !c.Password.Empty() {
			sources[c.Name] = s.clients[c.Name].passwords.now
		}
	}
	s.verifier = auth.NewVerifier(sources, p.logins)
	before := old.backends()
	for _, c := range cfg.Shards {
		shard := newShard(c, made.names)
		s.shards[c.Name] = shard
		for _, b := range c.Backends {
			was, known := before[b.Name]
			at := was
			if !known || !sameBackend(was.config, b) {
				at = newBackend(pool.New(b, nil, p.log.Named("pool")), b, p.meters.backend(b.Name))
				if known {
					at.Inherit(was.Pool)
				} else if want := p.wishes.get(b.Name); want.State != pool.Active {
					at.SetOperator(want.State)
					s.log.Warn("backend is out of service, as an operator wants it", "backend", b.Name, "state", want.State.String(), "since", want.Since)
				}
			}
			s.pools[b.Name] = at.Pool
			shard.members = append(shard.members, at)
		}
	}
	return s, nil
}

// sameBackend reports whether a pool for a serves b. One whose passwords come
// from a file finds out by itself what is in it.
func sameBackend(a, b config.Backend) bool {
	if a.PasswordFile != "" {
		a.Password, a.OldPassword = b.Password, b.OldPassword
	}
	return reflect.DeepEqual(a, b)
}

// routes returns the table of a snapshot, nil if there is none.
func (s *snapshot) routes() *router.Table {
	if s == nil {
		return nil
	}
	return s.table
}

// parts are what can fail of a snapshot.
type parts struct {
	names     *router.Names
	table     *router.Table
	rules     *access.Rules
	passwords map[string]auth.Passwords // of clients
}

// newParts makes those of a configuration, with what routes keep of the table
// before. All problems are in the error.
func newParts(cfg *config.Config, before *router.Table) (parts, error) {
	p := parts{passwords: make(map[string]auth.Passwords)}
	var errs []error
	for _, c := range cfg.Clients {
		if c.Password.Empty() {
			continue
		}
		hashes, err := parsePasswords(c.Password, c.OldPassword)
		if err != nil {
			errs = append(errs, fmt.Errorf("client %q: %w", c.Name, err))
		}
		p.passwords[c.Name] = hashes
	}
	var err error
	if p.names, err = router.NewNames(cfg.Router); err != nil {
		return p, errors.Join(append(errs, err)...)
	}
	if p.table, err = before.Next(p.names, cfg.Routes, shardNames(cfg)); err != nil {
		errs = append(errs, err)
	}
	if p.rules, err = access.New(p.names, cfg.Clients, cfg.Shards); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		if p.table != nil {
			p.table.Close()
		}
		return parts{}, err
	}
	return p, nil
}

func shardNames(cfg *config.Config) []string {
	var names []string
	for _, shard := range cfg.Shards {
		names = append(names, shard.Name)
	}
	return names
}

// backends returns the backends of a snapshot by name.
func (s *snapshot) backends() map[string]*backend {
	all := make(map[string]*backend)
	if s == nil {
		return all
	}
	for _, shard := range s.shards {
		for _, b := range shard.members {
			all[b.Name()] = b
		}
	}
	return all
}

// without returns the pools of s that next does not use.
func (s *snapshot) without(next *snapshot) []*pool.Pool {
	var left []*pool.Pool
	for name, p := range s.pools {
		if next == nil || next.pools[name] != p {
			left = append(left, p)
		}
	}
	return append(left, s.elsewhere.close()...)
}

// logAges tells how old the passwords of the clients are.
func (s *snapshot) logAges(log hclog.Logger) {
	for name, c := range s.clients {
		c.passwords.logAge(name, log)
	}
}

// discard closes what a snapshot has that was not put to work.
func (s *snapshot) discard(old *snapshot) {
	s.table.Close()
	for _, p := range s.without(old) {
		p.Close(cancelled)
	}
}

// only returns the shard if there is just one.
func (s *snapshot) only() (string, bool) {
	if len(s.config.Shards) == 1 {
		return s.config.Shards[0].Name, true
	}
	return "", false
}

// Validate reports everything for which New or Reload would refuse cfg, short
// of opening its listeners.
func Validate(cfg *config.Config) error {
	p, err := newParts(cfg, nil)
	if err != nil {
		return err
	}
	p.table.Close()
	return nil
}
