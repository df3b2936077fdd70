package pool

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

const (
	// firstCheck is the longest time until the first check.
	firstCheck = time.Second
	// checkPatience is how long a check stays in the queue of a backend that
	// does not greet. Each that gave up earlier would leave behind a
	// connection that the backend has to take up one day, so that a stopped
	// one would get a heap of them.
	checkPatience = time.Minute
)

// checker is the health checks of one backend. It has one connection at most,
// which does not count in max_open: a pool that is used up says nothing about
// health, and a check shall not wait for commands.
type checker struct {
	pool     *Pool
	settings config.HealthCheck
	dial     DialFunc
	attempt  *attempt // the one that has not ended yet, or nil
	good     int      // checks in a row
	bad      int
}

// attempt is one connection of a checker.
type attempt struct {
	loggedIn atomic.Bool
	ended    chan error // buffered
}

func newChecker(p *Pool, b config.Backend, dial DialFunc) *checker {
	if dial == nil {
		b.Timeouts.Connect = b.HealthCheck.Timeout
		b.Timeouts.Handshake = 0 // the attempt has a deadline of its own
		dial = newDialer(b, hclog.NewNullLogger()).dial
	}
	return &checker{pool: p, settings: b.HealthCheck, dial: dial}
}

// run checks until the pool is closed.
func (k *checker) run() {
	timer := time.NewTimer(rand.N(min(firstCheck, k.settings.Interval)))
	defer timer.Stop()
	for {
		select {
		case <-k.pool.ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(jittered(k.settings.Interval))
		k.check()
	}
}

// check waits for an attempt, the last one if that has not ended yet.
func (k *checker) check() {
	start := time.Now()
	if k.attempt == nil {
		k.attempt = &attempt{ended: make(chan error, 1)}
		a := k.attempt
		k.pool.wg.Go(func() { a.ended <- k.try(a) })
	}
	timeout := time.NewTimer(k.settings.Timeout)
	defer timeout.Stop()
	var err error
	select {
	case err = <-k.attempt.ended:
		k.attempt = nil
	case <-timeout.C:
		if k.attempt.loggedIn.Load() {
			err = fmt.Errorf("no answer to %q for %s within %s", healthCommand.Name, k.settings.User, k.settings.Timeout)
			break
		}
		if k.pool.answeredSince(start) {
			return // it has no process left, but those that it has work
		}
		err = fmt.Errorf("no greeting and login within %s", k.settings.Timeout)
	case <-k.pool.ctx.Done():
	}
	if k.pool.ctx.Err() == nil {
		k.note(err)
	}
}

// healthCommand opens the INBOX of a user: the user database and the storage
// have a part in it, and next to nothing is read.
var healthCommand = doveadm.Command{Name: "mailbox status", Args: []string{"messages", "INBOX"}}

// try connects, logs in and runs the command if there is a user for it.
func (k *checker) try(a *attempt) error {
	ctx, cancel := context.WithTimeout(k.pool.ctx, max(checkPatience, k.settings.Timeout))
	defer cancel()
	client, err := k.dial(ctx)
	if err != nil {
		return err
	}
	a.loggedIn.Store(true)
	if k.settings.User == "" {
		return client.Close()
	}
	// Close would wait for a backend that does not read.
	stop := context.AfterFunc(ctx, func() { cut(client) })
	defer cut(client)
	defer stop()
	cmd := healthCommand
	cmd.User = k.settings.User
	reply, err := client.Do(ctx, &cmd)
	if err == nil {
		err = reply.Close()
	}
	if err != nil {
		return fmt.Errorf("%q for %s: %w", cmd.Name, cmd.User, err)
	}
	return nil
}

// note counts a result and says so if it changes the state.
func (k *checker) note(err error) {
	p := k.pool
	p.mu.Lock()
	p.stat.HealthChecks++
	if err != nil {
		p.stat.HealthErrors++
		p.fail(err)
	}
	p.mu.Unlock()
	if err != nil {
		k.good, k.bad = 0, k.bad+1
		if p.Health() != Failing && k.bad >= k.settings.Fall {
			p.setHealth(Failing)
			p.log.Warn("health checks fail: the backend is used only if no other of its shard can be", "error", err, "checks", k.bad)
		}
		return
	}
	k.good, k.bad = k.good+1, 0
	switch p.Health() {
	case Unknown:
		p.setHealth(Up)
		p.log.Debug("health check works")
	case Failing:
		if k.good >= k.settings.Rise {
			p.setHealth(Up)
			p.log.Info("health checks work again", "checks", k.good)
		}
	}
}
