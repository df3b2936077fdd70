// Package tlsfiles makes TLS configurations of the files that an operator
// names, and makes them anew when the files change, so that a renewed
// certificate needs neither a restart nor a reload.
//
//	files := tlsfiles.NewServer(tlsfiles.Server{CertFile: ..., KeyFile: ...}, log)
//	...
//	config, err := files.Config() // for each connection
package tlsfiles

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// ALPN is the protocol name that Dovecot 2.4 has for doveadm. Neither side
// requires it of the other.
const ALPN = "doveadm"

// interval is how often the files are read at most.
const interval = time.Second

// Files is a TLS configuration and the files it is made of. Nothing happens
// while nobody asks for it.
type Files struct {
	log   hclog.Logger
	paths []string
	build builder

	// mu guards what follows. Files are read under it: who comes meanwhile
	// wants to know what is in them, too.
	mu      sync.Mutex
	checked time.Time
	last    string      // what the last look found: a digest or an error
	good    *tls.Config // the last one that could be made; nil: none
	digest  string      // of its files
	err     error       // why there is none
}

// builder makes a configuration of what is in the files, by their paths.
type builder func(contents map[string][]byte) (*tls.Config, error)

// newFiles reads the files for the first time. Empty paths name no file.
func newFiles(log hclog.Logger, build builder, paths ...string) *Files {
	f := &Files{log: log, build: build, checked: time.Now()}
	for _, path := range paths {
		if path != "" {
			f.paths = append(f.paths, path)
		}
	}
	f.look()
	return f
}

// Config returns the configuration as the files have it, or had it when they
// could be used for the last time. It is the same pointer as long as they do
// not change, and belongs to everybody: it must not be changed. The error says
// why there never was one.
//
// The files are read at most once a second. Their contents are compared and
// not their times, which miss a second change within a few milliseconds.
func (f *Files) Config() (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= interval {
		f.checked = now
		f.look()
	}
	if f.good == nil {
		return nil, f.err
	}
	return f.good, nil
}

// look reads the files. What it finds is logged once. The caller holds mu.
func (f *Files) look() {
	contents, err := f.read()
	found := ""
	if err == nil {
		found = f.sum(contents)
	} else {
		found = err.Error()
	}
	if found == f.last {
		return
	}
	f.last = found
	if err == nil && found == f.digest {
		f.log.Info("TLS files are as they were before", "files", f.names())
		return
	}
	var config *tls.Config
	if err == nil {
		config, err = f.build(contents)
	}
	switch {
	case err != nil && f.good == nil:
		f.err = err
	case err != nil:
		f.log.Error("TLS files have changed and cannot be used: what was read before stays in use", "files", f.names(), "error", err)
	default:
		if f.good != nil || f.err != nil {
			f.log.Info("TLS files have changed: new connections use them", append([]any{"files", f.names()}, describe(config)...)...)
		}
		f.good, f.digest, f.err = config, found, nil
	}
}

func (f *Files) names() string { return strings.Join(f.paths, " ") }

func (f *Files) read() (map[string][]byte, error) {
	contents := make(map[string][]byte)
	var errs []error
	for _, path := range f.paths {
		b, err := read(path)
		contents[path], errs = b, append(errs, err)
	}
	return contents, errors.Join(errs...)
}

func read(path string) ([]byte, error) {
	// A pipe that somebody put there would block for ever.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.ReadFile(path)
}

// sum returns a digest of what is in the files.
func (f *Files) sum(contents map[string][]byte) string {
	h := sha256.New()
	for _, path := range f.paths {
		one := sha256.Sum256(contents[path])
		h.Write(one[:])
	}
	return string(h.Sum(nil))
}

// describe names the certificate of a configuration for the log.
func describe(c *tls.Config) []any {
	if len(c.Certificates) == 0 {
		return nil
	}
	leaf := c.Certificates[0].Leaf
	return []any{"certificate", names(leaf), "not_after", leaf.NotAfter.UTC().Format(time.DateTime)}
}
