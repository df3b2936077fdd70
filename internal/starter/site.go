// Package starter writes the first configuration of a proxy: one that a person
// reads, understands and changes, and that "doveadm-proxy check" accepts. It
// also reads what other software says about where users are, see [Source].
package starter

import (
	"fmt"
	"net"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// DefaultPort is the port of a doveadm listener where none is said: the one of
// Dovecot's documentation.
const DefaultPort = "24245"

// Site is what a first configuration says. The zero value of each field but
// Shards has a meaning.
type Site struct {
	Listen   string // host:port of the listener for clients; 127.0.0.1:24245 if empty
	Cert     string // file of the certificate for clients; none if empty
	Key      string // file of its key
	Clear    bool   // passwords may come from other hosts without TLS
	Client   string // who logs in there; "doveadm" if empty
	Username string // at the backends; "doveadm" if empty
	TLS      string // to the backends: off (if empty), implicit or starttls
	CA       string // file of the authorities of their certificates; those of the machine if empty
	Shards   []Shard
	Users    Placement
	Routes   []Route  // asked before what Users says
	Map      []MapRow // lines of users.map; it is written if Users is ByMap or if there are any
	From     []string // where all this comes from, for the first comment
	Notes    []string // what the reader has to look at, for comments and for whom the command tells
}

// Shard is one or more backends with the same mail.
type Shard struct {
	Name     string
	Comment  string
	Weight   int // of the ring; 100 if 0 and no ring of a director
	Backends []Backend
}

// Backend is one server.
type Backend struct {
	Name    string
	Address string // host:port
}

// Route is a route of its own, as HCL.
type Route struct {
	Comment string
	Text    string
}

// MapRow is a line of a map of users.
type MapRow struct{ User, Shard string }

// Placement is how the proxy finds the shard of a user for whom no other route
// decides.
type Placement string

const (
	ByMap      Placement = "map"      // a file with a line for each
	ByHash     Placement = "ring"     // a hash of the name: for an empty cluster, or one where each backend has all mail
	ByDirector Placement = "director" // the hash of a Dovecot director, which Routes hold
	OneShard   Placement = "one"      // there is only one
)

// normal returns the site with the defaults filled in.
func (s Site) normal() Site {
	if s.Listen == "" {
		s.Listen = "127.0.0.1:" + DefaultPort
	}
	if s.Client == "" {
		s.Client = "doveadm"
	}
	if s.TLS == "" {
		s.TLS = "off"
	}
	if len(s.Shards) == 1 {
		s.Users = OneShard
	}
	return s
}

// ParseBackends reads the backends of one shard, [NAME=]HOST[:PORT] with commas
// between them. number is that of the shard, from 1 on.
func ParseBackends(text string, number int) (Shard, error) {
	shard := Shard{Name: fmt.Sprintf("s%d", number)}
	for i, one := range strings.Split(text, ",") {
		one = strings.TrimSpace(one)
		name, address, named := strings.Cut(one, "=")
		if !named {
			name, address = "", one
		}
		host, port, err := splitHostPort(address)
		if err != nil {
			return Shard{}, fmt.Errorf("backend %q: %w: write HOST, HOST:PORT or NAME=HOST:PORT, for example 10.0.1.1:24245", one, err)
		}
		if named && !plainName(name) {
			return Shard{}, fmt.Errorf("backend %q: %q is no name: take letters, digits, dots and hyphens", one, name)
		}
		if name == "" {
			name = backendName(host, number)
			if i > 0 && net.ParseIP(host) != nil {
				name += string(rune('a' + i%26))
			}
		}
		shard.Backends = append(shard.Backends, Backend{Name: name, Address: net.JoinHostPort(host, port)})
	}
	return shard, nil
}

// backendName is the first label of a host name, and for an address a number.
func backendName(host string, number int) string {
	if net.ParseIP(host) != nil {
		return fmt.Sprintf("mail%d", number)
	}
	label, _, _ := strings.Cut(host, ".")
	return label
}

// splitHostPort returns host and port of HOST, HOST:PORT, [HOST]:PORT or an
// address of IPv6.
func splitHostPort(text string) (host, port string, err error) {
	switch {
	case net.ParseIP(strings.Trim(text, "[]")) != nil:
		host, port = strings.Trim(text, "[]"), DefaultPort
	case strings.Contains(text, ":"):
		if host, port, err = net.SplitHostPort(text); err != nil {
			return "", "", fmt.Errorf("no host and port")
		}
	default:
		host, port = text, DefaultPort
	}
	if host == "" || strings.ContainsAny(host, " \t\"/\\") {
		return "", "", fmt.Errorf("no host")
	}
	if _, err := net.LookupPort("tcp", port); err != nil || strings.Trim(port, "0123456789") != "" || port == "0" {
		return "", "", fmt.Errorf("no port, a number from 1 to 65535")
	}
	return host, port, nil
}

func plainName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}

// Check reports what cannot become a configuration.
func (s Site) Check() error {
	s = s.normal()
	if !config.Loopback(s.Listen) && s.Cert == "" && !s.Clear {
		return fmt.Errorf("%s is reached from other hosts, whose passwords must not be sent in clear text: say --tls-cert FILE and --tls-key FILE; "+
			"or --listen 127.0.0.1:%s for this machine only; or, on a network where nobody else listens, --insecure-clear-text", s.Listen, DefaultPort)
	}
	if (s.Cert == "") != (s.Key == "") {
		return fmt.Errorf("--tls-cert and --tls-key belong together")
	}
	if len(s.Shards) == 0 {
		return fmt.Errorf("no backend: name at least one")
	}
	seen := map[string]string{}
	for _, shard := range s.Shards {
		for _, b := range shard.Backends {
			if first, ok := seen[b.Name]; ok {
				return fmt.Errorf("%s and %s would both be called %q: give one of them a name, as in mail7=%s", first, b.Address, b.Name, b.Address)
			}
			seen[b.Name] = b.Address
		}
	}
	return nil
}
