package proxy

import (
	"fmt"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// BackendStatus is a backend at one moment.
type BackendStatus struct {
	Shard   string
	Name    string
	Address string
	Standby bool
	Since   time.Time // of its operator state, unless that is active
	MaxOpen int
	Stat    pool.Stat

	Retries   uint64 // commands sent again
	Failovers uint64 // commands that another backend of the shard ran instead
	Referrals uint64 // commands that it sent elsewhere

	Available bool // nothing speaks against it
}

// Backends returns all backends, shard by shard, as they are written.
func (p *Proxy) Backends() []BackendStatus {
	snap := p.snapshot.Load()
	var all []BackendStatus
	for _, c := range snap.config.Shards {
		for _, b := range snap.shards[c.Name].members {
			all = append(all, BackendStatus{
				Shard: c.Name, Name: b.Name(), Address: b.address, Standby: b.config.Standby,
				Since: p.wishes.get(b.Name()).Since, MaxOpen: b.limits.MaxOpen, Stat: b.Stat(), Available: b.Available(),
				Retries: b.meter.retries.Load(), Failovers: b.meter.failovers.Load(), Referrals: b.meter.referrals.Load(),
			})
		}
	}
	return all
}

// Reconnect replaces the connections to a backend: idle ones are closed now, the
// others when the command that they run has ended.
func (p *Proxy) Reconnect(name string) error {
	at, ok := p.snapshot.Load().pools[name]
	if !ok {
		return fmt.Errorf("%w: %q", ErrNoBackend, name)
	}
	at.Retire()
	return nil
}

// Sessions returns how many clients are connected.
func (p *Proxy) Sessions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// Ready reports whether new sessions are accepted: from Serve to the begin of
// Shutdown. What the backends do has no part in it; a client gets a better
// answer from a proxy than from none.
func (p *Proxy) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.serves && !p.ending
}
