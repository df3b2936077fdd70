package proxy

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// snapshot is one configuration at work. It does not change, but for the
// servers that referrals lead to.
type snapshot struct {
	log      hclog.Logger
	config   *config.Config
	table    *router.Table
	verifier *auth.Verifier
	clients  map[string]config.Client
	shards   map[string]*shard
	pools    map[string]*pool.Pool // by name of the backend

	// Servers that only referrals name, by address.
	mu        sync.Mutex
	elsewhere map[string]*backend
	closed    bool
}

// backend is a backend at work.
type backend struct {
	*pool.Pool
	config   config.Backend
	address  string
	timeouts config.Timeouts
	limits   config.Pool
	tunnels  *semaphore.Weighted
}

func newBackend(p *pool.Pool, c config.Backend) *backend {
	return &backend{p, c, c.Address, c.Timeouts, c.Pool, semaphore.NewWeighted(int64(c.Pool.MaxTunnels))}
}

// build makes the snapshot of cfg with the pools of old where the backend is
// the same.
func (p *Proxy) build(cfg *config.Config, old *snapshot) (*snapshot, error) {
	table, hashes, err := parts(cfg)
	if err != nil {
		return nil, err
	}
	s := &snapshot{
		log:      p.log.Named("pool"),
		config:   cfg,
		table:    table,
		verifier: auth.NewVerifier(hashes, p.logins),
		clients:  make(map[string]config.Client),
		shards:   make(map[string]*shard),
		pools:    make(map[string]*pool.Pool),
	}
	for _, c := range cfg.Clients {
		s.clients[c.Name] = c
	}
	before := old.backends()
	for _, c := range cfg.Shards {
		shard := newShard(c)
		s.shards[c.Name] = shard
		for _, b := range c.Backends {
			was, known := before[b.Name]
			at := was
			if !known || !reflect.DeepEqual(was.config, b) {
				at = newBackend(pool.New(b, nil, p.log.Named("pool")), b)
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

// parts makes what can fail of a snapshot. All problems are in the error.
func parts(cfg *config.Config) (*router.Table, map[string]auth.Hash, error) {
	var errs []error
	hashes := make(map[string]auth.Hash)
	for _, c := range cfg.Clients {
		hash, err := auth.ParseHash(c.Password.Reveal())
		if err != nil {
			errs = append(errs, fmt.Errorf("client %q: %w", c.Name, err))
		}
		hashes[c.Name] = hash
	}
	var shards []string
	for _, shard := range cfg.Shards {
		shards = append(shards, shard.Name)
	}
	table, err := router.New(cfg.Routes, shards)
	if err != nil {
		errs = append(errs, err)
	}
	return table, hashes, errors.Join(errs...)
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
	return append(left, s.closeElsewhere()...)
}

// discard closes the pools of a snapshot that was not put to work.
func (s *snapshot) discard(old *snapshot) {
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
	_, _, err := parts(cfg)
	return err
}
