package proxy

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// TestElsewhere: servers that no shard names are kept as long as they are
// needed, are told apart by how they are spoken to, and are not many.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &snapshot{log: hclog.NewNullLogger(), meters: newMeters(), config: &config.Config{Elsewhere: &config.Backend{
			TLS: config.BackendTLS{Mode: config.TLSOff}, Pool: config.Pool{MaxOpen: 1},
		}}}
		defer func() {
			for _, p := range s.elsewhere.close() {
				p.Close(cancelled)
			}
			if _, err := s.targeted(lookup.ParseTarget("10.9.9.9:1")); err == nil {
				t.Error("there is a server after the end")
			}
		}()
		get := func(target *lookup.Target) *backend {
			t.Helper()
			shard, err := s.targeted(target)
			if err != nil {
				t.Fatal(err)
			}
			return shard.members[0]
		}
		at := func(i int) *lookup.Target { return lookup.ParseTarget(fmt.Sprintf("10.0.0.%d:24245", i)) }
		first := get(at(0))
		if first.address != "10.0.0.0:24245" || get(at(0)) != first {
			t.Errorf("another server at the same place, or one at %s", first.address)
		}
		secure := at(0)
		secure.TLS = config.TLSStartTLS
		if b := get(secure); b == first || b.config.TLS.Mode != config.TLSStartTLS {
			t.Errorf("TLS is %q on a connection that has to be secure", b.config.TLS.Mode)
		}
		for i := 1; i < maxElsewhere-1; i++ {
			get(at(i))
		}
		if _, err := s.targeted(at(100)); err == nil {
			t.Error("there are more servers than there may be")
		}
		time.Sleep(spareElsewhere)
		get(at(100))
		if n := len(s.elsewhere.all); n != 1 {
			t.Errorf("%d servers are kept of which one is needed", n)
		}
		time.Sleep(idleElsewhere)
		get(at(101))
		if n := len(s.elsewhere.all); n != 1 {
			t.Errorf("%d servers are kept after the others were not needed for long", n)
		}
	})
}
