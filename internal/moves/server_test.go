package moves

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/mariadb"
	"github.com/doveadm-proxy/doveadm-proxy/internal/postgres"
)

// database is a real server.
type database interface {
	DSN() string
	Restart(ctx context.Context) error
	Stop() error
	Close() error
}

// servers starts each kind of server and runs do with it.
func servers(t *testing.T, do func(t *testing.T, s database, c config.Moves)) {
	for _, driver := range []string{config.MovesPostgres, config.MovesMySQL} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			var s database
			var err error
			if driver == config.MovesPostgres {
				s, err = postgres.Start(t.Context())
			} else {
				s, err = mariadb.Start(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c := settings(t.TempDir())
			c.Driver, c.Path, c.DSN = driver, "", config.NewSecret(s.DSN())
			do(t, s, c)
		})
	}
}

// TestServers moves users between three proxies that share a real server, has it
// go away and come back, and a proxy die.
func TestServers(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, s database, c config.Moves) {
		c.Lease, c.Poll, c.AnswerTimeout, c.MaxHold = 4*time.Second, 100*time.Millisecond, 10*time.Second, 10*time.Second
		var cut atomic.Int32
		node := func(name string) *Node {
			t.Helper()
			c := c
			c.Name = name
			n, err := Start(c, Options{
				Log: hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Debug, Output: testWriter{t}}),
				Cut: func(error) { cut.Add(1) },
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		a, b, dead := node("a"), node("b"), node("c")
		defer a.Close()
		defer b.Close()
		names := []string{"u", "Grüße@example.com", strings.Repeat("long", 128), "it's; -- ?"}
		for i, user := range names {
			n := []*Node{a, b, dead}[i%3]
			if _, err := n.Move(t.Context(), Move{User: user, From: "s1", To: "s2"}); err != nil {
				t.Fatal(err)
			}
			for _, n := range []*Node{a, b, dead} {
				eventually(t, "seen by all", func() bool { return n.on(user) == "s2" })
			}
		}
		if _, err := a.Move(t.Context(), Move{User: strings.Repeat("x", maxUser+1), To: "s2"}); err == nil {
			t.Error("a name that is too long was taken")
		}
		g, err := Read(t.Context(), c)
		if err != nil || len(g.Users()) != len(names) {
			t.Errorf("%v, %v", g, err)
		}

		// A dead proxy is waited for until its lease has ended, and no longer.
		dead.crash()
		short := Move{User: "u", From: "s2", To: "s3", Exception: "s2", MaxHold: 200 * time.Millisecond}
		was := *a.settings.Load()
		now := was
		now.AnswerTimeout = 300 * time.Millisecond
		a.Configure(now)
		if _, err := a.Move(t.Context(), short); err == nil || !strings.Contains(err.Error(), "c/") || !strings.Contains(err.Error(), "its lease ends in") {
			t.Errorf("with a dead proxy: %v", err)
		}
		a.Configure(was)
		eventually(t, "moved after its lease", func() bool {
			_, err := a.Move(t.Context(), Move{User: "u", From: "s2", To: "s3", Exception: "s2"})
			return err == nil
		})

		eventually(t, "seen by all", func() bool { return b.on("u") == "s3" })

		// Without the server commands go on for a lease, and then no longer.
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		must(t, enter(b, "u", time.Second))
		if _, err := a.Move(t.Context(), Move{User: "u", From: "s3", To: "s1", Exception: "s3"}); err == nil {
			t.Error("moved without a database")
		}
		eventually(t, "refused", func() bool {
			err := enter(b, "v", time.Second)
			if err == nil {
				b.Gate.Leave("v")
			}
			return errors.Is(err, ErrStale)
		})
		eventually(t, "cut", func() bool { return cut.Load() >= 2 })
		b.Gate.Leave("u")
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "back", func() bool { return a.Gate.Fresh() == nil && b.Gate.Fresh() == nil })
		eventually(t, "moved again", func() bool {
			_, err := b.Move(t.Context(), Move{User: "u", From: "s3", To: "s1", Exception: "s3", Forget: true})
			return err == nil
		})
		eventually(t, "forgotten", func() bool { return a.on("u") == "" && b.on("u") == "" })
		if err := b.store.purge(t.Context(), -time.Second); err != nil {
			t.Error(err)
		}
		eventually(t, "of one mind", func() bool { return len(a.Gate.Users()) == len(names)-1 && len(b.Gate.Users()) == len(names)-1 })
	})
}

// TestNewerTables: tables of a version that is not known are left alone.
func TestNewerTables(t *testing.T) {
	c := settings(t.TempDir())
	n := start(t, c, "a")
	if _, err := n.store.exec(t.Context(), `UPDATE doveadm_proxy_state SET version = 2`); err != nil {
		t.Fatal(err)
	}
	n.Close()
	n = start(t, c, "b")
	defer n.Close()
	if err := n.Gate.Fresh(); !errors.Is(err, ErrStale) {
		t.Errorf("commands are let through: %v", err)
	}
	if err := *n.reachable.Load(); err == nil || !strings.Contains(err.Error(), "a newer doveadm-proxy") {
		t.Errorf("%v", err)
	}
}
