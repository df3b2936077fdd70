package admin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guarded keeps web pages from elsewhere out, which a browser on this machine,
// or at the other end of a forwarded port, may show.
func guarded(hosts []string, next http.Handler) http.Handler {
	origin := http.NewCrossOriginProtection()
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusForbidden, errors.New("a page of another site may change nothing here"))
	}))
	next = origin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// With TLS the certificate would not be for the name of the other site.
		if r.TLS == nil && !isOurs(r.Host, hosts) {
			fail(w, http.StatusMisdirectedRequest, fmt.Errorf("%q is no name of this endpoint: use localhost or an address, or add it to hosts in the admin block", r.Host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isOurs reports whether a Host header cannot be the name of another site that
// points here (DNS rebinding). An address is no name; and who sends no header,
// as in HTTP/1.0, is no browser.
func isOurs(header string, hosts []string) bool {
	host := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "" || host == "localhost" {
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.ContainsFunc(hosts, func(s string) bool { return strings.EqualFold(strings.TrimSuffix(s, "."), host) })
}
