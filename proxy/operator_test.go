package proxy_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// oneShard makes the two backends of a configuration one shard.
func oneShard(c *config.Config) {
	c.Shards[0].Backends = append(c.Shards[0].Backends, c.Shards[1].Backends[0])
	c.Shards = c.Shards[:1]
	c.Routes = c.Routes[:2]
}

// kept gives the configuration a state file.
func kept(path string) func(c *config.Config) {
	return func(c *config.Config) { c.Admin.StateFile = path }
}

// TestOperator drains, downs and resumes one of two members while commands
// run: who runs ends or is cut, all others go elsewhere, and it holds over
// reload and restart.
func TestOperator(t *testing.T) {
	hold, holding := make(chan struct{}), make(chan struct{}, 10)
	one := newBackend(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "index" {
			holding <- struct{}{}
			select {
			case <-hold:
			case <-c.Context().Done():
			}
		}
		answer(c, cmd)
	})
	two := newBackend(t, 3, answer)
	cfg := configure(t, both(oneShard, kept(filepath.Join(t.TempDir(), "operator.json"))), one.Addr(), two.Addr())
	s := start(t, cfg)
	long, c := s.login(t, client13), s.login(t, client13)
	ranOn := func(want string) {
		t.Helper()
		if r := c.run(t, "\talice\tquota get\n"); r.status != "+" {
			t.Errorf("status %s", r.status)
		}
		s.log.wait(t, "outcome=answered", "backend="+want)
	}
	ranOn("b1")

	must(t, long.send("\talice\tindex\tINBOX\n"))
	<-holding
	must(t, s.SetOperator("b1", pool.Draining))
	ranOn("b2")
	if b := s.Backends()[0]; b.Stat.Operator != pool.Draining || b.Since.IsZero() || b.Stat.InUse != 1 || b.Available {
		t.Errorf("%+v", b)
	}
	close(hold)
	if r, err := long.reply(); err != nil || r.status != "+" {
		t.Errorf("the command that ran ended with %s, %v", r.status, err)
	}

	changed := *cfg
	changed.Shards = []config.Shard{{Name: "s1", Balance: "order", Backends: []config.Backend{cfg.Shards[0].Backends[0], cfg.Shards[0].Backends[1]}}}
	changed.Shards[0].Backends[0].Pool.MaxOpen = 3 // a new pool
	must(t, s.Reload(&changed))
	if b := s.Backends()[0]; b.Stat.Operator != pool.Draining || b.MaxOpen != 3 {
		t.Errorf("after a reload: %+v", b)
	}
	gone := changed
	gone.Shards = []config.Shard{{Name: "s1", Balance: "order", Backends: changed.Shards[0].Backends[1:]}}
	must(t, s.Reload(&gone), s.Reload(&changed))
	if b := s.Backends()[0]; b.Stat.Operator != pool.Draining {
		t.Errorf("after it was away: %+v", b)
	}

	again := start(t, cfg)
	if b := again.Backends()[0]; b.Stat.Operator != pool.Draining {
		t.Errorf("after a restart: %+v", b)
	}
	again.log.wait(t, "backend is out of service", "backend=b1", "draining")

	must(t, s.SetOperator("b1", pool.Active), s.SetOperator("b2", pool.Draining))
	ranOn("b1")
	must(t, s.SetOperator("b1", pool.Draining))
	r := c.run(t, "\talice\tquota get\n")
	if r.status != "-TEMPFAIL" {
		t.Errorf("status %s with nothing in service", r.status)
	}
	s.log.wait(t, "outcome=unavailable", "an operator took the backend out of service")
	if err := s.SetOperator("b3", pool.Down); !errors.Is(err, proxy.ErrNoBackend) {
		t.Errorf("%v, want %v", err, proxy.ErrNoBackend)
	}
}

// TestOperatorDown cuts what runs, and says why.
func TestOperatorDown(t *testing.T) {
	holding := make(chan struct{}, 10)
	srv := newBackend(t, 3, func(c *doveadmtest.Conn, _ *doveadm.Command) {
		holding <- struct{}{}
		<-c.Context().Done()
	})
	s := start(t, configure(t, oneFailureOpens, srv.Addr()))
	c := s.login(t, client13)
	must(t, c.send("\talice\tindex\tINBOX\n"))
	<-holding
	must(t, s.SetOperator("b1", pool.Down))
	if r, err := c.reply(); err != nil || r.status != "-TEMPFAIL" {
		t.Errorf("status %s", r.status)
	}
	s.log.wait(t, "outcome=lost", "an operator took backend b1 down")
	if b := s.Backends()[0]; b.Stat.Breaker != pool.Closed {
		t.Error("the breaker judged what an operator did")
	}
}

// TestReady is from Serve to Shutdown.
func TestReady(t *testing.T) {
	cfg := configure(t, nil, unused(t))
	p, err := proxy.New(cfg, proxy.Options{Log: newLogLines().logger()})
	must(t, err)
	if p.Ready() {
		t.Error("ready before Serve")
	}
	p.Serve()
	if !p.Ready() {
		t.Error("not ready, with all backends down")
	}
	must(t, p.Shutdown(t.Context()))
	if p.Ready() {
		t.Error("ready after Shutdown")
	}
	if err := p.SetOperator("b1", pool.Down); err == nil {
		t.Error("a change was taken after Shutdown")
	}
}
