package proxy_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// movable lets users be moved.
func movable(t *testing.T) func(c *config.Config) {
	return func(c *config.Config) {
		c.Moves = config.Moves{
			Driver: "sqlite", Path: filepath.Join(t.TempDir(), "moves.db"), Name: "one", Lease: 10 * time.Second, Poll: 50 * time.Millisecond,
			AnswerTimeout: patience, HoldTimeout: patience, MaxHold: patience, MaxWaiting: 10,
		}
	}
}

// TestMovesMetrics: whether it is sure who was moved is told, and how many were.
func TestMovesMetrics(t *testing.T) {
	one, two := newBackend(t, 2, answer), newBackend(t, 2, answer)
	s := start(t, configure(t, movable(t), one.Addr(), two.Addr()))
	eventually(t, "it is sure who was moved", func() bool { return s.metrics(t)["moves_fresh"] == 1 })
	is := func(name string, want float64) {
		t.Helper()
		if got, ok := s.metrics(t)[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	is("moves_database_reachable", 1)
	is("moves_exceptions", 0)
	is(`moves_total{result="moved"}`, 0)
	_, err := s.MoveUser(t.Context(), proxy.MoveUser{User: "alice", Shard: "s2"})
	must(t, err)
	is("moves_exceptions", 1)
	is(`moves_total{result="moved"}`, 1)
	is("moves_held_users", 0)
}
