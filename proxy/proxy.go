// Package proxy is the running proxy: its listeners, the sessions of its
// clients, and the way of one command to a backend and of the reply back.
//
// What is configured at one moment is a snapshot: the routing table, the pools
// and the clients. A command uses the snapshot that it began with; Reload
// replaces the snapshot as a whole or not at all.
package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/audit"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/moves"
	"github.com/doveadm-proxy/doveadm-proxy/internal/penalty"
)

// Options are what a Proxy gets from outside its configuration.
type Options struct {
	Log hclog.Logger

	// Sockets are listeners that are open already, for instance by systemd's
	// socket activation, by the name of their listener block. The proxy owns
	// them.
	Sockets map[string]net.Listener

	// Kept are listeners that an earlier process opened, by the key that its
	// Keep got. The proxy owns them.
	Kept map[string]net.Listener
	// Keep, unless it is nil, gets each listener that the proxy opens itself,
	// for a later process to go on with; Forget gets the key of one that is no
	// longer wanted. File is Keep's only until it returns.
	Keep   func(key string, file *os.File) error
	Forget func(key string) error
}

// Proxy serves clients. All methods may be called from any goroutine.
type Proxy struct {
	log     hclog.Logger
	sockets map[string]net.Listener
	keeping keeping
	logins  *auth.Cache
	audit   *audit.Log
	spool   *spoolBudget
	wishes  *wishes
	meters  *meters
	reloads reloadState

	penalties *penalty.Table
	loginStat loginCounts

	resources resources
	moves     *moves.Node // nil: users cannot be moved

	paused pauses
	tails  atomic.Pointer[[]*Tail]  // replaced, not changed; nil: there are none
	traces atomic.Pointer[[]*Trace] // likewise

	snapshot atomic.Pointer[snapshot]
	nextID   atomic.Uint64 // of sessions
	commands atomic.Int64  // that run

	// reloading is held while the snapshot is replaced; it comes before mu.
	reloading sync.Mutex

	// mu guards what follows. No I/O happens under it.
	mu        sync.Mutex
	listeners map[string]*listener // by address
	sessions  map[*session]struct{}
	admission admission
	serves    bool // Serve was called
	ending    bool // Drain was called
	draining  bool

	accepting sync.WaitGroup // accept loops
	serving   sync.WaitGroup // sessions
	watching  sync.WaitGroup // watch
	retiring  sync.WaitGroup // pools and routes that a reload left behind
	cut       context.Context
	cutNow    context.CancelCauseFunc
}

// New opens the listeners and pools of cfg. Serve begins to accept.
func New(cfg *config.Config, o Options) (*Proxy, error) {
	p := &Proxy{
		log:       o.Log,
		sockets:   o.Sockets,
		keeping:   keeping{kept: o.Kept, keep: o.Keep, forget: o.Forget},
		logins:    auth.NewCache(auth.CacheOptions{}),
		spool:     &spoolBudget{},
		meters:    newMeters(),
		listeners: make(map[string]*listener),
		sessions:  make(map[*session]struct{}),
		admission: admission{addresses: make(map[netip.Addr]int), clients: make(map[string]int)},
	}
	p.cut, p.cutNow = context.WithCancelCause(context.Background())
	var warning error
	if p.wishes, warning = loadWishes(cfg.Admin.StateFile); warning != nil {
		p.log.Error("what operators want of backends is not known: all of them are active", "error", warning)
	}
	if err := p.openMoves(cfg.Moves); err != nil {
		return nil, err
	}
	snap, err := p.build(cfg, nil)
	if err != nil {
		p.closeMoves()
		return nil, err
	}
	sink, err := audit.Open(cfg.Audit)
	if err != nil {
		snap.discard(nil)
		p.closeMoves()
		return nil, err
	}
	settings := p.listenerSettings(cfg)
	p.keeping.drop(settings, p.log)
	opened, err := p.openListeners(settings)
	if err != nil {
		snap.discard(nil)
		sink.Close()
		p.closeMoves()
		return nil, err
	}
	p.penalties = penalty.New()
	p.penalties.Configure(penaltyOptions(cfg.LoginDefence))
	p.audit = audit.New(p.log)
	p.audit.Use(sink)
	p.resources.configure(cfg)
	p.spool.configure(cfg.Limits.MaxSpool, p.resources.buffers())
	for _, l := range opened {
		p.listeners[l.key()] = l
	}
	p.snapshot.Store(snap)
	p.reloads.Loaded = time.Now()
	snap.logAges(p.log)
	return p, nil
}

// Serve starts to accept connections and returns at once.
func (p *Proxy) Serve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serves = true
	for _, l := range p.listeners {
		p.accept(l)
	}
	p.watching.Go(p.watch)
}

// Addr returns the address of a listener by its name, nil if there is none.
func (p *Proxy) Addr(name string) net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		if l.config().Name == name {
			return l.Addr()
		}
	}
	return nil
}

// Reload replaces the configuration: wholly, or not at all if it returns an
// error. Open sessions go on; pools of backends that did not change are kept
// with their connections.
func (p *Proxy) Reload(cfg *config.Config) error {
	err := p.reload(cfg)
	if err != nil {
		p.ReloadFailed(err)
	} else {
		p.reloads.note(nil)
	}
	return err
}

func (p *Proxy) reload(cfg *config.Config) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	old := p.snapshot.Load()
	snap, err := p.build(cfg, old)
	if err != nil {
		return err
	}
	sink, err := audit.Open(cfg.Audit)
	if err != nil {
		snap.discard(old)
		return err
	}
	settings := p.listenerSettings(cfg)
	opened, err := p.openListeners(settings)
	if err != nil {
		snap.discard(old)
		sink.Close()
		return err
	}

	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		for _, l := range opened {
			p.abandon(l)
		}
		snap.discard(old)
		sink.Close()
		return errShuttingDown
	}
	var closing []*listener
	wanted := make(map[string]*listenerSettings)
	for _, set := range settings {
		wanted[listenerKey(set.Listener)] = set
	}
	for key, l := range p.listeners {
		if set, ok := wanted[key]; ok {
			l.configure(set)
		} else {
			closing = append(closing, l)
			delete(p.listeners, key)
		}
	}
	p.snapshot.Store(snap)
	p.resources.configure(cfg)
	p.spool.configure(cfg.Limits.MaxSpool, p.resources.buffers())
	for _, l := range opened {
		p.listeners[l.key()] = l
		p.accept(l)
	}
	p.mu.Unlock()

	p.penalties.Configure(penaltyOptions(cfg.LoginDefence))
	p.audit.Use(sink)
	p.configureMoves(cfg.Moves)
	p.meters.keep(snap)
	snap.logAges(p.log)
	for _, l := range closing {
		p.abandon(l)
	}
	p.retiring.Go(old.table.Close)
	for _, retired := range old.without(snap) {
		p.retiring.Go(func() { retired.Close(p.cut) })
	}
	return nil
}

var errShuttingDown = errors.New("the proxy is shutting down")

// ReopenAudit opens the file of the audit log anew, as after it was renamed. A
// reload does so, too.
func (p *Proxy) ReopenAudit() { p.audit.Reopen() }

// AuditStat returns what became of the records of the audit log.
func (p *Proxy) AuditStat() audit.Stat { return p.audit.Stat() }

// Check proves that the proxy is alive: that a connection to one of its
// listeners is accepted.
func (p *Proxy) Check(ctx context.Context) error {
	p.mu.Lock()
	var addr net.Addr
	for _, l := range p.listeners {
		addr = l.Addr()
		break
	}
	p.mu.Unlock()
	if addr == nil {
		return nil
	}
	return probe(ctx, addr)
}
