package proxy

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// shard is the backends that serve the same mail.
type shard struct {
	balance   string
	slowStart time.Duration
	members   []*backend // as they are written
	homes     bool       // each user has a member of his own
	names     *router.Names
}

func newShard(c config.Shard, names *router.Names) *shard {
	return &shard{balance: c.Balance, slowStart: c.SlowStart, homes: c.Balance != config.BalanceOrder, names: names}
}

// A member is asked in the order of these, and of standing in each of them.
const (
	inService = iota // nothing speaks against it
	standby          // the same, and marked as standby
	returning        // it has come back, but this user is not yet among those whom slow_start lets go to it
	unwell           // its health checks fail, or its breaker is open: it is asked if all others failed
	withdrawn        // an operator took it out of service
)

// standing is what a member is to a user at one moment.
type standing struct {
	*backend
	class int
	load  float64 // of least-busy, the less the better
	score uint64  // of the user's own order, the more the better
}

// inOrder returns the members in the order in which a command of user asks
// them for a connection. As long as their states do not change it is always
// the same one first for a user (but for least-busy, where that one has no room
// left), on all proxies: the order depends on names and not on chance. What an
// operator took out of service is left out, unless that is all there is.
func (s *shard) inOrder(user string) []*backend {
	if len(s.members) == 1 || !s.homes && s.plain() {
		return s.members
	}
	user = s.names.User(user)
	all := make([]standing, len(s.members))
	oldest := s.oldest()
	for i, b := range s.members {
		all[i] = s.stand(b, user, b == oldest)
	}
	slices.SortStableFunc(all, func(a, b standing) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(b.score, a.score))
	})
	if s.balance == config.BalanceLeastBusy {
		s.relieve(all)
	}
	order := make([]*backend, 0, len(all))
	for _, m := range all {
		if m.class != withdrawn || len(order) == 0 {
			order = append(order, m.backend)
		}
	}
	return order
}

// Preference returns the backends of a shard in the order in which a command of
// user asks them for a connection while nothing speaks against any of them.
func Preference(c config.Shard, names *router.Names, user string) []config.Backend {
	user = names.User(user)
	place := func(b config.Backend) (class int, near uint64) {
		if b.Standby {
			class = standby
		}
		if c.Balance != config.BalanceOrder {
			near = score(b.Name, user)
		}
		return class, near
	}
	order := slices.Clone(c.Backends)
	slices.SortStableFunc(order, func(a, b config.Backend) int {
		classA, scoreA := place(a)
		classB, scoreB := place(b)
		return cmp.Or(cmp.Compare(classA, classB), cmp.Compare(scoreB, scoreA))
	})
	return order
}

// plain reports whether the members are to be asked as they are written.
func (s *shard) plain() bool {
	seen := false
	for _, b := range s.members {
		if !b.Available() || b.Back() < s.slowStart || seen && !b.config.Standby {
			return false
		}
		seen = seen || b.config.Standby
	}
	return true
}

func (s *shard) stand(b *backend, user string, oldest bool) standing {
	m := standing{backend: b}
	if s.homes {
		m.score = score(b.Name(), user)
	}
	switch {
	case b.Operator() != pool.Active:
		m.class = withdrawn
	case !b.Available():
		m.class = unwell
	case !oldest && !s.admits(b, user):
		m.class = returning
	case b.config.Standby:
		m.class = standby
	}
	return m
}

// oldest returns the member that has been in service for the longest time, or
// nil. It takes all users who are not let go to another yet: where all have
// just come back, nobody can wait for anybody.
func (s *shard) oldest() *backend {
	var oldest *backend
	for _, b := range s.members {
		if b.Available() && (oldest == nil || b.Back() > oldest.Back()) {
			oldest = b
		}
	}
	return oldest
}

// admits reports whether a backend that has come back has user again: a share
// of all users that grows with time, so that each goes back once.
func (s *shard) admits(b *backend, user string) bool {
	back := b.Back()
	if back >= s.slowStart {
		return true
	}
	place := mix(score(b.Name(), user)) // not the score: those who are at home here have a high one
	return float64(place) < float64(back)/float64(s.slowStart)*math.MaxUint64
}

// relieve puts the least busy of the equals first, unless the user's own one
// has a connection to spare.
func (s *shard) relieve(all []standing) {
	equals := all[:1]
	for len(equals) < len(all) && all[len(equals)].class == all[0].class {
		equals = all[:len(equals)+1]
	}
	for i := range equals {
		m := &equals[i]
		m.load = float64(m.Busy()) / float64(m.limits.MaxOpen)
	}
	if equals[0].load < 1 {
		return
	}
	slices.SortStableFunc(equals, func(a, b standing) int { return cmp.Compare(a.load, b.load) })
}

// score is how near user is to a backend: rendezvous hashing, with which a
// backend that goes leaves the users of all others where they are. It must not
// change between versions, or users would move.
func score(backend, user string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(backend) {
		h = (h ^ uint64(backend[i])) * prime
	}
	h *= prime // a NUL between the two, which neither has
	for i := range len(user) {
		h = (h ^ uint64(user[i])) * prime
	}
	return mix(h)
}

// mix spreads a hash over all bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
