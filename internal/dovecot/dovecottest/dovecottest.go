// Package dovecottest starts real Dovecot instances for tests. It has no way
// to skip a test: where Dovecot cannot run, the test fails and says what to do.
package dovecottest

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// commandTimeout is far more than a command takes, and far less than a test
// may: a command that hangs is named in the failure.
const commandTimeout = 3 * time.Minute

// Start starts an instance that ends with the test. If the test fails, the
// instance's log is part of its output.
func Start(t testing.TB, opts dovecot.Options) *dovecot.Server {
	t.Helper()
	if opts.Name == "" {
		opts.Name = "test"
	}
	s, err := dovecot.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of dovecot instance %q:\n%s", s.Name, s.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TempDir makes a directory that ends with the test and that the programs of
// the version see, under the name that Version.Inside returns: for certificates,
// UNIX sockets and the like.
func TempDir(t testing.TB, v dovecot.Version) string {
	t.Helper()
	dir, err := v.MkdirTemp("test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Run runs the doveadm command as a remote client and fails the test if it
// could not be run; see dovecot.Client. A failure that doveadm reports is a
// result.
func Run(t testing.TB, c dovecot.Client, name string, args ...string) dovecot.Result {
	t.Helper()
	// Not the test's context: cleanups run commands, too.
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	result, err := c.Run(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
