package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
)

// Passwords are the stored passwords of one client. Both are valid.
type Passwords struct {
	Current Hash
	Old     Hash // while it is being replaced; the zero Hash: there is none
}

// HasOld reports whether there are two.
func (p Passwords) HasOld() bool { return p.Old.matcher != nil }

// Source returns the passwords of a client as they are now. Each Hash must come
// from ParseHash, but for an Old that is the zero Hash. It may be called from
// any goroutine.
type Source func() Passwords

// Verdict is what a Verifier says of a login.
type Verdict int

// The verdicts.
const (
	Refused   Verdict = iota // wrong name or password
	ByCurrent                // verified
	ByOld                    // verified by the old password
)

// Verifier checks logins against a fixed set of clients. It is safe for
// concurrent use; a reload makes a new one with the same Cache.
type Verifier struct {
	clients map[string]Source
	decoys  []Source // those of clients, in an order that only their passwords decide
	cache   *Cache
}

// NewVerifier returns a verifier of clients, by name. Clients that cannot log
// in with a password are left out.
func NewVerifier(clients map[string]Source, cache *Cache) *Verifier {
	type decoy struct {
		source      Source
		fingerprint [sha256.Size]byte
	}
	v := &Verifier{clients: maps.Clone(clients), cache: cache}
	var decoys []decoy
	for name, source := range clients {
		h := source().Current
		if h.matcher == nil {
			panic(fmt.Sprintf("auth: client %q has a Hash that does not come from ParseHash", name))
		}
		decoys = append(decoys, decoy{source, h.fingerprint})
	}
	slices.SortFunc(decoys, func(a, b decoy) int { return bytes.Compare(a.fingerprint[:], b.fingerprint[:]) })
	for _, d := range decoys {
		v.decoys = append(v.decoys, d.source)
	}
	return v
}

// Verify reports whether password is one of those of the client name. Empty
// passwords and those longer than MaxPassword are always wrong.
//
// An unknown name is checked against the passwords of a client, always the same
// for the same name, and then refused: neither the time nor its spread over
// many names tells which names exist, and which have an old password.
//
// An expensive check may have to wait for its turn. If ctx ends first, the
// error is ErrBusy together with the cause from ctx. A check that has begun is not
// interrupted. Any other error means that the check could not be made.
func (v *Verifier) Verify(ctx context.Context, name, password string) (Verdict, error) {
	return v.verify(ctx, login{name: name, password: password})
}

// VerifyTrusted is Verify for logins that are known to be probably right. They
// wait for their turn only among themselves: no flood of guesses delays them.
func (v *Verifier) VerifyTrusted(ctx context.Context, name, password string) (Verdict, error) {
	return v.verify(ctx, login{name: name, password: password, trusted: true})
}

func (v *Verifier) verify(ctx context.Context, l login) (Verdict, error) {
	name, password := l.name, l.password
	if len(v.decoys) == 0 || password == "" || !acceptable(password) {
		return Refused, nil
	}
	decoy := v.decoys[maphash.String(v.cache.decoySeed, name)%uint64(len(v.decoys))]
	source, known := v.clients[name]
	if !known {
		source = decoy
	}
	l.verifier, l.known = v, known
	p := source()
	switch {
	case l.remembered(p.Current):
		return ByCurrent, nil
	case l.remembered(p.Old):
		return ByOld, nil
	}
	if ok, err := l.check(ctx, p.Current); ok || err != nil {
		return verdict(ok, ByCurrent), err
	}
	if !p.HasOld() {
		return Refused, nil
	}
	ok, err := l.check(ctx, p.Old)
	return verdict(ok, ByOld), err
}

func verdict(ok bool, by Verdict) Verdict {
	if ok {
		return by
	}
	return Refused
}

// login is one login to be verified.
type login struct {
	verifier       *Verifier
	name, password string
	known          bool
	trusted        bool
}

// remembered reports whether the login was verified by h a short while ago.
func (l *login) remembered(h Hash) bool {
	return h.expensive && l.known && l.verifier.cache.remembers(l.verifier.cache.key(l.name, h, l.password))
}

// check reports whether the login is right by h.
func (l *login) check(ctx context.Context, h Hash) (bool, error) {
	if !h.expensive {
		ok, err := h.Match(l.password)
		return ok && l.known, err
	}
	cache := l.verifier.cache
	release, err := cache.acquire(ctx, l.trusted)
	if err != nil {
		return false, err
	}
	defer release()
	// Of many logins with the same password at once, the first that got its
	// turn has answered for all.
	if l.remembered(h) {
		return true, nil
	}
	ok, err := h.Match(l.password)
	if ok = ok && l.known; ok {
		cache.remember(cache.key(l.name, h, l.password))
	}
	return ok, err
}
