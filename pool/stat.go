package pool

import (
	"maps"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
)

// CloseReason says why a connection was closed.
type CloseReason string

const (
	closedIdle      CloseReason = "idle_timeout"
	closedLifetime  CloseReason = "max_lifetime"
	closedCommands  CloseReason = "max_commands"
	closedSurplus   CloseReason = "max_idle"
	closedUsedUp    CloseReason = "used_up"   // a command or status after which it is not used again
	closedAbandoned CloseReason = "abandoned" // the command was given up, for instance because the client left
	closedUnclean   CloseReason = "unclean"   // bytes came behind the status
	ClosedLost      CloseReason = "lost"      // failed while in use
	closedDead      CloseReason = "dead"      // found ended when it was wanted
	closedStray     CloseReason = "stray"     // found with bytes nobody asked for
	closedEvicted   CloseReason = "evicted"   // made room for a fresh one
	closedRetired   CloseReason = "retired"   // opened before the backend refused another, or the pool closes
)

// Stat is a snapshot of a pool. The counters only grow.
type Stat struct {
	Open    int // connections, without those being dialled
	Idle    int
	InUse   int
	Dialing int
	Waiting int
	// Limit is how many commands may run at the same time now, Best that
	// outside of comparisons: as many as the backend was found to answer best
	// with, at most max_open.
	Limit, Best int
	Breaker     State

	BulkInUse   int // of InUse: by bulk clients
	BulkWaiting int // of Waiting
	Operator    Operator
	Health      Health
	LastError   string // of a dial, a health check, or a connection lost; empty: none yet
	LastErrorAt time.Time

	Acquired          uint64        // connections lent
	Waits             uint64        // Acquires that had to dial or wait
	WaitTime          time.Duration // of all of them together
	TimedOut          uint64
	QueueFull         uint64
	RejectedByBreaker uint64
	Dials             uint64
	DialTime          time.Duration // of the successful ones
	Resumed           uint64        // of Dials: took up an earlier TLS session
	DialErrors        uint64
	NoGreeting        uint64 // of DialErrors: accepted, never greeted
	BreakerOpened     uint64
	HealthChecks      uint64
	HealthErrors      uint64                 // of HealthChecks: failed
	Closed            map[CloseReason]uint64 // connections by reason
	Causes            [Causes]uint64         // of DialErrors, by DialCause
	Connects          histogram.Counts       // of Dials: until the connection stood
	Logins            histogram.Counts       // of Dials: from there to the end of the login
	PeerExpiry        time.Time              // of the backend's certificate; zero: not seen one
	OwnExpiry         time.Time              // of the certificate that it is shown; zero: none
}

// CloseReasons returns all of them.
func CloseReasons() []CloseReason {
	return []CloseReason{
		closedIdle, closedLifetime, closedCommands, closedSurplus, closedUsedUp, closedAbandoned, closedUnclean,
		ClosedLost, closedDead, closedStray, closedEvicted, closedRetired,
	}
}

// Stat returns a snapshot. Its counters go on from those of the pool that this
// one has replaced.
func (p *Pool) Stat() Stat {
	s := p.own()
	p.mu.Lock()
	before, replaced := p.before, p.replaced
	p.mu.Unlock()
	s.add(&before)
	for _, old := range replaced {
		more := old.own()
		s.add(&more)
	}
	return s
}

// add adds the counters of o. The map of s is its own.
func (s *Stat) add(o *Stat) {
	if s.Closed == nil {
		s.Closed = make(map[CloseReason]uint64)
	}
	for why, n := range o.Closed {
		s.Closed[why] += n
	}
	for i, n := range o.Causes {
		s.Causes[i] += n
	}
	s.Acquired += o.Acquired
	s.Waits += o.Waits
	s.WaitTime += o.WaitTime
	s.TimedOut += o.TimedOut
	s.QueueFull += o.QueueFull
	s.RejectedByBreaker += o.RejectedByBreaker
	s.Dials += o.Dials
	s.DialTime += o.DialTime
	s.Resumed += o.Resumed
	s.DialErrors += o.DialErrors
	s.NoGreeting += o.NoGreeting
	s.BreakerOpened += o.BreakerOpened
	s.HealthChecks += o.HealthChecks
	s.HealthErrors += o.HealthErrors
	s.Connects.Add(&o.Connects)
	s.Logins.Add(&o.Logins)
	if s.LastErrorAt.Before(o.LastErrorAt) {
		s.LastError, s.LastErrorAt = o.LastError, o.LastErrorAt
	}
}

// own is Stat without what the pools before this one have counted.
func (p *Pool) own() Stat {
	defer p.breaker.report()
	var certificate time.Time
	if p.dialer != nil && p.dialer.tls != nil {
		certificate = p.dialer.tls.Expiry()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stat
	s.OwnExpiry = certificate
	s.Acquired = p.acquired.Load()
	s.Open = len(p.all)
	s.Idle = len(p.idle)
	s.InUse = p.inUse()
	s.Limit, s.Best = p.concurrency.limit(), p.concurrency.best()
	s.Dialing = p.dialing
	s.Waiting = p.waiting()
	s.BulkInUse = p.bulkInUse
	s.BulkWaiting = p.bulk.length
	s.Breaker = p.breaker.state()
	s.Operator, s.Health = p.Operator(), p.Health()
	s.BreakerOpened = p.breaker.timesOpened()
	s.Closed = maps.Clone(p.stat.Closed)
	if p.dialer != nil {
		s.Connects, s.Logins = p.dialer.connects.Counts(), p.dialer.logins.Counts()
		if at := p.dialer.peerExpiry.Load(); at != 0 {
			s.PeerExpiry = time.Unix(at, 0)
		}
	}
	return s
}

// fail keeps an error for Stat. The caller holds mu.
func (p *Pool) fail(err error) { p.stat.LastError, p.stat.LastErrorAt = err.Error(), time.Now() }
