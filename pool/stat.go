package pool

import (
	"maps"
	"time"
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
}

// Stat returns a snapshot.
func (p *Pool) Stat() Stat {
	defer p.breaker.report()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stat
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
	return s
}

// fail keeps an error for Stat. The caller holds mu.
func (p *Pool) fail(err error) { p.stat.LastError, p.stat.LastErrorAt = err.Error(), time.Now() }
