// Package admin is the control of a running proxy: HTTP with JSON on a UNIX
// socket, or for reading on a loopback port, and a client for it.
//
//	GET  /live                       does the process work? 200 or 503
//	GET  /ready                      does it accept sessions? 200 or 503
//	GET  /v1/status                  Status
//	GET  /v1/backends                {"backends": [Backend, ...]}
//	POST /v1/backends/{name}/state   {"state": "active" | "draining" | "down"}: Backend
//
// Every answer is JSON; one that is no success is {"error": "..."}. Below /v1
// fields are added and never taken away or given another meaning.
package admin

import (
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// Status is the process as a whole.
type Status struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
	Config    string    `json:"config"` // the path
	Ready     bool      `json:"ready"`
	Sessions  int       `json:"sessions"`
	Backends  int       `json:"backends"`
	Available int       `json:"available"` // of Backends: nothing speaks against them
	Reload    Reload    `json:"reload"`
	Failures  []Failure `json:"failures"` // the last one first
}

// Backend is one backend. Its three states are told apart: what an operator
// wants, what the health checks see, what the circuit breaker does.
type Backend struct {
	Shard   string `json:"shard"`
	Name    string `json:"name"`
	Address string `json:"address"`
	Standby bool   `json:"standby"`

	Operator      pool.Operator `json:"operator"`                 // active, draining, down
	OperatorSince *time.Time    `json:"operator_since,omitempty"` // unless it is active
	Health        pool.Health   `json:"health"`                   // unknown, up, failing
	Breaker       string        `json:"breaker"`                  // closed, open, half-open

	InUse   int `json:"in_use"`
	Idle    int `json:"idle"`
	Open    int `json:"open"` // in use and idle
	Dialing int `json:"dialing"`
	MaxOpen int `json:"max_open"`
	Waiting int `json:"waiting"` // commands

	// Since the start.
	Commands      uint64 `json:"commands"`
	DialErrors    uint64 `json:"dial_errors"`
	NoGreeting    uint64 `json:"no_greeting"` // of dial_errors
	Lost          uint64 `json:"lost"`        // connections, in a command
	HealthErrors  uint64 `json:"health_errors"`
	BreakerOpened uint64 `json:"breaker_opened"`
	// DialCauses are dial_errors by the step: name, connect, tls, no-process,
	// greeting, login, other.
	DialCauses     map[string]uint64 `json:"dial_causes,omitempty"`
	RefusedBreaker uint64            `json:"refused_breaker"` // commands: the breaker was open
	RefusedQueue   uint64            `json:"refused_queue"`   // too many waited
	RefusedTimeout uint64            `json:"refused_timeout"` // no connection became free in time
	Retries        uint64            `json:"retries"`         // commands sent again
	Failovers      uint64            `json:"failovers"`       // commands that another backend of the shard ran instead
	Referrals      uint64            `json:"referrals"`       // commands that it sent elsewhere

	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

// Failures are all of them together.
func (b *Backend) Failures() uint64 { return b.DialErrors + b.Lost + b.HealthErrors }

// Backends is the answer with all of them, shard by shard.
type Backends struct {
	Backends []Backend `json:"backends"`
}

type stateRequest struct {
	State *pool.Operator `json:"state"`
}

// problem is the answer that is no success.
type problem struct {
	Error string `json:"error"`
}

func view(b *proxy.BackendStatus) Backend {
	s := b.Stat
	return Backend{
		Shard: b.Shard, Name: b.Name, Address: b.Address, Standby: b.Standby,
		Operator: s.Operator, OperatorSince: optional(b.Since), Health: s.Health, Breaker: s.Breaker.String(),
		InUse: s.InUse, Idle: s.Idle, Open: s.Open, Dialing: s.Dialing, MaxOpen: b.MaxOpen, Waiting: s.Waiting,
		Commands: s.Acquired, DialErrors: s.DialErrors, NoGreeting: s.NoGreeting, Lost: s.Closed[pool.ClosedLost],
		HealthErrors: s.HealthErrors, BreakerOpened: s.BreakerOpened,
		DialCauses: dialCauses(&s), RefusedBreaker: s.RejectedByBreaker, RefusedQueue: s.QueueFull, RefusedTimeout: s.TimedOut,
		Retries: b.Retries, Failovers: b.Failovers, Referrals: b.Referrals,
		LastError: s.LastError, LastErrorAt: optional(s.LastErrorAt),
	}
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}
