package authmaster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// Source is a source of routes: where the passdb sends users.
type Source struct {
	client *Client
	port   uint16 // where the passdb names none
}

// NewSource returns the source of a route. Nothing is opened before it is asked.
func NewSource(c config.DovecotAuth) *Source {
	return &Source{client: New(c.Network, c.Address), port: uint16(c.Port)}
}

// Lookup returns the server that the passdb names for a user. A user whom the
// passdb has without a server is left to the next route.
func (s *Source) Lookup(ctx context.Context, user string) (lookup.Place, bool, error) {
	reply, found, err := s.client.Pass(ctx, user)
	if err != nil || !found {
		return lookup.Place{}, false, err
	}
	target, err := proxyTo(reply, user, s.port)
	if err != nil {
		return lookup.Place{}, false, fmt.Errorf("auth socket %s: the passdb's answer makes no sense: %w", s.client.address, err)
	}
	return lookup.Place{Target: target}, target != nil, nil
}

// Close closes the connection.
func (s *Source) Close() { s.client.Close() }

// proxyTo reads from a reply where Dovecot's own doveadm server would send a
// command for the user, as doveadm_cmd_pass_reply_parse in its
// src/doveadm/doveadm-mail-server.c does: nil if it would run it itself.
//
// nologin alone has no meaning: it keeps users out, not administrators.
// proxy_maybe is for the auth process: it says proxy if it means it.
// Fields for the login at an IMAP server (pass, master, proxy_mech and others)
// have no meaning for doveadm, which logs in with its own password.
func proxyTo(r Reply, user string, port uint16) (*lookup.Target, error) {
	t := new(lookup.Target)
	var host, ip, name, destuser string
	var proxy, nologin bool
	for _, f := range r.Fields {
		switch f.Key {
		case "proxy":
			proxy = true
		case "nologin":
			nologin = true
		case "host":
			host = f.Value
		case "hostip":
			ip = f.Value
			if _, err := netip.ParseAddr(ip); ip != "" && err != nil {
				return nil, fmt.Errorf("hostip=%q is not an IP address", ip)
			}
		case "port":
			n, err := strconv.ParseUint(f.Value, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("port=%q is not a port", f.Value)
			}
			port = uint16(n)
		case "user":
			name = f.Value
		case "destuser":
			destuser = f.Value
		case "ssl":
			if t.TLS == "" {
				t.TLS = config.TLSImplicit
			}
			t.AnyCert = t.AnyCert || f.Value == "any-cert"
		case "starttls":
			t.TLS = config.TLSStartTLS
			t.AnyCert = t.AnyCert || f.Value == "any-cert"
		case "proxy_timeout":
			d, err := parseTimeout(f.Value)
			if err != nil {
				return nil, err
			}
			t.Timeout = d
		}
	}
	if !proxy && (!nologin || host == "") {
		return nil, nil // nologin and a host are a referral, which is followed
	}
	if host == "" {
		return nil, errors.New("proxy without host")
	}
	if err := t.SetHost(host, ip, port); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if destuser != "" {
		name = destuser
	}
	if name != user {
		t.User = name
	}
	for i := range len(t.User) {
		if t.User[i] < ' ' || t.User[i] == 0x7f {
			return nil, fmt.Errorf("a user %q with control characters", t.User)
		}
	}
	return t, nil
}

// parseTimeout reads a number of seconds, or one with a unit as Dovecot has them.
func parseTimeout(s string) (time.Duration, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(s[len(digits):]))
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("proxy_timeout=%q is not a time", s)
	}
	for _, u := range []struct {
		names string
		is    time.Duration
	}{
		{" s sec secs second seconds ", time.Second},
		{" ms msec msecs millisecond milliseconds ", time.Millisecond},
		{" m min mins minute minutes ", time.Minute},
		{" h hour hours ", time.Hour},
	} {
		if unit == "" || strings.Contains(u.names, " "+unit+" ") {
			return time.Duration(n) * u.is, nil
		}
	}
	return 0, fmt.Errorf("proxy_timeout=%q is not a time: write seconds, or 500ms, 2s, 1m", s)
}
