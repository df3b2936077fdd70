package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// maxElsewhere bounds the servers that only referrals name.
const maxElsewhere = 64

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
			return s.reach(from, address)
		}
	}
	return nil, errors.New("no backend has this address, and it is not in referrals.networks")
}

// reach returns the server at an address that no shard names, with the
// settings of the backend that refers to it.
func (s *snapshot) reach(from *backend, address string) (*backend, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.elsewhere[address]; ok {
		return b, nil
	}
	if s.closed {
		return nil, pool.ErrClosed
	}
	if len(s.elsewhere) >= maxElsewhere {
		return nil, fmt.Errorf("referrals have led to %d servers already", maxElsewhere)
	}
	c := from.config
	c.Name, c.Address = from.config.Name+"->"+address, address
	c.Pool.MinIdle = 0
	c.HealthCheck.Interval = 0
	if s.elsewhere == nil {
		s.elsewhere = make(map[string]*backend)
	}
	b := newBackend(pool.New(c, nil, s.log), c, &s.meters.elsewhere)
	s.elsewhere[address] = b
	return b, nil
}

// closeElsewhere returns the pools of reach, of which there are no more then.
func (s *snapshot) closeElsewhere() []*pool.Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var pools []*pool.Pool
	for _, b := range s.elsewhere {
		pools = append(pools, b.Pool)
	}
	s.elsewhere = nil
	return pools
}
