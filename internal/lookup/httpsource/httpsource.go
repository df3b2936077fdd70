// Package httpsource asks services that speak HTTP and JSON where users are.
package httpsource

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

const (
	// idleTime is how long a connection that nobody uses stays open.
	idleTime = 5 * time.Minute

	// maxBody is how much of an answer is read: a name and what stands around it.
	maxBody = 64 << 10
)

// Source asks one service. Its methods may be called from any goroutine.
type Source struct {
	config config.HTTP
	header http.Header
	field  []string
	client http.Client
	conns  *http.Transport
}

// New returns the source of a configuration. It connects to nothing.
func New(c config.HTTP, l config.Lookup) (*Source, error) {
	s := &Source{config: c, header: make(http.Header), field: strings.Split(c.Field, ".")}
	if _, err := s.request("user@example.com"); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	s.header.Set("Accept", "application/json")
	s.header.Set("User-Agent", "doveadm-proxy")
	for _, line := range c.Headers {
		s.header.Set(config.SplitHeader(line))
	}
	for _, h := range c.Secret {
		s.header.Set(h.Name, h.Value.Reveal())
	}
	s.conns = &http.Transport{
		DialContext:         new(net.Dialer).DialContext,
		DialTLSContext:      s.dialTLS,
		MaxConnsPerHost:     max(1, l.MaxLookups),
		MaxIdleConnsPerHost: max(1, l.MaxLookups),
		IdleConnTimeout:     idleTime,
	}
	s.client = http.Client{
		Transport: s.conns,
		// Elsewhere the secret headers have no business.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s, nil
}

// dialTLS reads the authorities anew for each connection.
func (s *Source) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	settings, err := lookup.TLS(host, s.config.CAFile)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: settings}).DialContext(ctx, network, addr)
}

// request makes the request for a user.
func (s *Source) request(user string) (*http.Request, error) {
	if slices.ContainsFunc(strings.Split(user, "/"), func(part string) bool { return part == "." || part == ".." }) {
		// Servers take them for steps in the path, also when they are escaped.
		return nil, fmt.Errorf("the user %q cannot stand in a URL", user)
	}
	path, query, has := strings.Cut(s.config.URL, "?")
	target := lookup.Expand(path, user, url.PathEscape)
	if has {
		target += "?" + lookup.Expand(query, user, url.QueryEscape)
	}
	var body io.Reader
	if s.config.Method == http.MethodPost {
		text, err := json.Marshal(map[string]string{"user": user})
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	r, err := http.NewRequest(s.config.Method, target, body)
	if err != nil {
		return nil, err
	}
	r.Header = s.header.Clone()
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		// A lookup may be sent again when a connection turns out to be closed;
		// this tells net/http, and nobody else.
		r.Header["Idempotency-Key"] = nil
	}
	return r, nil
}

// Lookup asks for a user.
func (s *Source) Lookup(ctx context.Context, user string) (lookup.Place, bool, error) {
	place, found, err := s.ask(ctx, user)
	if err != nil {
		return lookup.Place{}, false, fmt.Errorf("http: %w", err)
	}
	return place, found, nil
}

func (s *Source) ask(ctx context.Context, user string) (lookup.Place, bool, error) {
	r, err := s.request(user)
	if err != nil {
		return lookup.Place{}, false, err
	}
	response, err := s.client.Do(r.WithContext(ctx))
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // the URL may be long, and is known
		}
		return lookup.Place{}, false, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	switch {
	case err != nil:
		return lookup.Place{}, false, err
	case response.StatusCode == http.StatusNotFound:
		return lookup.Place{}, false, nil
	case response.StatusCode >= 300 && response.StatusCode < 400:
		return lookup.Place{}, false, fmt.Errorf("status %d to %q: redirects are not followed, write that URL", response.StatusCode, response.Header.Get("Location"))
	case response.StatusCode != http.StatusOK:
		return lookup.Place{}, false, fmt.Errorf("status %d", response.StatusCode)
	case len(body) > maxBody:
		return lookup.Place{}, false, fmt.Errorf("the answer has more than %d bytes", maxBody)
	}
	shard, found, err := s.read(body)
	return lookup.Place{Shard: shard, TTL: maxAge(response.Header.Get("Cache-Control"))}, found, err
}

// read finds the shard in an answer.
func (s *Source) read(body []byte) (shard string, found bool, err error) {
	var value json.RawMessage = body
	for _, name := range s.field {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(value, &object); err != nil || object == nil {
			return "", false, fmt.Errorf("the answer is no JSON object with the field %s", s.config.Field)
		}
		var ok bool
		if value, ok = object[name]; !ok {
			return "", false, fmt.Errorf("the answer has no field %s", s.config.Field)
		}
	}
	var is any
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	if err := decoder.Decode(&is); err != nil {
		return "", false, err
	}
	switch is := is.(type) {
	case nil:
		return "", false, nil
	case string:
		shard = is
	case json.Number:
		shard = is.String()
	default:
		return "", false, fmt.Errorf("the field %s is neither a string nor a number", s.config.Field)
	}
	if shard == "" {
		return "", false, fmt.Errorf("the field %s is empty", s.config.Field)
	}
	return shard, true, nil
}

// maxAge returns how long an answer may be kept, 0 if it does not say.
func maxAge(cacheControl string) time.Duration {
	for directive := range strings.SplitSeq(cacheControl, ",") {
		name, text, _ := strings.Cut(strings.TrimSpace(directive), "=")
		if !strings.EqualFold(name, "max-age") {
			continue
		}
		if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}

// Close ends all connections.
func (s *Source) Close() { s.conns.CloseIdleConnections() }
