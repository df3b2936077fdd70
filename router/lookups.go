package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/maypok86/otter/v2"
	"github.com/sony/gobreaker/v2"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// lookups asks one source, and keeps what it answers.
//
// A lookup belongs to nobody: it runs in a goroutine of its own, all who want
// the same user wait for it, and it goes on if they leave. Tables share lookups:
// a new one takes those of its predecessor over where the route is the same.
type lookups struct {
	source  Source
	config  config.Lookup
	cache   *otter.Cache[string, *cached] // nil: nothing is kept
	slots   chan struct{}                 // holds one for each lookup that runs
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	listen  sync.Once
	lastErr atomic.Pointer[error] // that the breaker heard
	born    time.Time
	doubted atomic.Int64  // answers asked for before that, in ns since born, are too old
	changes atomic.Uint64 // calls of forget
	log     atomic.Pointer[hclog.Logger]
	failing atomic.Bool // the last lookup failed
	counts  lookupCounts

	// mu guards what follows. No lookup runs under it. Whoever finds an answer
	// in the cache does not need it.
	mu     sync.Mutex
	loads  map[string]*load // by user
	tables int              // that use it
	closed bool
	run    sync.WaitGroup // loads
}

// cached is an answer that is kept.
type cached struct {
	place lookup.Place
	found bool
	at    time.Duration // since lookups.born, when it was asked for
	fresh time.Duration // age up to which it is used

	refreshing atomic.Bool
}

// load is a lookup on its way.
type load struct {
	at      time.Duration // since lookups.born
	cancel  context.CancelFunc
	waiting int  // who waits for it; guarded by lookups.mu
	dropped bool // the user changed meanwhile: not to be kept; guarded by lookups.mu

	done  chan struct{} // closed when what follows is set
	place lookup.Place
	found bool
	err   error
}

// answer is what lookups know of a user.
type answer struct {
	place lookup.Place
	found bool
	age   time.Duration // 0: was asked for just now
	stale bool          // it is too old, but the lookup failed
	err   error         // why the lookup failed, of a stale answer
}

// errNoVerdict is told to a breaker of what says nothing about the source.
var errNoVerdict = errors.New("no verdict")

func newLookups(source Source, c config.Lookup) *lookups {
	l := &lookups{
		source: source,
		config: c,
		born:   time.Now(),
		slots:  make(chan struct{}, max(1, c.MaxLookups)),
		loads:  make(map[string]*load),
	}
	if c.Timeout <= 0 {
		l.config.Timeout = 2 * time.Second
	}
	failures := uint32(max(1, c.Breaker.Failures))
	l.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(max(1, c.Breaker.Probes)),
		Timeout:     c.Breaker.Open,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= failures },
		IsExcluded:  func(err error) bool { return err == errNoVerdict },
	})
	if c.Cache.TTL > 0 || c.Cache.NegativeTTL > 0 {
		l.cache = otter.Must(&otter.Options[string, *cached]{
			MaximumSize: max(1, c.Cache.Size),
			Logger:      &otter.NoopLogger{},
			ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, *cached]) time.Duration {
				if e.Value.found {
					return e.Value.fresh + c.Cache.Stale
				}
				return e.Value.fresh
			}),
		})
	}
	return l
}

// get returns the answer for a user, from the cache if it is there.
func (l *lookups) get(ctx context.Context, user string) (answer, error) {
	kept := l.kept(user)
	if kept != nil {
		age := time.Since(l.born) - kept.at
		if age < kept.fresh && int64(kept.at) >= l.doubted.Load() {
			if kept.found && l.config.Cache.Refresh > 0 && age >= l.config.Cache.Refresh && kept.refreshing.CompareAndSwap(false, true) {
				l.refresh(user)
			}
			l.counts.cached.Add(1)
			return answer{place: kept.place, found: kept.found, age: age}, nil
		}
	}
	got, err := l.wait(ctx, user)
	if err == nil {
		l.counts.asked.Add(1)
		return got, nil
	}
	if kept != nil && kept.found && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
		if age := time.Since(l.born) - kept.at; age < kept.fresh+l.config.Cache.Stale {
			l.counts.stale.Add(1)
			return answer{place: kept.place, found: true, age: age, stale: true, err: err}, nil
		}
	}
	l.counts.unknown.Add(1)
	return answer{}, err
}

// kept returns what the cache has, nil if it has nothing.
func (l *lookups) kept(user string) *cached {
	if l.cache == nil {
		return nil
	}
	c, _ := l.cache.GetIfPresent(user)
	return c
}

// refresh starts a lookup that nobody waits for.
func (l *lookups) refresh(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.start(user)
	}
}

// start returns the lookup for a user that is on its way, or a new one. The
// caller holds mu.
func (l *lookups) start(user string) *load {
	one, ok := l.loads[user]
	if !ok {
		ctx, cancel := context.WithTimeout(context.Background(), l.config.Timeout)
		one = &load{at: time.Since(l.born), cancel: cancel, done: make(chan struct{})}
		l.loads[user] = one
		l.run.Go(func() { l.load(ctx, user, one) })
	}
	return one
}

// wait waits for a lookup.
func (l *lookups) wait(ctx context.Context, user string) (answer, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return answer{}, ErrClosed
	}
	one := l.start(user)
	one.waiting++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.waiting--; one.waiting == 0 && l.closed {
			one.cancel()
		}
	}()
	select {
	case <-one.done:
		return answer{place: one.place, found: one.found}, one.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// load is a lookup, from its turn to the cache.
func (l *lookups) load(ctx context.Context, user string, one *load) {
	defer one.cancel()
	one.place, one.found, one.err = l.ask(ctx, user)
	l.mu.Lock()
	if l.loads[user] == one {
		delete(l.loads, user)
	}
	if l.cache != nil && !one.dropped {
		if one.err == nil {
			l.keep(user, one)
		} else if kept, ok := l.cache.GetIfPresent(user); ok {
			kept.refreshing.Store(false) // the next one may try again
		}
	}
	l.mu.Unlock()
	close(one.done)
}

// keep puts an answer into the cache.
func (l *lookups) keep(user string, one *load) {
	fresh := l.config.Cache.NegativeTTL
	if one.found {
		fresh = l.config.Cache.TTL
		if ttl := one.place.TTL; ttl > 0 {
			fresh = min(fresh, ttl)
		}
	}
	if fresh <= 0 {
		l.cache.Invalidate(user)
		return
	}
	l.cache.Set(user, &cached{place: one.place, found: one.found, at: one.at, fresh: fresh})
}

// ask asks the source when there is a place for one more lookup and the breaker
// allows it.
func (l *lookups) ask(ctx context.Context, user string) (lookup.Place, bool, error) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		l.counts.busy.Add(1)
		return lookup.Place{}, false, fmt.Errorf("no lookup within %s (timeout): %d others are on their way (max_lookups)", l.config.Timeout, cap(l.slots))
	}
	done, err := l.breaker.Allow()
	if err != nil {
		l.counts.refused.Add(1)
		why := "lookups failed"
		if last := l.lastErr.Load(); last != nil {
			why = (*last).Error()
		}
		return lookup.Place{}, false, fmt.Errorf("the circuit breaker is open: %s", why)
	}
	verdict := errNoVerdict // of a source that panics
	defer func() { done(verdict) }()
	if n, ok := l.source.(notifier); ok {
		l.listen.Do(func() { n.Notify(l.forget, l.doubt) })
	}
	start := time.Now()
	place, found, err := l.source.Lookup(ctx, user)
	l.counts.took.Observe(time.Since(start))
	if err == nil && found && place.Target == nil {
		place.Target = lookup.ParseTarget(place.Shard)
	}
	switch {
	case err == nil:
		verdict = nil
		if found {
			l.counts.found.Add(1)
		} else {
			l.counts.missing.Add(1)
		}
		if l.failing.Load() && l.failing.CompareAndSwap(true, false) {
			l.tell(hclog.Info, "lookups work again")
		}
	case errors.Is(ctx.Err(), context.Canceled): // by close
	default:
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s (timeout)", l.config.Timeout)
		}
		l.counts.failed.Add(1)
		verdict = err
		l.lastErr.Store(&err)
		if !l.failing.Swap(true) {
			l.tell(hclog.Error, "lookups fail: users whose place is known go on for cache.stale, others get a temporary failure", "error", err)
		}
	}
	return place, found, err
}

// tell logs a change, of which there are few however many lookups there are.
func (l *lookups) tell(level hclog.Level, what string, args ...any) {
	if log := l.log.Load(); log != nil {
		(*log).Log(level, what, args...)
	}
}

// forget drops the answer for a user, or all of them if user is empty. What is
// being asked at this moment is not kept.
func (l *lookups) forget(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes.Add(1)
	if user == "" {
		for _, one := range l.loads {
			one.dropped = true
		}
		clear(l.loads)
		if l.cache != nil {
			l.cache.InvalidateAll()
		}
		return
	}
	if one, ok := l.loads[user]; ok {
		one.dropped = true
		delete(l.loads, user)
	}
	if l.cache != nil {
		l.cache.Invalidate(user)
	}
}

// doubt makes all answers count as too old.
func (l *lookups) doubt() {
	l.doubted.Store(int64(time.Since(l.born)) + 1)
	l.changes.Add(1)
}

// share counts one more table.
func (l *lookups) share() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tables++
}

// release counts one table less. The last one ends everything: who waits for a
// lookup gets it, within its timeout, everybody else ErrClosed.
func (l *lookups) release() {
	l.mu.Lock()
	l.tables--
	if l.tables > 0 || l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	for _, one := range l.loads {
		if one.waiting == 0 {
			one.cancel()
		}
	}
	l.mu.Unlock()
	l.run.Wait()
	l.source.Close()
	if l.cache != nil {
		l.cache.InvalidateAll()
		l.cache.StopAllGoroutines()
	}
}
