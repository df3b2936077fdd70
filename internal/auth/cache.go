package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// ErrBusy says that an expensive check did not get its turn in time. It is no
// answer about the password.
var ErrBusy = errors.New("too many password checks at work")

// CacheOptions are the bounds of a Cache. The zero value is usable.
type CacheOptions struct {
	// TTL is how long a verified password is remembered, counted from the
	// check. 0: five minutes; negative: not at all.
	TTL time.Duration
	// MaxEntries bounds the remembered passwords; above it the oldest is
	// forgotten. 0: 4096.
	MaxEntries int
	// MaxChecks bounds the expensive checks at work at once, and once more
	// those of Trusted logins. Each keeps one processor busy and, with Argon2,
	// holds its memory (64 MiB by default). 0: half of GOMAXPROCS, so that
	// no flood of logins takes the processors from the commands.
	MaxChecks int
}

// Cache remembers verified passwords and bounds the checks it cannot spare.
// It outlives a reload: pass the same one to the old and to the new Verifier.
// What it remembers holds for a name together with the text of its hash, so a
// changed hash is never answered from memory. It is safe for concurrent use.
type Cache struct {
	ttl        time.Duration
	maxEntries int
	maxChecks  int
	checks     *semaphore.Weighted
	trusted    *semaphore.Weighted // for those who need not queue with the others
	decoySeed  maphash.Seed
	keyed      sync.Pool // of *keyedHash

	mu sync.Mutex // guards what follows; nothing else is done under it
	// Every entry lives equally long, so queue is in the order of expiry and
	// holds exactly the keys of expires.
	expires map[cacheKey]time.Time
	queue   []cacheKey
}

// cacheKey stands for a name, its hash and a password. Without the process's
// random key it can be neither computed nor tested.
type cacheKey [sha256.Size]byte

// NewCache returns an empty cache with a new random key.
func NewCache(o CacheOptions) *Cache {
	if o.TTL == 0 {
		o.TTL = 5 * time.Minute
	}
	if o.MaxEntries <= 0 {
		o.MaxEntries = 4096
	}
	if o.MaxChecks <= 0 {
		o.MaxChecks = max(1, runtime.GOMAXPROCS(0)/2)
	}
	secret := make([]byte, sha256.Size)
	rand.Read(secret) // never fails: crypto/rand ends the program instead
	return &Cache{
		ttl:        o.TTL,
		maxEntries: o.MaxEntries,
		maxChecks:  o.MaxChecks,
		checks:     semaphore.NewWeighted(int64(o.MaxChecks)),
		trusted:    semaphore.NewWeighted(int64(o.MaxChecks)),
		decoySeed:  maphash.MakeSeed(),
		keyed:      sync.Pool{New: func() any { return &keyedHash{mac: hmac.New(sha256.New, secret)} }},
		expires:    make(map[cacheKey]time.Time),
	}
}

// keyedHash is an HMAC with the cache's secret and a buffer for its input and
// output, reused because both would be allocated for each login.
type keyedHash struct {
	mac hash.Hash
	buf []byte
}

// key computes the cache key of a login. The name is preceded by its length
// and the fingerprint's is fixed, so no two logins have the same input.
func (c *Cache) key(name string, h Hash, password string) cacheKey {
	k := c.keyed.Get().(*keyedHash)
	defer c.keyed.Put(k)
	k.buf = binary.BigEndian.AppendUint64(k.buf[:0], uint64(len(name)))
	k.buf = append(k.buf, name...)
	k.buf = append(k.buf, h.fingerprint[:]...)
	k.buf = append(k.buf, password...)
	k.mac.Reset()
	k.mac.Write(k.buf)
	clear(k.buf) // no password stays behind in the pool
	k.buf = k.mac.Sum(k.buf[:0])
	return cacheKey(k.buf)
}

// remembers reports whether the login was verified a short while ago.
func (c *Cache) remembers(key cacheKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	expires, ok := c.expires[key]
	return ok && time.Now().Before(expires)
}

// remember keeps a verified login, and forgets what is expired or too much.
func (c *Cache) remember(key cacheKey) {
	if c.ttl < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.queue) > 0 && !now.Before(c.expires[c.queue[0]]) {
		c.forgetOldest()
	}
	if _, ok := c.expires[key]; ok {
		return // another login with the same password was checked meanwhile
	}
	if len(c.queue) >= c.maxEntries {
		c.forgetOldest()
	}
	c.expires[key] = now.Add(c.ttl)
	c.queue = append(c.queue, key)
}

func (c *Cache) forgetOldest() {
	delete(c.expires, c.queue[0])
	c.queue = c.queue[1:]
}

// acquire waits for the right to make one expensive check; release follows the
// check.
func (c *Cache) acquire(ctx context.Context, trusted bool) (release func(), err error) {
	checks := c.checks
	if trusted {
		checks = c.trusted
	}
	if err := checks.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("%w: %d are allowed at once: %w", ErrBusy, c.maxChecks, err)
	}
	return func() { checks.Release(1) }, nil
}
