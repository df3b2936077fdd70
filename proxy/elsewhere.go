package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

const (
	// maxElsewhere bounds the servers that no shard names.
	maxElsewhere = 64
	// idleElsewhere is for how long one of them is kept that nobody asks for.
	idleElsewhere = 10 * time.Minute
	// spareElsewhere is the same where another one wants its place.
	spareElsewhere = 30 * time.Second
)

// elsewhere has the servers that only referrals and the answers of routes name,
// with their pools. They come when a command is for them, and go when they have
// not been needed for a while.
type elsewhere struct {
	mu     sync.Mutex
	all    map[serverKey]*server
	closed bool
	ending sync.WaitGroup // pools of servers that went
}

// serverKey is what makes servers different: where they are and how they are
// spoken to, which depends on who names them.
type serverKey struct {
	address, settings string
	tls               config.BackendTLS
	timeout           time.Duration
}

type server struct {
	*backend
	used time.Time
}

// referred returns the server that a referral of from names, "[user@]host" with
// an optional port. visited are the addresses that the command has been to.
func (s *snapshot) referred(from *backend, to string, visited []string) (*backend, error) {
	_, defaultPort, err := net.SplitHostPort(from.address)
	if err != nil {
		return nil, err
	}
	// The user is ignored, as Dovecot's own client does: the command is sent
	// as it is.
	host := to[strings.LastIndexByte(to, '@')+1:]
	port := defaultPort
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	address := net.JoinHostPort(host, port)
	if slices.Contains(visited, address) {
		return nil, errors.New("the referrals loop")
	}
	for _, shard := range s.shards {
		for _, b := range shard.members {
			if b.address == address {
				return b, nil
			}
		}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, errors.New("no backend has this address, and it is not an IP address in referrals.networks")
	}
	for _, network := range s.config.Referrals.Networks {
		if network.Contains(ip.Unmap()) {
			// With the settings of the backend that refers to it.
			c := from.config
			name, _, _ := strings.Cut(c.Name, "->")
			c.Name, c.Address = name+"->"+address, address
			return s.reach(c, name)
		}
	}
	return nil, errors.New("no backend has this address, and it is not in referrals.networks")
}

// targeted returns the server that a route names by its address, which the
// route has found to be allowed.
func (s *snapshot) targeted(t *lookup.Target) (*shard, error) {
	if s.config.Elsewhere == nil {
		return nil, errors.New("no route has networks")
	}
	c := *s.config.Elsewhere
	c.Address = t.Address()
	c.Name = c.Address
	if t.TLS != "" {
		c.TLS.Mode = t.TLS
	}
	if t.AnyCert {
		c.TLS.InsecureSkipVerify = true
	}
	if t.Timeout > 0 {
		c.Timeouts.Connect, c.Timeouts.Handshake = t.Timeout, t.Timeout
	}
	b, err := s.reach(c, "")
	if err != nil {
		return nil, err
	}
	return &shard{balance: config.BalanceOrder, members: []*backend{b}, names: s.names}, nil
}

// reach returns the server of c, whose settings are those of the backend of
// that name, or those for all.
func (s *snapshot) reach(c config.Backend, settings string) (*backend, error) {
	key := serverKey{c.Address, settings, c.TLS, c.Timeouts.Connect}
	now := time.Now()
	e := &s.elsewhere
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, pool.ErrClosed
	}
	if b, ok := e.all[key]; ok {
		b.used = now
		return b.backend, nil
	}
	e.sweep(now, idleElsewhere)
	if len(e.all) >= maxElsewhere {
		e.sweep(now, spareElsewhere)
	}
	if len(e.all) >= maxElsewhere {
		return nil, fmt.Errorf("commands are on their way to %d servers that no shard names: that is all there may be at a time", maxElsewhere)
	}
	c.Pool.MinIdle = 0
	c.HealthCheck.Interval = 0
	if e.all == nil {
		e.all = make(map[serverKey]*server)
	}
	b := newBackend(pool.New(c, nil, s.log), c, &s.meters.elsewhere)
	e.all[key] = &server{b, now}
	return b, nil
}

// sweep drops the servers that have not been needed for so long. The caller
// holds mu.
func (e *elsewhere) sweep(now time.Time, unused time.Duration) {
	for key, b := range e.all {
		if b.Busy() == 0 && now.Sub(b.used) >= unused {
			delete(e.all, key)
			e.ending.Go(func() { b.Close(cancelled) })
		}
	}
}

// close returns the pools, of which there are no more then.
func (e *elsewhere) close() []*pool.Pool {
	e.mu.Lock()
	e.closed = true
	var pools []*pool.Pool
	for _, b := range e.all {
		pools = append(pools, b.Pool)
	}
	e.all = nil
	e.mu.Unlock()
	e.ending.Wait()
	return pools
}
