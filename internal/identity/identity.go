// Package identity says which client a session is: by the name of its login,
// its certificate, the account of its process, its listener and its address.
package identity

import (
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// Peer is what is known of a session.
type Peer struct {
	Listener string
	From     netip.Addr        // invalid: a UNIX socket
	Cert     *x509.Certificate // verified; nil: none
	Account  *Account          // nil: not on this machine, or not known
}

// Account is that of the process that connected to a UNIX socket, at the time
// when it did.
type Account struct{ UID, GID uint32 }

// Table knows the clients. It does not change; any number of goroutines may
// use it.
type Table struct{ clients []config.Client }

// New returns the table of clients, which are asked in their order.
func New(clients []config.Client) *Table { return &Table{clients: clients} }

// Trusted returns the client that a session is without a login, if it is one:
// the first with a certificate or an account and without a password of which
// all is true.
func (t *Table) Trusted(p *Peer) (client string, ok bool) {
	for i := range t.clients {
		if c := &t.clients[i]; c.SelfEvident() && isPeer(c, p) {
			return c.Name, true
		}
	}
	return "", false
}

// Login returns the client that a session wants to be with this user name,
// whose password is to be asked for: the first that logs in under it and of
// which all is true. That of a listener, which has no password, is none.
func (t *Table) Login(username string, p *Peer) (client string, ok bool) {
	for i := range t.clients {
		if c := &t.clients[i]; c.LoginName() == username && !c.Password.Empty() && isPeer(c, p) {
			return c.Name, true
		}
	}
	return "", false
}

// isPeer reports whether all that a client is known by, but for its login, is
// true of a session.
func isPeer(c *config.Client, p *Peer) bool {
	switch {
	case len(c.Listeners) > 0 && !slices.Contains(c.Listeners, p.Listener):
		return false
	case len(c.Networks) > 0 && !slices.ContainsFunc(c.Networks, func(n netip.Prefix) bool { return n.Contains(p.From) }):
		return false
	case c.HasCertificate() && p.Cert == nil, c.HasAccount() && p.Account == nil:
		return false
	case c.TLSSubject != "" && p.Cert.Subject.String() != c.TLSSubject:
		return false
	case len(c.TLSNames) > 0 && !slices.ContainsFunc(c.TLSNames, func(name string) bool { return IsFor(p.Cert, name) }):
		return false
	case len(c.UnixUsers) > 0 && !slices.ContainsFunc(c.UnixUsers, func(a config.Account) bool { return a.ID == p.Account.UID }):
		return false
	case len(c.UnixGroups) > 0 && !slices.ContainsFunc(c.UnixGroups, func(a config.Account) bool { return a.ID == p.Account.GID }):
		return false
	}
	return true
}

// IsFor reports whether a certificate has kind:text among its names.
func IsFor(cert *x509.Certificate, name string) bool {
	kind, text, _ := strings.Cut(name, ":")
	switch kind {
	case "dns":
		return slices.ContainsFunc(cert.DNSNames, func(s string) bool { return strings.EqualFold(s, text) })
	case "email":
		return slices.Contains(cert.EmailAddresses, text)
	case "ip":
		return slices.ContainsFunc(cert.IPAddresses, func(ip net.IP) bool { return ip.Equal(net.ParseIP(text)) })
	case "uri":
		for _, u := range cert.URIs {
			if u.String() == text {
				return true
			}
		}
	}
	return false
}
