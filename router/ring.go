package router

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// ring gives every user to the shard with the highest score for it. How it is
// computed is in the package comment, and is never to change.
type ring struct {
	shards []ringShard // by name, so that the first of equal scores wins
}

type ringShard struct {
	hash     uint64 // of the name
	decision Decision
}

func newRing(name string, r config.Route, shards []string) (*ring, []error) {
	named := r.Shards
	if len(named) == 0 {
		named = shards
	}
	named = slices.Sorted(slices.Values(named))
	var errs []error
	if len(named) == 0 {
		errs = append(errs, errors.New("no shards to choose from: define one"))
	}
	ring := new(ring)
	for i, shard := range named {
		if i > 0 && named[i-1] == shard {
			errs = append(errs, fmt.Errorf("shard %q is named twice: it would get no more users by that, remove one", shard))
			continue
		}
		if err := checkShard(shard, shards); err != nil {
			errs = append(errs, err)
		}
		reason := fmt.Sprintf("the consistent hash over %s gives the user to %s", list(named), shard)
		ring.shards = append(ring.shards, ringShard{ringHash(shard), Decision{Shard: shard, Route: name, Reason: reason}})
	}
	return ring, errs
}

func (r *ring) name() string { return "ring" }

func (r *ring) decide(_ context.Context, user string) (Decision, bool, error) {
	h := ringHash(user)
	winner, highest := 0, ringMix(h^r.shards[0].hash)
	for i := 1; i < len(r.shards); i++ {
		if score := ringMix(h ^ r.shards[i].hash); score > highest {
			winner, highest = i, score
		}
	}
	return r.shards[winner].decision, true, nil
}

func (r *ring) explain(ctx context.Context, user string) (string, error) {
	d, _, _ := r.decide(ctx, user)
	return d.Reason, nil
}

func (r *ring) close() {}

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
