// Package penalty slows those down who guess passwords: it counts the failed
// logins of each address and of each name, and refuses further ones without
// looking at the password while there are too many. The counts go down evenly
// with time.
//
//	attempt, err := table.Begin(ctx, address, name, password)
//	if err != nil { ... } // ErrTooMany, or ctx ended
//	ok := check(name, password, attempt.Trusted)
//	attempt.End(penalty.Good) // or Wrong
//
// Who shows the password with which that name has logged in from that address
// within the last day is let through whatever the counts are, so that a bad
// neighbour behind the same address, or a guesser of the same name, keeps
// nobody out. Such a password is remembered as a keyed hash.
//
// An address is an IPv4 address or the /64 of an IPv6 address. Memory is bounded:
// above the bound, who failed longest ago is forgotten first.
package penalty

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxEntries bounds each of the three memories: of addresses, of names, and
	// of who has logged in.
	maxEntries = 1 << 16
	// goodFor is how long a good login is remembered.
	goodFor = 24 * time.Hour
	// tellEvery is how often a refusal is worth a line in the log.
	tellEvery = time.Minute
)

// Options say what is too many. The zero value never refuses.
type Options struct {
	Address  int           // failures of an address; 0: no limit
	Name     int           // failures of a name, from all addresses together; 0: no limit
	Recovery time.Duration // in which the counts go from the limit to zero
	Exempt   []netip.Prefix
}

// TooManyError is a login that is refused without a look at the password.
type TooManyError struct {
	ByName bool // not by the address
	Tell   bool // the log is to have it: the first in a while
	Others int  // refused since the last that was told
}

func (e *TooManyError) Error() string {
	if e.ByName {
		return "too many failed logins with this name"
	}
	return "too many failed logins from this address"
}

// Table counts. All methods may be called from any goroutine.
type Table struct {
	hashers sync.Pool // with a key for this process only

	mu        sync.Mutex // guards what follows; nothing else is done under it
	options   Options
	addresses *memory[netip.Addr, *count]
	names     *memory[digest, *count]
	good      *memory[digest, login]
}

// digest stands for text of any length.
type digest [16]byte

// login is the last good one of a name from an address.
type login struct {
	password [sha256.Size]byte
	at       time.Time
}

// count is the failures of an address or of a name.
type count struct {
	failures float64 // at the time at
	at       time.Time
	running  int           // attempts whose end is not known
	ended    chan struct{} // closed when one of them ends; nil: nobody waits
	told     time.Time
	held     int
}

// New returns an empty table that never refuses, until Configure.
func New() *Table {
	return newTable(maxEntries)
}

func newTable(limit int) *Table {
	t := &Table{
		addresses: newMemory[netip.Addr, *count](limit),
		names:     newMemory[digest, *count](limit),
		good:      newMemory[digest, login](limit),
	}
	var key [sha256.Size]byte
	rand.Read(key[:]) // never fails: crypto/rand ends the program instead
	t.hashers.New = func() any { return &hasher{mac: hmac.New(sha256.New, key[:])} }
	return t
}

// Configure sets what is too many from now on.
func (t *Table) Configure(o Options) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.options = o
}

// Attempt is a login whose password is being checked. End must follow.
type Attempt struct {
	// Trusted: the password is that of a good login a short while ago.
	Trusted bool

	table    *Table
	address  netip.Addr
	name     digest
	pair     digest
	password [sha256.Size]byte
	counts   [2]*count // nil: not counted
}

// Begin returns whether the password may be looked at; a *TooManyError says
// that it may not. An invalid address is that of all who have none. Where so many
// attempts run that their failure would be too many, Begin waits for their end.
func (t *Table) Begin(ctx context.Context, from netip.Addr, name, password string) (*Attempt, error) {
	a := &Attempt{table: t, address: bucket(from)}
	h := t.hashers.Get().(*hasher)
	address := a.address.As16()
	a.name = digest(h.sum([]byte("name"), name)[:16])
	a.pair = digest(h.sum(address[:], name)[:16])
	a.password = [sha256.Size]byte(h.sum(a.pair[:], password))
	h.forget()
	t.hashers.Put(h)

	for {
		wait, err := t.begin(a, from)
		if wait == nil {
			if err != nil {
				return nil, err
			}
			return a, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// begin counts a among those that run, refuses it, or returns what to wait for.
func (t *Table) begin(a *Attempt, from netip.Addr) (wait <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	last, ok := t.good.get(a.pair)
	a.Trusted = ok && now.Sub(last.at) < goodFor && hmac.Equal(last.password[:], a.password[:])
	if a.Trusted || t.exempt(from) {
		return nil, nil
	}
	limits := [2]int{t.options.Address, t.options.Name}
	for i, limit := range limits {
		if limit == 0 {
			continue
		}
		c := t.count(a, i)
		c.settle(now, limit, t.options.Recovery)
		switch {
		case c.failures+1 > float64(limit):
			return nil, c.refuse(i == 1, now)
		case c.failures+float64(c.running)+1 > float64(limit):
			if c.ended == nil {
				c.ended = make(chan struct{})
			}
			return c.ended, nil
		}
	}
	for i, limit := range limits {
		if limit > 0 {
			a.counts[i] = t.count(a, i)
			a.counts[i].running++
		}
	}
	return nil, nil
}

// count returns that of the address (0) or of the name (1) of a. The caller
// holds mu.
func (t *Table) count(a *Attempt, i int) *count {
	if i == 0 {
		return t.addresses.getOrAdd(a.address, func() *count { return new(count) })
	}
	return t.names.getOrAdd(a.name, func() *count { return new(count) })
}

// settle lets the failures go down.
func (c *count) settle(now time.Time, limit int, recovery time.Duration) {
	gone := 0.0
	if recovery > 0 && now.After(c.at) {
		gone = float64(now.Sub(c.at)) / float64(recovery) * float64(limit)
	}
	c.failures, c.at = max(0, c.failures-gone), now
}

func (c *count) refuse(byName bool, now time.Time) error {
	e := &TooManyError{ByName: byName}
	if e.Tell = c.told.IsZero() || now.Sub(c.told) >= tellEvery; e.Tell {
		e.Others, c.held, c.told = c.held, 0, now
	} else {
		c.held++
	}
	return e
}

// exempt reports whether an address is never refused. The caller holds mu.
func (t *Table) exempt(from netip.Addr) bool {
	for _, p := range t.options.Exempt {
		if p.Contains(from.Unmap()) {
			return true
		}
	}
	return false
}

// Outcome is how an attempt ended.
type Outcome int

// The outcomes.
const (
	Unknown Outcome = iota // the password could not be checked
	Good
	Wrong
)

// End says how the attempt ended.
func (a *Attempt) End(o Outcome) {
	t := a.table
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case o == Good:
		t.good.set(a.pair, login{a.password, time.Now()})
	case o == Wrong && a.Trusted:
		t.good.remove(a.pair) // it was changed
	}
	for i, c := range a.counts {
		if c == nil {
			continue
		}
		c.running--
		if o == Wrong {
			c.failures++
		}
		if c.ended != nil {
			close(c.ended)
			c.ended = nil
		}
		if c.running == 0 && c.failures == 0 {
			if i == 0 {
				t.addresses.remove(a.address)
			} else {
				t.names.remove(a.name)
			}
		}
	}
}

// bucket returns what stands for an address: its own, or its /64.
func bucket(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64)
		return p.Addr()
	}
	return a
}

// hasher hashes two texts with the key of the process. It is used again, for
// there are three hashes to each login.
type hasher struct {
	mac  hash.Hash
	text []byte
	got  [sha256.Size]byte
}

// sum returns a hash that is valid until the next one.
func (h *hasher) sum(one []byte, two string) []byte {
	h.text = binary.BigEndian.AppendUint64(h.text[:0], uint64(len(one)))
	h.text = append(append(h.text, one...), two...)
	h.mac.Reset()
	h.mac.Write(h.text)
	return h.mac.Sum(h.got[:0])
}

// forget drops what was hashed.
func (h *hasher) forget() {
	clear(h.text[:cap(h.text)])
	h.mac.Reset()
}

// IsTooMany returns the refusal that err is, or nil.
func IsTooMany(err error) *TooManyError {
	var e *TooManyError
	errors.As(err, &e)
	return e
}
