package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Scope is what a pause is for: one of the two names, or everything.
type Scope struct{ Shard, Backend string }

func (s Scope) String() string {
	switch {
	case s.Shard != "":
		return "shard " + s.Shard
	case s.Backend != "":
		return "backend " + s.Backend
	}
	return "everything"
}

// Pause says how new commands are held.
type Pause struct {
	Scope      Scope
	For        time.Duration // then the pause ends by itself
	Hold       time.Duration // of one command, which gets a temporary failure then
	MaxWaiting int           // commands that may be held at the same time
	By         string        // who wants it
}

// PauseStatus is a pause that there is.
type PauseStatus struct {
	Pause
	Since, Until time.Time
	Waiting      int    // commands that are held now
	Held         uint64 // in all
	Refused      uint64 // of them, and of those above MaxWaiting: got a failure
}

var (
	// ErrNoPause says that there is no pause to end.
	ErrNoPause = errors.New("there is no pause")
	// ErrNoShard says that the configuration has no shard of a name.
	ErrNoShard = errors.New("no shard has this name")
)

// pause is a Pause at work.
type pause struct {
	Pause
	since   time.Time
	over    chan struct{}
	timer   *time.Timer
	waiting atomic.Int64
	held    atomic.Uint64
	refused atomic.Uint64
}

// pauses are those that there are. The map is replaced, not changed; without
// a pause it is nil, so that a command looks at one pointer.
type pauses = atomic.Pointer[map[Scope]*pause]

// Pause holds new commands, until Unpause or the end of its time. What runs goes on. A
// second one for the same replaces the first, whose commands stay held.
func (p *Proxy) Pause(want Pause) error {
	snap := p.snapshot.Load()
	if name := want.Scope.Shard; name != "" && snap.shards[name] == nil {
		return fmt.Errorf("%w: %q", ErrNoShard, name)
	}
	if name := want.Scope.Backend; name != "" && snap.pools[name] == nil {
		return fmt.Errorf("%w: %q", ErrNoBackend, name)
	}
	n := &pause{Pause: want, since: time.Now(), over: make(chan struct{})}
	if !p.beginPause(n) {
		return errShuttingDown
	}
	p.log.Warn("new commands are held", "paused", want.Scope.String(), "for", want.For.String(), "by", want.By)
	return nil
}

// beginPause puts n to work, unless the proxy ends.
func (p *Proxy) beginPause(n *pause) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return false
	}
	all := p.clonePauses()
	was := all[n.Scope]
	all[n.Scope] = n
	n.timer = time.AfterFunc(n.For, func() {
		if p.endPause(n.Scope, n) {
			p.log.Warn("a pause has ended by itself, nobody unpaused", "paused", n.Scope.String(), "by", n.By, "held", n.held.Load())
		}
	})
	p.paused.Store(&all)
	if was != nil {
		was.end()
	}
	return true
}

// Unpause ends a pause and lets the commands go on that it held.
func (p *Proxy) Unpause(scope Scope, by string) error {
	if !p.endPause(scope, nil) {
		return fmt.Errorf("%w of %s", ErrNoPause, scope)
	}
	p.log.Warn("new commands are held no more", "paused", scope.String(), "by", by)
	return nil
}

// endPause ends the pause of a scope, if it is which, or whichever if that is
// nil. It reports whether there was one.
func (p *Proxy) endPause(scope Scope, which *pause) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.clonePauses()
	was := all[scope]
	if was == nil || which != nil && was != which {
		return false
	}
	delete(all, scope)
	if len(all) == 0 {
		p.paused.Store(nil)
	} else {
		p.paused.Store(&all)
	}
	was.end()
	return true
}

// endPauses ends all of them.
func (p *Proxy) endPauses() {
	for _, s := range p.Pauses() {
		p.endPause(s.Scope, nil)
	}
}

func (n *pause) end() {
	n.timer.Stop()
	close(n.over)
}

// clonePauses returns a copy to be changed. The caller holds mu.
func (p *Proxy) clonePauses() map[Scope]*pause {
	if all := p.paused.Load(); all != nil {
		return maps.Clone(*all)
	}
	return make(map[Scope]*pause)
}

// Pauses returns the pauses that there are, the oldest first.
func (p *Proxy) Pauses() []PauseStatus {
	list := []PauseStatus{}
	all := p.paused.Load()
	if all == nil {
		return list
	}
	for _, n := range *all {
		list = append(list, PauseStatus{
			Pause: n.Pause, Since: n.since, Until: n.since.Add(n.For),
			Waiting: int(n.waiting.Load()), Held: n.held.Load(), Refused: n.refused.Load(),
		})
	}
	slices.SortFunc(list, func(a, b PauseStatus) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Scope.String(), b.Scope.String()))
	})
	return list
}

// pauseOf returns the pause that holds a command for the first of backends.
func (p *Proxy) pauseOf(shard string, backends []*backend) *pause {
	all := p.paused.Load()
	if all == nil {
		return nil
	}
	for _, scope := range []Scope{{}, {Shard: shard}, {Backend: backends[0].Name()}} {
		if n := (*all)[scope]; n != nil {
			return n
		}
	}
	return nil
}

// whenNotPaused returns the backends of a shard in their order for the command,
// as soon as no pause holds it.
func (t *task) whenNotPaused(s *shard) ([]*backend, *refusal) {
	p := t.session.proxy
	backends := s.inOrder(t.cmd.User)
	n := p.pauseOf(t.res.shard, backends)
	if n == nil {
		return backends, nil
	}
	begin := time.Now()
	t.isHeld(true)
	defer func() {
		t.isHeld(false)
		t.res.wait += time.Since(begin)
	}()
	for ; n != nil; n = p.pauseOf(t.res.shard, backends) {
		if refused := n.wait(t, begin); refused != nil {
			return nil, refused
		}
		backends = s.inOrder(t.cmd.User)
	}
	return backends, nil
}

// wait returns when the pause is over, or why the command is not held any
// longer. begin is when the first pause began to hold it.
func (n *pause) wait(t *task, begin time.Time) *refusal {
	refused := func(why string) *refusal {
		n.refused.Add(1)
		return &refusal{paused, doveadm.CodeTempFail, fmt.Sprintf("an operator paused %s: %s", n.Scope, why)}
	}
	defer n.waiting.Add(-1)
	if n.waiting.Add(1) > int64(n.MaxWaiting) {
		return refused(fmt.Sprintf("%d commands are held already, no more are", n.MaxWaiting))
	}
	n.held.Add(1)
	timer := time.NewTimer(n.Hold - time.Since(begin))
	defer timer.Stop()
	select {
	case <-n.over:
		return nil
	case <-timer.C:
		return refused(fmt.Sprintf("the command was held for %s, which is all that the pause allows", n.Hold))
	case <-waits{t}.Done():
	}
	if by := t.wasKilled(); by != nil {
		return &refusal{ended, doveadm.CodeTempFail, by.Error()}
	}
	return &refusal{clientGone, doveadm.CodeTempFail, fmt.Sprintf("the session ended while the command was held: %v", context.Cause(waits{t}))}
}

// isHeld publishes that a pause holds the task, or no longer.
func (t *task) isHeld(held bool) {
	t.session.mu.Lock()
	defer t.session.mu.Unlock()
	t.live.shard, t.live.phase = t.res.shard, PhaseWaiting
	if held {
		t.live.phase = PhaseHeld
	}
}
