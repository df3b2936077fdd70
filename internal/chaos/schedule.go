package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

const (
	// shortest and longest are those of most faults; some last longer than
	// every timeout of the proxy.
	shortest = 500 * time.Millisecond
	longest  = 3 * time.Second
	longOne  = 8 * time.Second
	longEach = 8 // one in so many

	// alone is how many faults come one after the other before some come at
	// once.
	alone      = 4
	mostAtOnce = 4

	repeatEvery = 300 * time.Millisecond
	// stuckAfter is when making a fault has failed.
	stuckAfter = 30 * time.Second
	// recoveryTimeout is when a target that does not come back counts as lost.
	recoveryTimeout = 30 * time.Second
)

// occurrence is one fault at one target, with its time.
type occurrence struct {
	trouble
	target string
	after  time.Duration // from the beginning of those that come together
	lasts  time.Duration
	action action
}

func (o *occurrence) String() string {
	text := o.name
	if o.target != ledger.Proxy {
		text += " at " + o.target
	}
	return fmt.Sprintf("%s for %s", text, o.lasts.Round(10*time.Millisecond))
}

// claims names what nobody else may touch meanwhile.
func (o *occurrence) claims() string {
	if o.part == ledger.Proxy {
		return o.part
	}
	return o.target + " " + o.part
}

// schedule draws faults. Each kind comes once before one comes again.
type schedule struct {
	site   *site
	random *rand.Rand
	deck   []trouble
}

func newSchedule(s *site) *schedule {
	return &schedule{site: s, random: rand.New(rand.NewPCG(s.seed, 1<<32))}
}

func (sc *schedule) draw() *occurrence {
	if len(sc.deck) == 0 {
		for _, t := range troubles() {
			if strings.Contains(t.name, sc.site.only) {
				sc.deck = append(sc.deck, t)
			}
		}
		sc.random.Shuffle(len(sc.deck), func(a, b int) { sc.deck[a], sc.deck[b] = sc.deck[b], sc.deck[a] })
	}
	o := &occurrence{trouble: sc.deck[0]}
	sc.deck = sc.deck[1:]
	o.target = o.on[sc.random.IntN(len(o.on))]
	o.lasts = shortest + time.Duration(sc.random.Int64N(int64(longest-shortest)))
	if sc.random.IntN(longEach) == 0 {
		o.lasts = longOne
	}
	o.action = o.make(sc.site, o.target, sc.random)
	return o
}

// next returns faults that come together: mostly one.
func (sc *schedule) next(round int) []*occurrence {
	first := sc.draw()
	found := []*occurrence{first}
	if round%(alone+1) != alone {
		return found
	}
	claimed := map[string]bool{first.claims(): true}
	for range 1 + sc.random.IntN(mostAtOnce-1) {
		o := sc.draw()
		if claimed[o.claims()] {
			continue // it comes another time
		}
		claimed[o.claims()] = true
		o.after = time.Duration(sc.random.Int64N(int64(longest)))
		found = append(found, o)
	}
	return found
}

// run makes faults until ctx ends. Those that have begun are ended.
func (sc *schedule) run(ctx context.Context, say func(format string, args ...any)) error {
	for round := 0; ctx.Err() == nil; round++ {
		var g errgroup.Group
		for _, o := range sc.next(round) {
			say("%s", o)
			g.Go(func() error { return sc.site.make(ctx, o) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// make lets o happen and returns when what it hit works again.
func (s *site) make(ctx context.Context, o *occurrence) error {
	pause(ctx, o.after)
	window := s.ledger.Begin(ledger.Window{
		Fault: o.name, Targets: []string{o.target}, Garbles: o.garbles, Harmless: o.harmless,
		Locks: o.part == processes || o.part == clock,
	})
	// What is begun is ended, however the run ends.
	always, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.lasts+stuckAfter)
	defer cancel()
	err := o.action.begin(always)
	for end := time.Now().Add(o.lasts); err == nil && ctx.Err() == nil && time.Now().Before(end); {
		pause(ctx, min(repeatEvery, time.Until(end)))
		if o.action.repeat != nil {
			err = o.action.repeat(always)
		}
	}
	if o.action.end != nil {
		err = errors.Join(err, o.action.end(always))
	}
	s.ledger.End(window)
	if err != nil {
		return fmt.Errorf("%s: %w", o, err)
	}
	s.recovered(ctx, o.target)
	return nil
}

// recovered returns when a command that was sent from now on has succeeded at
// target. That none does is for the ledger to say.
func (s *site) recovered(ctx context.Context, target string) {
	now := time.Now()
	ctx = context.WithoutCancel(ctx)
	for time.Since(now) < recoveryTimeout && !s.ledger.Succeeded(target, now) {
		pause(ctx, 10*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
