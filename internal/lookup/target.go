package lookup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Target is a server that a source names by its address, and how to speak to
// it. What is not said is as the configuration has it for backends.
type Target struct {
	// Addresses are the server's, host:port, by which it may be known as a
	// backend: with the name that the source gave and with the IP address.
	Addresses []string
	IP        netip.Addr // zero: the source gave a name only
	Port      uint16
	// User is the name to send, empty: that of the command.
	User string
	// TLS is a mode of backends: config.TLSImplicit, config.TLSStartTLS, or
	// empty.
	TLS string
	// AnyCert accepts every certificate.
	AnyCert bool
	// Timeout bounds connecting and logging in; 0: as configured.
	Timeout time.Duration
}

// Address returns the address to connect to: the IP address where it is known.
func (t *Target) Address() string {
	if len(t.Addresses) == 0 {
		return ""
	}
	return t.Addresses[len(t.Addresses)-1]
}

// SetHost sets the address: of the host or, where that is known, of its IP
// address.
func (t *Target) SetHost(host, ip string, port uint16) error {
	t.Addresses, t.Port = nil, port
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("host %q has blanks or control characters", host)
	}
	if host == "" && ip == "" {
		return errors.New("no host")
	}
	if ip == "" {
		if addr, err := netip.ParseAddr(host); err == nil {
			host, ip = "", addr.String()
		}
	}
	add := func(host string) {
		t.Addresses = append(t.Addresses, net.JoinHostPort(host, strconv.Itoa(int(port))))
	}
	if host != "" {
		add(strings.ToLower(host))
	}
	if ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return fmt.Errorf("%q is not an IP address", ip)
		}
		t.IP = addr.Unmap().WithZone("")
		add(t.IP.String())
	}
	return nil
}

// ParseTarget returns the server of an answer host:port, nil for one of another
// form, which is the name of a shard.
func ParseTarget(s string) *Target {
	host, digits, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return nil
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || port == 0 {
		return nil
	}
	t := new(Target)
	if t.SetHost(host, "", uint16(port)) != nil {
		return nil
	}
	return t
}
