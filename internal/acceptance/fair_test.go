package acceptance

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

var (
	fairBulk     = flag.Int("fair-bulk", 0, "max_bulk of TestBulkBesideInteractive; 0: the default")
	fairCommands = flag.Int("fair-commands", 100, "commands of each phase of TestBulkBesideInteractive")
)

// TestBulkBesideInteractive: what a bulk client of 200 sessions, each of which
// sends one command after the other, does to a client that sends one at a time
// to the same backend. Phases without and with the bulk client take turns, so
// that whatever else the machine does falls on both.
func TestBulkBesideInteractive(t *testing.T) {
	const crowd, phases, most = 200, 3, 10
	c := startCluster(t, 1, 10, dovecot.Options{})
	users := c.servers[0].Users
	p := startProxy(t, plain, func(addr string) string {
		settings := ""
		if *fairBulk > 0 {
			settings = fmt.Sprintf("pool {\n max_bulk = %d\n}", *fairBulk)
		}
		return c.config(addr, settings, `
client "night" {
  password = "{PLAIN}`+clientPassword+`"
  priority = "bulk"
}`)
	})
	login := func(name string) (*doveadm.ClientConn, error) {
		return doveadm.Dial(t.Context(), p.Addr, doveadm.ClientOptions{Username: name, Password: clientPassword, Minor: doveadm.MaxMinor})
	}
	var bulk []*doveadm.ClientConn
	for range crowd {
		client, err := login("night")
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		bulk = append(bulk, client)
	}
	one, err := login("doveadm")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()

	// phase returns how long the commands of the interactive client took.
	phase := func() (took []time.Duration) {
		for n := range *fairCommands {
			begin := time.Now()
			if err := mustBeQuota(runCommand(t.Context(), one, users[n%len(users)], "quota get")); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(begin))
		}
		return took
	}
	phase() // connections to the backend are there
	var alone, beside []time.Duration
	var ran atomic.Int64
	for range phases {
		alone = append(alone, phase()...)

		ctx, stop := context.WithCancel(t.Context())
		var g errgroup.Group
		before := ran.Load()
		for n, client := range bulk {
			g.Go(func() error {
				for ; ctx.Err() == nil; n++ {
					if err := mustBeQuota(runCommand(t.Context(), client, users[n%len(users)], "quota get")); err != nil {
						return err
					}
					ran.Add(1)
				}
				return nil
			})
		}
		for ran.Load() == before {
			time.Sleep(time.Millisecond)
		}
		beside = append(beside, phase()...)
		stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(alone)
	slices.Sort(beside)
	at := func(took []time.Duration, percent int) time.Duration { return took[len(took)*percent/100] }
	ratio := func(percent int) float64 { return float64(at(beside, percent)) / float64(at(alone, percent)) }
	t.Logf("interactive, alone:              p50 %v, p99 %v (%d commands)", at(alone, 50), at(alone, 99), len(alone))
	t.Logf("interactive, beside 200 of bulk: p50 %v, p99 %v: %.1f and %.1f times of alone", at(beside, 50), at(beside, 99), ratio(50), ratio(99))
	t.Logf("bulk: %d commands meanwhile", ran.Load())
	// Of so few commands the p99 is chance on a busy machine. Behind 200 others
	// the median would be a hundred times of alone.
	if ratio(50) > most {
		t.Errorf("the median is %.1f times of what it is alone, want at most %d", ratio(50), most)
	}
}
