package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

// Access is where an endpoint is, and as whom it is asked.
type Access struct {
	// Address is unix: and a path, host:port for HTTP, or https://host:port.
	Address string

	// User has the password in SecretFile. Without a name there is a bearer
	// token in it; without SecretFile the account or the certificate says who
	// asks, if anything does.
	User       string
	SecretFile string

	CAFile   string // authorities of the endpoint's certificate; empty: those of the system
	CertFile string // our own certificate; empty: none
	KeyFile  string
}

// secure is what an address begins with that is reached by TLS.
const secure = "https://"

// NewClient returns a client of an endpoint. It reads the files, and connects to
// nothing yet.
func NewClient(a Access) (*Client, error) {
	c := &Client{address: a.Address, base: "http://localhost"}
	c.http.Timeout = answerTimeout
	transport := &http.Transport{DisableKeepAlives: true}
	c.http.Transport = transport
	network, dial := "tcp", a.Address
	path, socket := strings.CutPrefix(a.Address, "unix:")
	host, overTLS := strings.CutPrefix(a.Address, secure)
	switch {
	case socket && !filepath.IsAbs(path):
		return nil, fmt.Errorf("%s: the path of a socket begins with a slash", a.Address)
	case socket:
		network, dial = "unix", path
	case overTLS:
		c.base, dial = a.Address, host
	}
	if _, _, err := net.SplitHostPort(dial); err != nil && !socket {
		return nil, fmt.Errorf("%s: use unix:/path, host:port or https://host:port", a.Address)
	}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, dial)
	}
	switch {
	case overTLS:
		var err error
		if transport.TLSClientConfig, err = a.tls(); err != nil {
			return nil, err
		}
	case a.CAFile != "" || a.CertFile != "" || a.KeyFile != "":
		return nil, fmt.Errorf("%s is not reached by TLS, so that there is no certificate to check or to show: use https://host:port", a.Address)
	case a.SecretFile != "" && !socket && !loopback(dial):
		return nil, fmt.Errorf("%s: a password or token does not go over a network in clear text: use https://host:port", a.Address)
	}
	var err error
	c.authorization, err = a.authorization()
	return c, err
}

func (a Access) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CAFile != "" {
		text, err := os.ReadFile(a.CAFile)
		if err != nil {
			return nil, err
		}
		if config.RootCAs, err = tlsfiles.ParseCAs(text); err != nil {
			return nil, fmt.Errorf("%s: %w", a.CAFile, err)
		}
	}
	if a.CertFile == "" && a.KeyFile == "" {
		return config, nil
	}
	if a.CertFile == "" || a.KeyFile == "" {
		return nil, errors.New("a certificate and its key belong together: one of the two files is not named")
	}
	cert, err := os.ReadFile(a.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(a.KeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tlsfiles.ParseKeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", a.CertFile, a.KeyFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// authorization returns what adds the name and the secret to a request.
func (a Access) authorization() (func(*http.Request), error) {
	if a.SecretFile == "" {
		if a.User != "" {
			return nil, fmt.Errorf("user %s needs a password, from a file", a.User)
		}
		return func(*http.Request) {}, nil
	}
	text, err := os.ReadFile(a.SecretFile)
	if err != nil {
		return nil, err
	}
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	secret := string(bytes.TrimSuffix(line, []byte("\r")))
	if secret == "" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s: a password or token is one line, and the only one", a.SecretFile)
	}
	if a.User == "" {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }, nil
	}
	return func(r *http.Request) { r.SetBasicAuth(a.User, secret) }, nil
}

// loopback reports whether an address stays on this machine, whatever a name
// server says.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// unreachable explains why a request had no answer.
func (c *Client) unreachable(err error) error {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("the certificate of %s is not trusted: %w", c.address, untrusted.Err)
	}
	return fmt.Errorf("no admin endpoint answers at %s (is the proxy running, and is there an admin block in its configuration?): %w", c.address, err)
}
