package proxy

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// TestReplacedPoolIsNoFailure: a command that meets a pool which a reload has
// closed goes to the pool in its place, not to the next backend.
func TestReplacedPoolIsNoFailure(t *testing.T) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: doveadm.MaxMinor})
	var backends []*backend
	for _, name := range []string{"first", "standby"} {
		c := config.Backend{
			Name: name, Address: srv.Addr(), Pool: config.Pool{MaxOpen: 1, MaxIdle: 1},
			Breaker: config.Breaker{Failures: 1, Probes: 1},
		}
		p := pool.New(c, nil, hclog.NewNullLogger())
		t.Cleanup(func() { p.Close(context.Background()) })
		backends = append(backends, newBackend(p, c, new(backendMeter)))
	}
	if err := backends[0].Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	task := &task{session: new(session), request: request{info: &doveadm.CommandInfo{}}}
	_, err := task.acquire(backends, pool.Shared)
	if !errors.Is(err, pool.ErrClosed) {
		t.Errorf("connected to %v, %v, want %v", task.relay.from, err, pool.ErrClosed)
	}
	if err == nil {
		task.relay.conn.Release(pool.Reusable)
	}
	if n := srv.Accepted(); n != 0 {
		t.Errorf("%d connections", n)
	}
}
