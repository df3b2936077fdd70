package auth

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
)

// Verifier checks logins against a fixed set of clients. It is immutable and
// safe for concurrent use; a reload makes a new one with the same Cache.
type Verifier struct {
	clients map[string]Hash
	decoys  []Hash // the hashes of clients, in an order that only they decide
	cache   *Cache
}

// NewVerifier returns a verifier of clients, by name. Every Hash must come
// from ParseHash. Clients that cannot log in with a password are left out.
func NewVerifier(clients map[string]Hash, cache *Cache) *Verifier {
	v := &Verifier{clients: maps.Clone(clients), cache: cache}
	for name, h := range clients {
		if h.matcher == nil {
			panic(fmt.Sprintf("auth: client %q has a Hash that does not come from ParseHash", name))
		}
		v.decoys = append(v.decoys, h)
	}
	slices.SortFunc(v.decoys, func(a, b Hash) int { return bytes.Compare(a.fingerprint[:], b.fingerprint[:]) })
	return v
}

// Verify reports whether password is that of the client name. Empty passwords
// and those longer than MaxPassword are always wrong.
//
// An unknown name is checked against the hash of a client, always the same
// for the same name, and then refused: neither the time nor its spread over
// many names tells which names exist.
//
// An expensive check may have to wait for its turn. If ctx ends first, the
// error is ErrBusy together with the cause from ctx. A check that has begun is not
// interrupted. Any other error means that the check could not be made.
func (v *Verifier) Verify(ctx context.Context, name, password string) (bool, error) {
	if len(v.decoys) == 0 || password == "" || !acceptable(password) {
		return false, nil
	}
	decoy := v.decoys[maphash.String(v.cache.decoySeed, name)%uint64(len(v.decoys))]
	h, known := v.clients[name]
	if !known {
		h = decoy
	}
	if !h.expensive {
		ok, err := h.Match(password)
		return ok && known, err
	}

	key := v.cache.key(name, h, password)
	if known && v.cache.remembers(key) {
		return true, nil
	}
	if err := v.cache.acquire(ctx); err != nil {
		return false, err
	}
	defer v.cache.release()
	// Of many logins with the same password at once, the first that got its
	// turn has answered for all.
	if known && v.cache.remembers(key) {
		return true, nil
	}
	ok, err := h.Match(password)
	if ok = ok && known; ok {
		v.cache.remember(key)
	}
	return ok, err
}
