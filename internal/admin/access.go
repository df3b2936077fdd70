package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
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

const (
	unixPrefix = "unix:"
	tlsPrefix  = "https://"
)

// Socket reports whether the endpoint is at a UNIX socket.
func (a Access) Socket() bool { return strings.HasPrefix(a.Address, unixPrefix) }

// TLS reports whether it is reached by TLS.
func (a Access) TLS() bool { return strings.HasPrefix(a.Address, tlsPrefix) }

// NewClient returns a client of an endpoint. It reads the files, and connects to
// nothing yet.
func NewClient(a Access) (*Client, error) {
	c := &Client{address: a.Address, base: "http://localhost"}
	network, dial := "tcp", strings.TrimPrefix(a.Address, tlsPrefix)
	if a.Socket() {
		network, dial = "unix", strings.TrimPrefix(a.Address, unixPrefix)
		if !filepath.IsAbs(dial) {
			return nil, fmt.Errorf("%s: the path of a socket begins with a slash", a.Address)
		}
	} else if _, _, err := net.SplitHostPort(dial); err != nil {
		return nil, fmt.Errorf("%s: use unix:/path, host:port or https://host:port", a.Address)
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, dial)
		},
	}
	c.http.Timeout, c.http.Transport = answerTimeout, transport
	var err error
	switch {
	case a.TLS():
		c.base = a.Address
		if transport.TLSClientConfig, err = a.tlsConfig(); err != nil {
			return nil, err
		}
	case a.CAFile != "" || a.CertFile != "" || a.KeyFile != "":
		return nil, fmt.Errorf("%s is not reached by TLS, so that there is no certificate to check or to show: use https://host:port", a.Address)
	case a.SecretFile != "" && !config.Loopback(a.Address):
		return nil, fmt.Errorf("%s: a password or token does not go over a network in clear text: use https://host:port", a.Address)
	}
	c.authorization, err = a.authorization()
	return c, err
}

func (a Access) tlsConfig() (*tls.Config, error) {
	if (a.CertFile == "") != (a.KeyFile == "") {
		return nil, errors.New("a certificate and its key belong together: one of the two files is not named")
	}
	files := tlsfiles.NewClient(tlsfiles.Client{CAFile: a.CAFile, CertFile: a.CertFile, KeyFile: a.KeyFile}, hclog.NewNullLogger())
	shared, err := files.Config()
	if err != nil {
		return nil, err
	}
	own := shared.Clone()
	own.NextProtos = nil // HTTP, not doveadm
	return own, nil
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
	secret, second, err := config.ParsePasswords(text)
	if err == nil && !second.Empty() {
		err = errors.New("it has two lines")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; a password or token is one line, and the only one", a.SecretFile, err)
	}
	if a.User == "" {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret.Reveal()) }, nil
	}
	return func(r *http.Request) { r.SetBasicAuth(a.User, secret.Reveal()) }, nil
}

// unreachable explains why a request had no answer.
func (c *Client) unreachable(err error) error {
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return fmt.Errorf("the certificate of %s is not trusted: %w", c.address, untrusted.Err)
	}
	return fmt.Errorf("no admin endpoint answers at %s (is the proxy running, and is there an admin block in its configuration?): %w", c.address, err)
}
