package pool

import (
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// BenchmarkAcquire is what the pool adds to a command on an idle connection.
func BenchmarkAcquire(b *testing.B) {
	srv := doveadmtest.NewServer(b, doveadmtest.Options{Minor: doveadm.MaxMinor, Password: "secret"})
	backend := defaults()
	backend.Address = srv.Addr()
	backend.Pool.MaxCommands, backend.Pool.MaxLifetime = 0, 0
	p := New(backend, nil, hclog.NewNullLogger())
	defer p.Close(b.Context())
	b.ReportAllocs()
	for b.Loop() {
		c, err := p.Acquire(b.Context(), Shared)
		if err != nil {
			b.Fatal(err)
		}
		c.Answering()
		c.Release(Reusable)
	}
}

// BenchmarkAcquireParallel is the same by many at once, most of whom wait.
func BenchmarkAcquireParallel(b *testing.B) {
	srv := doveadmtest.NewServer(b, doveadmtest.Options{Minor: doveadm.MaxMinor, Password: "secret"})
	backend := defaults()
	backend.Address = srv.Addr()
	backend.Pool.MaxCommands, backend.Pool.MaxLifetime = 0, 0
	p := New(backend, nil, hclog.NewNullLogger())
	defer p.Close(b.Context())
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c, err := p.Acquire(b.Context(), Shared)
			if err != nil {
				b.Error(err)
				return
			}
			c.Release(Reusable)
		}
	})
}
