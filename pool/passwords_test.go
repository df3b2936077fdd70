package pool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// rotated is the passwords of a backend that takes one of them.
type rotated struct {
	*passwords
	takes string
	tried []string
}

// dial returns what was tried.
func (r *rotated) dial() (tried string, err error) {
	r.tried = nil
	_, err = r.each(func(s config.Secret) (*doveadm.ClientConn, error) {
		r.tried = append(r.tried, s.Reveal())
		if s.Reveal() == r.takes {
			return nil, nil
		}
		return nil, ErrBackendLogin
	})
	return strings.Join(r.tried, " "), err
}

func (r *rotated) expect(t *testing.T, tried string, want error) {
	t.Helper()
	if got, err := r.dial(); got != tried || !errors.Is(err, want) {
		t.Errorf("tried %q: %v; want %q: %v", got, err, tried, want)
	}
}

// The new password is tried first, the old one if that is refused, and then
// whichever worked last. The log has each step once and neither password.
func TestOldPassword(t *testing.T) {
	var log bytes.Buffer
	logger := hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true, Level: hclog.Trace})
	r := rotated{passwords: newPasswords(config.Backend{Password: config.NewSecret("new"), OldPassword: config.NewSecret("old")}, logger)}
	logged := func(want ...string) {
		t.Helper()
		got := slices.DeleteFunc(strings.Split(log.String(), "\n"), func(s string) bool { return s == "" })
		log.Reset()
		if len(got) != len(want) {
			t.Fatalf("logged %q, want %q", got, want)
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("logged %q, want %q", got[i], want[i])
			}
		}
	}
	r.takes = "old"
	r.expect(t, "new old", nil)
	logged("[WARN]  backend refuses the new password and takes the old one")
	r.expect(t, "old", nil)
	r.expect(t, "old", nil)
	logged()
	if s := r.state("/f"); s != (Password{File: "/f", HasOld: true, UsesOld: true}) {
		t.Errorf("state %+v", s)
	}
	r.takes = "new"
	r.expect(t, "old new", nil)
	logged("[INFO]  backend takes the new password")
	r.expect(t, "new", nil)
	logged()
	if s := r.state(""); s != (Password{HasOld: true}) {
		t.Errorf("state %+v", s)
	}
	r.takes = "neither"
	r.expect(t, "new old", ErrBackendLogin)
	logged()

	// What is not about the password is no reason to try another one.
	gone := errors.New("gone")
	n := 0
	_, err := r.each(func(config.Secret) (*doveadm.ClientConn, error) { n++; return nil, gone })
	if n != 1 || !errors.Is(err, gone) {
		t.Errorf("%d logins: %v", n, err)
	}
}

// A password file is read again within a second, and at once when the backend
// refuses what was in it.
func TestPasswordFileChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	put := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		put("first")
		r := rotated{passwords: newPasswords(config.Backend{Password: config.NewSecret("first"), PasswordFile: path}, hclog.NewNullLogger()), takes: "first"}
		r.expect(t, "first", nil)

		put("second")
		r.takes = "second"
		r.expect(t, "first second", nil) // before it was to be looked at
		r.expect(t, "second", nil)

		put("third\nsecond\n")
		time.Sleep(time.Second)
		r.expect(t, "second", nil) // what worked last
		r.takes = "third"
		r.expect(t, "second third", nil)
		put("third\n")
		time.Sleep(time.Second)
		r.expect(t, "third", nil)

		put("")
		time.Sleep(time.Second)
		r.expect(t, "third", nil) // an empty file is not used
		if s := r.state(path); s.Changed.IsZero() || s.HasOld {
			t.Errorf("state %+v", s)
		}
		put("other")
		r.takes = "neither"
		r.expect(t, "third other", ErrBackendLogin)
		r.expect(t, "other", ErrBackendLogin)
	})
}

// A refused new password is no failure of the backend: it says nothing to the
// breaker, and the command that waits gets its connection.
func TestOldPasswordAndBreaker(t *testing.T) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Password: "old"})
	b := defaults()
	b.Name, b.Address = "b", srv.Addr()
	b.Password, b.OldPassword = config.NewSecret("new"), config.NewSecret("old")
	b.Breaker = config.Breaker{Failures: 1, Open: time.Hour, Probes: 1}
	b.Pool.MaxIdle = 0
	p := New(b, nil, hclog.NewNullLogger())
	defer p.Close(t.Context())
	for range 3 {
		c, err := p.Acquire(t.Context(), Shared)
		if err != nil {
			t.Fatal(err)
		}
		c.Release(Answered)
	}
	if s := p.Stat(); s.DialErrors != 0 || s.Breaker != Closed {
		t.Errorf("%+v", s)
	}
	if s := p.Password(); !s.UsesOld {
		t.Errorf("%+v", s)
	}
}
