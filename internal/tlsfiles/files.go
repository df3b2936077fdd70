// Package tlsfiles makes TLS configurations of the files that an operator
// names, and makes them anew when the files change, so that a renewed
// certificate needs neither a restart nor a reload.
//
//	files := tlsfiles.NewServer(tlsfiles.Server{CertFile: ..., KeyFile: ...}, log)
//	...
//	config, err := files.Config() // for each connection
package tlsfiles

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/internal/watch"
)

// ALPN is the protocol name that Dovecot 2.4 has for doveadm. Neither side
// requires it of the other.
const ALPN = "doveadm"

// Files is a TLS configuration and the files it is made of. Nothing happens
// while nobody asks for it.
type Files struct {
	log     hclog.Logger
	watched *watch.Files[*tls.Config]
	expired atomic.Pointer[tls.Config] // whose certificate the log says to have expired
}

// newFiles reads the files for the first time. Empty paths name no file.
func newFiles(log hclog.Logger, build func(contents map[string][]byte) (*tls.Config, error), paths ...string) *Files {
	o := watch.Options[*tls.Config]{Name: "TLS files", Log: log, Build: build, Describe: describe}
	return &Files{log: log, watched: watch.New(o, paths...)}
}

// Config returns the configuration as the files have it, or had it when they
// could be used for the last time. It is the same pointer as long as they do
// not change, and belongs to everybody: it must not be changed. The error says
// why there never was one.
func (f *Files) Config() (*tls.Config, error) {
	c, err := f.watched.Value()
	if err == nil {
		f.noteExpiry(c)
	}
	return c, err
}

// noteExpiry says once that the certificate in use has expired. It stays in
// use: there is none better, and the other side may not care.
func (f *Files) noteExpiry(c *tls.Config) {
	if len(c.Certificates) == 0 || !time.Now().After(c.Certificates[0].Leaf.NotAfter) {
		return
	}
	if last := f.expired.Load(); last != c && f.expired.CompareAndSwap(last, c) {
		f.log.Warn("TLS certificate has expired, the other side will refuse it: renew it, the new one is used without a restart", describe(c)...)
	}
}

// Expiry returns when the certificate in use expires, zero if there is none.
func (f *Files) Expiry() time.Time {
	c, err := f.watched.Value()
	if err != nil || len(c.Certificates) == 0 {
		return time.Time{}
	}
	return c.Certificates[0].Leaf.NotAfter
}

// Changed returns when the newest of the files was written.
func (f *Files) Changed() time.Time { return f.watched.Changed() }

// describe names the certificate of a configuration for the log.
func describe(c *tls.Config) []any {
	if len(c.Certificates) == 0 {
		return nil
	}
	leaf := c.Certificates[0].Leaf
	return []any{"certificate", names(leaf), "not_after", leaf.NotAfter.UTC().Format(time.DateTime)}
}
