package pool

import (
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// again returns what takes an idle connection of a pool and gives it back, in a
// Conn of its own as sessions have one.
func again(t testing.TB) func() {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: doveadm.MaxMinor, Password: "secret"})
	backend := defaults()
	backend.Address = srv.Addr()
	backend.Pool.MaxCommands, backend.Pool.MaxLifetime = 0, 0
	p := New(backend, nil, hclog.NewNullLogger())
	t.Cleanup(func() { p.Close(t.Context()) })
	var c Conn
	return func() {
		if err := p.AcquireInto(t.Context(), &c, Shared, Client{Name: "panel"}); err != nil {
			t.Fatal(err)
		}
		c.Answering()
		c.Release(Reusable)
	}
}

// TestAcquireIntoDoesNotAllocate where a connection is idle.
func TestAcquireIntoDoesNotAllocate(t *testing.T) {
	run := again(t)
	run()
	if n := testing.AllocsPerRun(1000, run); n != 0 && !underRace {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAcquireInto is what the pool adds to a command of a session.
func BenchmarkAcquireInto(b *testing.B) {
	run := again(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}
