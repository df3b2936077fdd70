// Package ldapsource asks directories where users are.
package ldapsource

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// idleTime is how long a connection that nobody uses stays open.
const idleTime = 5 * time.Minute

// Source asks one directory. Its methods may be called from any goroutine.
type Source struct {
	config  config.LDAP
	network string // of the server's address
	address string
	host    string // that the server's certificate has to be for
	tls     bool   // from the first byte on
	scope   int

	mu     sync.Mutex // guards what follows
	idle   []idle     // connections that are logged in, the last used at the end
	most   int        // of them
	closed bool
}

type idle struct {
	*ldap.Conn
	since time.Time
}

// New returns the source of a configuration. It connects to nothing.
func New(c config.LDAP, l config.Lookup) (*Source, error) {
	s := &Source{config: c, network: "tcp", most: max(1, l.MaxLookups)}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	port := "389"
	switch u.Scheme {
	case "ldap":
	case "ldaps":
		s.tls, port = true, "636"
	case "ldapi":
		s.network, s.address = "unix", u.Path
	default:
		return nil, fmt.Errorf("url %s: write ldap://, ldaps:// or ldapi:// in front of the host", c.URL)
	}
	if s.network == "tcp" {
		s.host = u.Hostname()
		if u.Port() != "" {
			port = u.Port()
		}
		s.address = net.JoinHostPort(s.host, port)
	}
	switch c.Scope {
	case config.ScopeBase:
		s.scope = ldap.ScopeBaseObject
	case config.ScopeOne:
		s.scope = ldap.ScopeSingleLevel
	default:
		s.scope = ldap.ScopeWholeSubtree
	}
	example := func(string) string { return "x" }
	if _, err := ldap.CompileFilter(lookup.Expand(c.Filter, "", example)); err != nil {
		return nil, fmt.Errorf("filter %s: %w: write it as in RFC 4515, for example (mail=%%u)", c.Filter, err)
	}
	if _, err := ldap.ParseDN(lookup.Expand(c.Base, "", example)); err != nil {
		return nil, fmt.Errorf("base %s: %w: write a DN, for example ou=people,dc=example,dc=com", c.Base, err)
	}
	return s, nil
}

// Lookup asks for a user.
func (s *Source) Lookup(ctx context.Context, user string) (lookup.Place, bool, error) {
	shard, found, err := s.search(ctx, user)
	if err != nil {
		return lookup.Place{}, false, fmt.Errorf("ldap: %w", err)
	}
	return lookup.Place{Shard: shard}, found, nil
}

// search asks over a connection of before, and, where that turns out to be of
// no use, over a new one.
func (s *Source) search(ctx context.Context, user string) (shard string, found bool, err error) {
	for {
		conn, used, err := s.connection(ctx)
		if err != nil {
			return "", false, err
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		result, err := s.ask(ctx, conn, user)
		switch {
		case !stop():
			return "", false, ctx.Err()
		case err == nil || ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultSizeLimitExceeded):
			s.keep(conn)
			return s.read(result, err)
		}
		conn.Close()
		// Only what the server itself said is an answer.
		var said *ldap.Error
		if !used || errors.As(err, &said) && said.ResultCode != ldap.ErrorNetwork {
			return "", false, err
		}
	}
}

func (s *Source) ask(ctx context.Context, conn *ldap.Conn, user string) (*ldap.SearchResult, error) {
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetTimeout(time.Until(deadline))
	}
	return conn.Search(ldap.NewSearchRequest(
		lookup.Expand(s.config.Base, user, ldap.EscapeDN), s.scope, ldap.NeverDerefAliases,
		2, 0, false, // two entries are one too many already
		lookup.Expand(s.config.Filter, user, ldap.EscapeFilter), []string{s.config.Attribute}, nil))
}

// read makes an answer of what the server says.
func (s *Source) read(result *ldap.SearchResult, err error) (shard string, found bool, _ error) {
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return "", false, nil
	case err != nil || len(result.Entries) > 1:
		return "", false, errors.New("more than one entry is the user's: write a filter that fits one only")
	case len(result.Entries) == 0 && len(result.Referrals) > 0:
		return "", false, fmt.Errorf("the server refers to %s: ask that server", result.Referrals[0])
	case len(result.Entries) == 0:
		return "", false, nil
	}
	entry := result.Entries[0]
	switch values := entry.GetEqualFoldAttributeValues(s.config.Attribute); {
	case len(values) == 0:
		return "", false, nil
	case len(values) > 1:
		return "", false, fmt.Errorf("%s has %d values of %s: one user is in one place", entry.DN, len(values), s.config.Attribute)
	case values[0] == "":
		return "", false, fmt.Errorf("%s has an empty %s", entry.DN, s.config.Attribute)
	default:
		return values[0], true, nil
	}
}

// connection returns a connection that is logged in, and whether it was used
// before.
func (s *Source) connection(ctx context.Context) (conn *ldap.Conn, used bool, err error) {
	s.mu.Lock()
	var old []idle
	for n := len(s.idle); n > 0 && conn == nil; n = len(s.idle) {
		last := s.idle[n-1]
		s.idle = s.idle[:n-1]
		if last.IsClosing() || time.Since(last.since) > idleTime {
			old = append(old, last)
		} else {
			conn = last.Conn
		}
	}
	s.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
	if conn != nil {
		return conn, true, nil
	}
	conn, err = s.dial(ctx)
	return conn, false, err
}

// keep makes a connection one for the next lookup.
func (s *Source) keep(conn *ldap.Conn) {
	s.mu.Lock()
	kept := !s.closed && len(s.idle) < s.most
	if kept {
		s.idle = append(s.idle, idle{conn, time.Now()})
	}
	s.mu.Unlock()
	if !kept {
		conn.Close()
	}
}

// dial opens a connection and logs in.
func (s *Source) dial(ctx context.Context) (*ldap.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, s.network, s.address)
	if err != nil {
		return nil, err
	}
	var settings *tls.Config
	if s.tls || s.config.StartTLS {
		if settings, err = lookup.TLS(s.host, s.config.CAFile); err != nil {
			nc.Close()
			return nil, err
		}
	}
	if s.tls {
		secure := tls.Client(nc, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, fmt.Errorf("TLS with %s: %w", s.address, err)
		}
		nc = secure
	}
	conn := ldap.NewConn(nc, s.tls)
	conn.Start()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetTimeout(time.Until(deadline))
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	err = s.logIn(conn, settings)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (s *Source) logIn(conn *ldap.Conn, settings *tls.Config) error {
	if s.config.StartTLS {
		if err := conn.StartTLS(settings); err != nil {
			return fmt.Errorf("StartTLS with %s: %w", s.address, err)
		}
	}
	if s.config.BindDN == "" {
		return nil
	}
	if err := conn.Bind(s.config.BindDN, s.config.BindPassword.Reveal()); err != nil {
		return fmt.Errorf("bind as %s: %w", strings.ToValidUTF8(s.config.BindDN, "?"), err)
	}
	return nil
}

// Close ends all connections.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	all := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}
