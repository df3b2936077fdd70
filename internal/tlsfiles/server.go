package tlsfiles

import (
	"crypto/tls"
	"fmt"
	"slices"

	"github.com/hashicorp/go-hclog"
)

// Server names the files of a listener.
type Server struct {
	CertFile string // the certificate and those between it and its authority
	KeyFile  string
	// ClientCAFile holds the authorities of client certificates, without one of
	// which nobody gets in; empty: clients need none.
	ClientCAFile string
}

// NewServer returns the TLS configuration of a listener.
func NewServer(s Server, log hclog.Logger) *Files {
	return newFiles(log, s.build, s.CertFile, s.KeyFile, s.ClientCAFile)
}

func (s Server) build(contents map[string][]byte) (*tls.Config, error) {
	pair, err := ParseKeyPair(contents[s.CertFile], contents[s.KeyFile])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", s.CertFile, s.KeyFile, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if s.ClientCAFile != "" {
		if c.ClientCAs, err = ParseCAs(contents[s.ClientCAFile]); err != nil {
			return nil, fmt.Errorf("%s: %w", s.ClientCAFile, err)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	// Package tls refuses clients that offer other protocols and not ours.
	known := c.Clone()
	known.NextProtos = []string{ALPN}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, ALPN) {
			return known, nil
		}
		return nil, nil
	}
	return c, nil
}
