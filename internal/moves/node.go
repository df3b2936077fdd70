package moves

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// How a member keeps in touch. The rest of its times is configured.
const (
	statementTimeout = 5 * time.Second       // of one piece of work at the database
	fastPoll         = 20 * time.Millisecond // while a move is prepared or holds a user
	moveLease        = 5 * time.Second       // after which a move is over whose mover is silent
	burial           = 5 * time.Second       // lease of a member whose process is found dead
	reapEvery        = time.Second           // look for moves that are over, while there are any
	listenPause      = time.Second           // until the next try to listen
	purgeEvery       = time.Hour
	purgeAge         = 24 * time.Hour
)

// leaseMargin is what a member takes off its lease, so that it ends for the
// member before it does for the others, if clocks are not quite of one speed.
func leaseMargin(lease time.Duration) time.Duration { return lease / 10 }

// Node is a member: one proxy. All methods may be called from any goroutine.
type Node struct {
	Gate *Gate

	id, name string
	config   config.Moves // of the start
	settings atomic.Pointer[config.Moves]
	store    *store
	log      hclog.Logger
	cut      func(why error)

	life   context.Context // ends with Close
	end    context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // the loop has something to do
	expiry *time.Timer   // fires when the lease ends
	stats  counts

	mu         sync.Mutex // guards what follows
	moving     context.Context
	stopMoving context.CancelCauseFunc
	stopped    bool
	movers     sync.WaitGroup

	listening atomic.Bool
	reachable atomic.Pointer[error] // what the last try ended with

	// Of the loop.
	pulse   *pulse // nil: not needed
	joined  bool
	applied int64 // revision
	answers map[string]*pending
	renewAt time.Time
	reapAt  time.Time
	purgeAt time.Time
}

// counts are since the start.
type counts struct {
	moved, failed, abandoned atomic.Int64
	longest                  atomic.Int64 // hold of a move made here, nanoseconds
}

// pending is a move that members have to answer.
type pending struct {
	move, phase string
	answered    bool
}

// Options are what a Node gets from outside its configuration.
type Options struct {
	Log hclog.Logger
	// Cut ends the commands that run: the lease has ended, so that a move may
	// go on without waiting for them. It does not wait. It may be nil.
	Cut func(why error)
}

// Start makes a member. If the database cannot be reached it tries again and
// again, and lets no command begin until then.
func Start(c config.Moves, o Options) (*Node, error) {
	db, d, listen, err := open(c)
	if err != nil {
		return nil, err
	}
	if c.Driver == config.MovesSQLite {
		// Without it there is nothing to try again.
		if _, err := os.Stat(filepath.Dir(c.Path)); err != nil {
			db.Close()
			return nil, fmt.Errorf("moves.path: %w: make the directory, or write the path of a file in one that is there", err)
		}
	}
	n := &Node{
		Gate: newGate(), id: rand.Text(), name: c.Name, config: c, store: &store{db, d, listen}, log: o.Log, cut: o.Cut,
		wake: make(chan struct{}, 1), answers: make(map[string]*pending),
	}
	if n.name == "" {
		n.name, _ = os.Hostname()
	}
	n.name = fmt.Sprintf("%s/%d", n.name, os.Getpid())
	if !n.leased() {
		if n.pulse, err = startPulse(c.Path+".members", n.id); err != nil {
			db.Close()
			return nil, fmt.Errorf("moves.path: %w", err)
		}
		n.Gate.lasting.Store(true)
	}
	n.Configure(c)
	n.life, n.end = context.WithCancel(context.Background())
	n.moving, n.stopMoving = context.WithCancelCause(context.Background())
	n.expiry = time.AfterFunc(time.Hour, n.lapse)
	n.expiry.Stop()
	// Whoever asks first shall find the state.
	n.step()
	n.wg.Go(n.run)
	if listen != nil {
		n.wg.Go(n.keepListening)
	}
	return n, nil
}

// leased reports whether members have leases that end by time.
func (n *Node) leased() bool { return n.config.Driver != config.MovesSQLite }

// lease is how long a member stays one without a word.
func (n *Node) lease() time.Duration {
	if n.leased() {
		return n.config.Lease
	}
	return endless
}

// endless is the lease of members that have the lock of a file instead.
const endless = 50 * 365 * 24 * time.Hour

// Configure takes over the settings that may change while the node runs. Where
// the database is, and the lease, are not among them.
func (n *Node) Configure(c config.Moves) {
	n.settings.Store(&c)
	n.Gate.maxWaiting.Store(int64(c.MaxWaiting))
	n.Gate.holdTimeout.Store(int64(c.HoldTimeout))
}

// Serves reports whether the node is one as c says, but for what Configure takes
// over.
func (n *Node) Serves(c config.Moves) bool {
	was := n.config
	return was.Driver == c.Driver && was.Path == c.Path && was.DSN.Equal(c.DSN) && was.Name == c.Name && was.Lease == c.Lease
}

// StopMoves has the moves that this member makes rolled back, and makes no
// others. It returns when that is done.
func (n *Node) StopMoves() {
	n.mu.Lock()
	n.stopped = true
	n.mu.Unlock()
	n.stopMoving(ErrStopping)
	n.movers.Wait()
}

// ErrStopping says that the proxy shuts down.
var ErrStopping = errors.New("the proxy is shutting down")

// Close ends the membership. No command may run any more.
func (n *Node) Close() {
	n.StopMoves()
	n.end()
	n.wg.Wait()
	n.expiry.Stop()
	if n.joined {
		ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
		defer cancel()
		if err := n.store.leave(ctx, n.id); err != nil {
			n.log.Warn("this proxy could not say that it is gone: moves of users wait until its lease ends", "error", err)
			n.pulse = nil // others find its file, without the lock of this process
		}
	}
	if n.pulse != nil {
		n.pulse.stop()
	}
	n.store.db.Close()
}

// run keeps in touch with the database.
func (n *Node) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-n.life.Done():
			return
		case <-timer.C:
		case <-n.wake:
		case <-n.Gate.quiet:
		}
		n.step()
		timer.Reset(n.pause())
	}
}

// pause is how long there is nothing to do.
func (n *Node) pause() time.Duration {
	if n.joined && len(n.answers) > 0 {
		return fastPoll
	}
	poll := n.settings.Load().Poll
	if n.listening.Load() {
		poll = max(poll, time.Second)
	}
	return poll
}

// nudge has the loop look into the database now.
func (n *Node) nudge() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// step does what is to be done now.
func (n *Node) step() {
	ctx, cancel := context.WithTimeout(n.life, statementTimeout)
	defer cancel()
	err := n.work(ctx)
	if n.life.Err() != nil {
		return
	}
	was := n.reachable.Swap(&err)
	switch {
	case err != nil && (was == nil || *was == nil):
		n.log.Error("the database of moved users cannot be used", "error", err, "commands_refused", n.Gate.Fresh() != nil)
	case err == nil && was != nil && *was != nil:
		n.log.Info("the database of moved users can be used again")
	}
}

func (n *Node) work(ctx context.Context) error {
	now := time.Now()
	if n.joined && !now.Before(n.renewAt) {
		if err := n.renew(ctx); err != nil {
			return err
		}
	}
	if !n.joined {
		if err := n.join(ctx); err != nil {
			return err
		}
	} else if err := n.sync(ctx); err != nil {
		return err
	}
	if err := n.answer(ctx); err != nil {
		return err
	}
	if !now.Before(n.reapAt) {
		n.reapAt = now.Add(reapEvery)
		if err := n.reap(ctx); err != nil {
			return err
		}
	}
	if !now.Before(n.purgeAt) {
		n.purgeAt = now.Add(purgeEvery)
		return n.store.purge(ctx, purgeAge)
	}
	return nil
}

// join becomes a member and then reads everything: in this order, so that a
// switch that is not read waits for this member's answer.
func (n *Node) join(ctx context.Context) error {
	if err := n.store.prepare(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := n.store.join(ctx, n.id, n.name, n.lease()); err != nil {
		return err
	}
	if err := n.load(ctx); err != nil {
		return err
	}
	n.joined = true
	n.renewed(start)
	return nil
}

// renew renews the lease. A lease that has ended meanwhile may have been the end
// of a hold, so everything is read again before the next one.
func (n *Node) renew(ctx context.Context) error {
	start := time.Now()
	ok, err := n.store.renew(ctx, n.id, n.lease())
	if err != nil {
		return err
	}
	if !ok || n.Gate.Fresh() != nil {
		n.joined = false
		n.log.Warn("the lease of this proxy in the database of moved users had ended: it begins anew")
		return nil
	}
	n.renewed(start)
	return nil
}

func (n *Node) renewed(start time.Time) {
	lease := n.lease()
	until := start.Add(lease - leaseMargin(lease))
	n.Gate.fresh(until)
	if n.leased() {
		n.expiry.Reset(time.Until(until))
	}
	n.renewAt = start.Add(min(lease/5, 10*time.Second))
}

// lapse ends what runs when the lease has ended.
func (n *Node) lapse() {
	if n.Gate.Fresh() == nil {
		return
	}
	n.log.Error("commands are refused, and those that run are cut: the lease of this proxy in the database of moved users has ended")
	if n.cut != nil {
		n.cut(ErrStale)
	}
}

// load reads everything.
func (n *Node) load(ctx context.Context) error {
	revision, _, err := n.store.revisions(ctx)
	if err != nil {
		return err
	}
	rows, err := n.store.after(ctx, -1)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(rows))
	for _, r := range rows {
		there[r.user] = true
		n.apply(r)
	}
	for _, user := range n.Gate.known() {
		if !there[user] {
			n.apply(row{user: user})
		}
	}
	n.applied = revision
	return nil
}

// sync reads what has changed.
func (n *Node) sync(ctx context.Context) error {
	revision, purged, err := n.store.revisions(ctx)
	switch {
	case err != nil:
		return err
	case revision == n.applied:
		return nil
	case revision < n.applied || n.applied < purged:
		// The database was restored, or this member has slept.
		return n.load(ctx)
	}
	rows, err := n.store.after(ctx, n.applied)
	if err != nil {
		return err
	}
	for _, r := range rows {
		n.apply(r)
	}
	n.applied = revision
	return nil
}

func (n *Node) apply(r row) {
	n.Gate.apply(r)
	m := r.move
	if m.phase != phasePrepare && m.phase != phaseHold {
		delete(n.answers, r.user)
		return
	}
	if p := n.answers[r.user]; p == nil || p.move != m.id || p.phase != m.phase {
		n.answers[r.user] = &pending{move: m.id, phase: m.phase}
	}
}

// answer answers the moves that wait for it, as far as it is true.
func (n *Node) answer(ctx context.Context) error {
	for user, p := range n.answers {
		if p.answered || p.phase == phaseHold && !n.Gate.isQuiet(user, p.move) {
			continue
		}
		if err := n.store.answer(ctx, p.move, n.id, p.phase); err != nil {
			return err
		}
		p.answered = true
	}
	return nil
}

// reap ends moves whose mover is silent, and the leases of members that are
// known to be dead.
func (n *Node) reap(ctx context.Context) error {
	if n.pulse != nil {
		err := n.pulse.dead(func(id string) error { return n.store.bury(ctx, id, burial) })
		if err != nil {
			return err
		}
	}
	rows, err := n.store.abandoned(ctx)
	if err != nil {
		return err
	}
	for _, r := range rows {
		ended, err := n.store.endIf(ctx, r.user, r.move.id, ` AND move_until_ms <= {now}`)
		if err != nil {
			return err
		}
		if ended {
			n.stats.abandoned.Add(1)
			n.log.Warn("a move was rolled back, because who made it is silent", "user", r.user, "move", r.move.id, "by", r.move.moverName, "to", r.move.to, "phase", r.move.phase)
		}
	}
	if len(rows) > 0 {
		return n.sync(ctx)
	}
	return nil
}

// keepListening has notifications wake the loop.
func (n *Node) keepListening() {
	for {
		err := n.store.listen(n.life, func() { n.listening.Store(true); n.nudge() }, n.nudge)
		n.listening.Store(false)
		n.nudge()
		if n.life.Err() == nil {
			n.log.Debug("no notifications of moves for now: looking often instead", "error", err)
		}
		select {
		case <-n.life.Done():
			return
		case <-time.After(listenPause):
		}
	}
}
