package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// staleNames is for how long what a name stood for is dialled while it cannot
// be looked up.
const staleNames = time.Hour

// places looks up where a backend is. It asks before every connection, as the
// resolver of the system bounds how old an answer is. Where that fails, the
// last answer is used for a while: a name server that is down takes no backend
// with it.
type places struct {
	address  string // host:port, or srv: and the name of a service
	resolver *net.Resolver

	mu   sync.Mutex
	last []string // IP addresses and ports
	at   time.Time
}

// find returns the addresses to try, in their order.
func (p *places) find(ctx context.Context) ([]string, error) {
	found, err := p.lookUp(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.last, p.at = found, time.Now()
		return found, nil
	}
	if p.last != nil && time.Since(p.at) < staleNames && ctx.Err() == nil {
		return p.last, nil
	}
	return nil, fmt.Errorf("backend %s: %w", p.address, err)
}

func (p *places) lookUp(ctx context.Context) ([]string, error) {
	service, isService := strings.CutPrefix(p.address, config.ServicePrefix)
	if !isService {
		return p.host(ctx, p.address)
	}
	// In the order of priorities, and at random by weight among equals.
	_, servers, err := p.resolver.LookupSRV(ctx, "", "", service)
	if err != nil {
		return nil, err
	}
	var all []string
	var errs []error
	for _, s := range servers {
		some, err := p.host(ctx, net.JoinHostPort(strings.TrimSuffix(s.Target, "."), strconv.Itoa(int(s.Port))))
		all, errs = append(all, some...), append(errs, err)
	}
	if len(all) == 0 {
		return nil, errors.Join(append(errs, errors.New("the service has no server"))...)
	}
	return all, nil
}

// host looks a host up.
func (p *places) host(ctx context.Context, address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{address}, nil
	}
	addrs, err := p.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	all := make([]string, len(addrs))
	for i, a := range addrs {
		all[i] = net.JoinHostPort(a.Unmap().String(), port)
	}
	return all, nil
}

// connect tries the addresses one after the other. Each has its share of the
// time, so that one that does not answer leaves some for the others.
func (p *places) connect(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	addresses, err := p.find(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, address := range addresses {
		var d net.Dialer
		if end, ok := ctx.Deadline(); ok {
			d.Timeout = time.Until(end) / time.Duration(len(addresses)-i)
		}
		nc, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return nc, nil
		}
		errs = append(errs, err) // names the address and what failed
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, fmt.Errorf("none of %d addresses: %w", len(addresses), errors.Join(errs...))
}
