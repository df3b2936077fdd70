package router

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// newRing returns the ring of a route: a rendezvous or a director, for everybody
// or for some.
func newRing(name string, r config.Route, names *Names, shards []string) (route, []error) {
	var ring route
	var errs []error
	switch r.Ring.Algorithm {
	case config.RingDirector:
		ring, errs = newDirector(name, r, shards)
	case config.RingRendezvous, "":
		ring, errs = newRendezvous(name, r, shards)
	default:
		errs = []error{fmt.Errorf("unknown algorithm %q: use %s or %s", r.Ring.Algorithm, config.RingRendezvous, config.RingDirector)}
	}
	selector, problems := newSelector(r.Match, names)
	if selector != nil {
		ring = &selected{ring, selector}
	}
	return ring, append(errs, problems...)
}

// selected is a ring that is only for some users.
type selected struct {
	route
	users *selector
}

func (s *selected) decide(ctx context.Context, user string) (Decision, bool, error) {
	if s.users.selects(user) < 0 {
		return Decision{}, false, nil
	}
	return s.route.decide(ctx, user)
}

func (s *selected) explain(ctx context.Context, user string) (string, error) {
	i := s.users.selects(user)
	if i < 0 {
		return "the ring is not for this user", nil
	}
	reason, err := s.route.explain(ctx, user)
	return s.users.clauses[i] + "; " + reason, err
}

// rendezvous gives every user to the shard with the highest score for it. How
// it is computed is in the package comment, and is never to change.
type rendezvous struct {
	label  string
	groups []ringGroup
}

// ringGroup is the shards of one weight. Among them the highest score wins
// whatever the weight is, so that a logarithm is needed for each group only.
type ringGroup struct {
	weight float64
	// By name, so that the first of equal scores wins. The hashes of the names
	// stand apart from the rest, because a decision looks at all of them.
	hashes    []uint64
	decisions []Decision
}

func newRendezvous(name string, r config.Route, shards []string) (*rendezvous, []error) {
	named, weights := r.Shards, r.Ring.Weights
	if len(named) == 0 {
		named, weights = shards, nil
	}
	ring := &rendezvous{label: name}
	var errs []error
	if len(named) == 0 {
		errs = append(errs, errors.New("no shards to choose from: define one"))
	}
	sorted := slices.Sorted(slices.Values(named))
	for i, shard := range sorted {
		if i > 0 && sorted[i-1] == shard {
			errs = append(errs, fmt.Errorf("shard %q is named twice: it would get no more users by that, remove one", shard))
			continue
		}
		if err := checkShard(shard, shards); err != nil {
			errs = append(errs, err)
		}
		weight := 1
		if weights != nil {
			weight = weights[slices.Index(named, shard)]
		}
		if weight == 0 {
			continue
		}
		reason := fmt.Sprintf("the consistent hash over %s gives the user to %s", list(sorted), shard)
		ring.add(float64(weight), ringHash(shard), Decision{Shard: shard, Route: name, Reason: reason})
	}
	if len(ring.groups) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("all shards have weight 0: give one of them more"))
	}
	return ring, errs
}

func (r *rendezvous) add(weight float64, hash uint64, d Decision) {
	i := slices.IndexFunc(r.groups, func(g ringGroup) bool { return g.weight == weight })
	if i < 0 {
		r.groups, i = append(r.groups, ringGroup{weight: weight}), len(r.groups)
	}
	g := &r.groups[i]
	g.hashes, g.decisions = append(g.hashes, hash), append(g.decisions, d)
}

func (r *rendezvous) name() string { return r.label }

func (r *rendezvous) decide(_ context.Context, user string) (Decision, bool, error) {
	h := ringHash(user)
	if len(r.groups) == 1 {
		winner, _ := r.groups[0].best(h)
		return *winner, true, nil
	}
	var winner *Decision
	highest := math.Inf(-1)
	for i := range r.groups {
		g := &r.groups[i]
		best, score := g.best(h)
		weighted := -g.weight / math.Log((float64(score)+0.5)/(1<<64))
		if weighted > highest || weighted == highest && best.Shard < winner.Shard {
			winner, highest = best, weighted
		}
	}
	return *winner, true, nil
}

// best returns the shard with the highest score.
func (g *ringGroup) best(user uint64) (*Decision, uint64) {
	winner, highest := 0, ringMix(user^g.hashes[0])
	for i, hash := range g.hashes {
		if score := ringMix(user ^ hash); score > highest {
			winner, highest = i, score
		}
	}
	return &g.decisions[winner], highest
}

func (r *rendezvous) explain(ctx context.Context, user string) (string, error) {
	d, _, _ := r.decide(ctx, user)
	return d.Reason, nil
}

func (r *rendezvous) close() {}

func ringHash(s string) uint64 {
	var stack [256]byte // Sum256 wants bytes, and they need not be on the heap
	sum := sha256.Sum256(append(stack[:0], s...))
	return binary.BigEndian.Uint64(sum[:])
}

// ringMix spreads its input over all bits. It is the finalizer of splitmix64
// (constants: David Stafford's "mix 13").
func ringMix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
