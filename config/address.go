package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// hostPort is the address of a server: a host and a port.
func hostPort(to *string) field {
	return field{
		takes: "a host and a port, `host:port`",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if strings.HasPrefix(s, "unix:") {
				return wrong("Only a listener may be a UNIX socket.")
			}
			host, port, p := splitAddress(s)
			switch {
			case p != nil:
				return p
			case host == "":
				return wrong("The host is missing.")
			case port == 0:
				return wrong("The port is a number from 1 to 65535.")
			}
			*to = net.JoinHostPort(host, strconv.Itoa(port))
			return nil
		},
		get: func() cty.Value { return optional(*to) },
	}
}

// ServicePrefix stands before the name of a DNS service (SRV) in the address of
// a backend.
const ServicePrefix = "srv:"

// backendAddress is the address of a server, or a DNS service.
func backendAddress(to *string) field {
	f := hostPort(to)
	f.takes = "a host and a port, `host:port`, or `srv:_service._tcp.domain`"
	set := f.set
	f.set = func(v value) *problem {
		s, _ := v.is.(string)
		name, ok := strings.CutPrefix(s, ServicePrefix)
		if !ok {
			return set(v)
		}
		if !isHost(name) || !strings.HasPrefix(name, "_") || !strings.Contains(name, "._tcp.") {
			return wrong("A service is srv:, its name and a domain: srv:_doveadm._tcp.example.com")
		}
		*to = ServicePrefix + name
		return nil
	}
	return f
}

// maxSocketPath is what Linux takes, sun_path of unix(7) less the NUL, and less
// the dot and process number of the name under which a socket is made.
const maxSocketPath = 107 - 8

// endpoint is where a listener listens: host and port, or a UNIX socket.
func endpoint(network, address *string) field {
	return field{
		takes: "`host:port` or `unix:/path`",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if path, ok := strings.CutPrefix(s, "unix:"); ok {
				switch {
				case !filepath.IsAbs(path):
					return wrong("The path of a socket begins with a slash: unix:/run/doveadm-proxy/doveadm.sock")
				case len(path) > maxSocketPath:
					return wrong(fmt.Sprintf("The path of a socket has at most %d bytes.", maxSocketPath))
				}
				if p := checkText(path); p != nil {
					return p
				}
				*network, *address = "unix", filepath.Clean(path)
				return nil
			}
			if strings.HasPrefix(s, "/") {
				return wrong("Put unix: before the path of a socket.")
			}
			host, port, p := splitAddress(s)
			if p != nil {
				return p
			}
			*network, *address = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
			return nil
		},
		get: func() cty.Value {
			if *network == "unix" {
				return cty.StringVal("unix:" + *address)
			}
			return optional(*address)
		},
	}
}

// splitAddress takes host:port apart. The host may be empty.
func splitAddress(s string) (host string, port int, p *problem) {
	host, digits, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Count(s, ":") > 1 && !strings.Contains(s, "[") {
			return "", 0, wrong("An IPv6 address stands in brackets: [2001:db8::1]:24245")
		}
		return "", 0, wrong("It ends in a colon and the port.")
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return "", 0, wrong("The port is a number from 1 to 65535.")
	}
	if host != "" && !isHost(host) {
		return "", 0, wrong("The host is a name or an IP address.")
	}
	return host, int(n), nil
}

func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 || !regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`).MatchString(s) {
		return false
	}
	// No top-level domain is a number: this is an IPv4 address gone wrong.
	last := s[strings.LastIndex(s, ".")+1:]
	return strings.ContainsFunc(last, func(r rune) bool { return r < '0' || '9' < r })
}
