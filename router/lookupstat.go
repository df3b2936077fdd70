package router

import (
	"sync/atomic"

	"github.com/sony/gobreaker/v2"

	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
)

// LookupStat is what the lookups of a route are like. The counters go on over a
// reload that leaves the route as it is.
type LookupStat struct {
	Route string

	// Questions for a user's place, by where the answer came from.
	Cached  uint64 // kept from earlier
	Asked   uint64 // the source, just now
	Stale   uint64 // kept from earlier and too old: the lookup failed
	Unknown uint64 // there was none: the lookup failed, or who asked has gone

	// Lookups, by their end. Several questions may have waited for one, and
	// nobody for one that renews what is kept.
	Found   uint64
	Missing uint64 // the source does not know the user
	Failed  uint64
	Refused uint64 // not begun: the circuit breaker is open
	Busy    uint64 // not begun within timeout: max_lookups were on their way
	Took    histogram.Counts

	Running int  // lookups that ask the source now
	Kept    int  // users whose answers are kept
	Failing bool // the last lookup failed
	Breaker gobreaker.State
}

// lookupCounts are the counters behind a LookupStat.
type lookupCounts struct {
	cached, asked, stale, unknown         atomic.Uint64
	found, missing, failed, refused, busy atomic.Uint64
	took                                  histogram.Histogram
}

// Lookups returns what the lookups of the routes are like, in the order of the
// routes that have any.
func (t *Table) Lookups() []LookupStat {
	var all []LookupStat
	for _, route := range t.routes {
		if r, ok := route.(*remote); ok {
			s := r.lookups.stat()
			s.Route = r.label
			all = append(all, s)
		}
	}
	return all
}

func (l *lookups) stat() LookupStat {
	c := &l.counts
	s := LookupStat{
		Cached: c.cached.Load(), Asked: c.asked.Load(), Stale: c.stale.Load(), Unknown: c.unknown.Load(),
		Found: c.found.Load(), Missing: c.missing.Load(), Failed: c.failed.Load(), Refused: c.refused.Load(), Busy: c.busy.Load(),
		Took: c.took.Counts(), Running: len(l.slots), Failing: l.failing.Load(), Breaker: l.breaker.State(),
	}
	if l.cache != nil {
		s.Kept = l.cache.EstimatedSize()
	}
	return s
}
