// Package pool keeps the authenticated connections to one backend: how many
// there are, who waits for one, which may be used again, and whether the
// backend is asked at all (its circuit breaker, its health checks, and what an
// operator wants).
//
//	conn, err := p.Acquire(ctx, pool.Shared)
//	if err != nil { ... } // nothing was sent
//	defer func() { conn.Release(outcome) }()
//
// Every open connection is one process of the backend, out of 100 that it
// shares with its own administrators. So connections are few, busy ones are
// preferred to new ones, and idle ones do not last.
//
// What holds at any time:
//
//   - At most max_open connections are being dialled, open or being closed: a
//     dial starts after the connection whose place it takes has been closed
//     here. One more belongs to the health checks. The backend may notice that end later than the new beginning, and
//     a command that was abandoned keeps its process until it is done.
//   - No more connections are lent at the same time than the backend answers
//     best with, as far as that has been measured.
//   - A connection has one owner: the pool, or the one Conn that Acquire
//     returned, until its Release.
//   - Clients take turns, and the commands of one client are served in the
//     order in which they came. Interactive clients come before bulk clients,
//     which leave them connections. Nobody waits while one more may be lent and there is a
//     connection that he may have, or room for one and a backend that greets.
//   - A command asks the breaker once, before anything else, and what became
//     of it is told once. Those who wait when it opens fail at once. A dial
//     speaks for the command that waits for it, and for itself if that left.
package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// The errors of Acquire. With each of them nothing was sent to the backend.
// Other errors are those of a dial, and the cause of a context that ended.
var (
	ErrClosed      = errors.New("pool is closed")
	ErrBreakerOpen = errors.New("circuit breaker is open")
	ErrQueueFull   = errors.New("too many commands wait for a connection")
	ErrTimeout     = errors.New("no connection became free in time")
)

// Use says what a connection is wanted for.
type Use int

const (
	// Shared takes any connection.
	Shared Use = iota
	// Fresh takes only a connection on which no command has run. Commands that
	// are not for a mail user need one: on Dovecot 2.3 they would run with the
	// rights of the last user, and their output may come behind their status.
	Fresh
)

// Pool is the connections to one backend. All methods may be called from any
// goroutine.
type Pool struct {
	name    string
	address string
	limits  config.Pool
	dial    DialFunc
	dialer  *dialer // behind dial; nil where dial is somebody else's
	log     hclog.Logger
	breaker *breaker

	ctx    context.Context // of dials and maintenance; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // dials and maintenance
	wake   chan struct{}  // tells maintenance that sweepAt is earlier than it was

	acquired atomic.Uint64
	born     time.Time
	patience time.Duration // with a backend that answers nobody, before it is taken for sick
	answered atomic.Int64  // when the backend last said something, in ns since born

	busy     atomic.Int64  // commands that have a connection or wait for one
	operator atomic.Int32  // an Operator; changes under mu
	health   atomic.Int32  // a Health
	back     atomic.Int64  // when the backend came back, in ns since born; 0: never
	severed  atomic.Uint64 // connections of epochs before this were cut by Down

	// mu guards what follows. Nothing blocks under it, and the only lock taken
	// under it is the breaker's. Who changed something lets go of it by unlock.
	mu          sync.Mutex
	closed      bool
	drained     chan struct{} // closed when the last connection is gone after Close
	all         map[*link]struct{}
	idle        []*link // the most recently used is the last
	dialing     int
	closing     int       // forgotten, but perhaps not closed yet
	garbage     []*link   // those of closing that unlock is to close
	interactive turns     // clients that wait
	bulk        turns     // bulk clients that wait
	spare       []*waiter // for those who will wait
	bulkInUse   int       // connections that bulk clients have
	concurrency *concurrency
	passed      int       // connections lent since a bulk client could have had one
	epoch       uint64    // connections of an older epoch are not used again
	full        error     // why the last dial found no room at a backend that answers others, or no process; nil: it did
	freed       int       // while full: processes that it got back from here since
	pauseUntil  time.Time // while full: no other dial before
	sweepAt     time.Time // of the next sweep; zero: none is needed
	stat        Stat      // its counters
	before      Stat      // counters of pools that this one has replaced, and that are drained
	replaced    []*Pool   // those that are not
}

// New returns the pool of a backend. Nothing is dialled before it is needed,
// unless min_idle asks for it. A nil dial uses Dial.
func New(b config.Backend, dial DialFunc, log hclog.Logger) *Pool {
	log = log.With("backend", b.Name)
	checkDial := dial
	var own *dialer
	if b.Pool.MaxBulk == 0 {
		b.Pool.MaxBulk = b.Pool.MaxOpen
	}
	if dial == nil {
		own = newDialer(b, log)
		dial = own.dial
	}
	p := &Pool{
		name:     b.Name,
		address:  b.Address,
		limits:   b.Pool,
		dial:     dial,
		dialer:   own,
		log:      log,
		breaker:  newBreaker(b.Name, b.Breaker, log),
		wake:     make(chan struct{}, 1),
		born:     time.Now(),
		patience: max(b.Timeouts.Handshake, fullPause),
		drained:  make(chan struct{}),
		all:      make(map[*link]struct{}),
		stat:     Stat{Closed: make(map[CloseReason]uint64)},
	}
	least := b.Pool.MinActive
	if !b.Pool.Adaptive {
		least = b.Pool.MaxOpen
	}
	p.concurrency = newConcurrency(least, b.Pool.MaxOpen)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.maintain)
	if b.HealthCheck.Interval > 0 {
		p.wg.Go(newChecker(p, b, checkDial).run)
	}
	return p
}

// Name returns the backend's name.
func (p *Pool) Name() string { return p.name }

// Acquire is AcquireFor for the one client that has no name.
func (p *Pool) Acquire(ctx context.Context, use Use) (*Conn, error) {
	return p.AcquireFor(ctx, use, Client{})
}

// AcquireFor returns a connection for one command of a client; the caller
// releases it. It waits at most acquire_timeout, and less if ctx ends.
func (p *Pool) AcquireFor(ctx context.Context, use Use, client Client) (*Conn, error) {
	c := new(Conn)
	if err := p.AcquireInto(ctx, c, use, client); err != nil {
		return nil, err
	}
	return c, nil
}

// AcquireInto is AcquireFor that takes the place of the Conn from the caller,
// who can use it again after its Release.
func (p *Pool) AcquireInto(ctx context.Context, c *Conn, use Use, client Client) error {
	if p.Operator() != Active {
		return ErrOutOfService // whatever the breaker says
	}
	verdict, err := p.breaker.allow()
	p.breaker.report()
	if err != nil {
		p.mu.Lock()
		p.stat.RejectedByBreaker++
		p.mu.Unlock()
		return err
	}
	*c = Conn{pool: p, verdict: verdict, bulk: client.Bulk}
	p.busy.Add(1)
	if err := p.provide(ctx, c, use, client); err != nil {
		p.busy.Add(-1)
		c.tell(errNoVerdict)
		p.breaker.report()
		return err
	}
	p.acquired.Add(1)
	return nil
}

// provide gives c an idle connection or else one that it waits for. Those
// that were used before are looked at.
func (p *Pool) provide(ctx context.Context, c *Conn, use Use, client Client) error {
	why := CloseReason("")
	for {
		p.mu.Lock()
		if why != "" {
			p.takeBack(c)
			p.forget(c.link, why)
			c.link = nil
		}
		if p.mayLend() && (!client.Bulk || p.bulkPlaces() > 0) {
			if l := p.takeIdle(use); l != nil {
				p.lend(c, l)
			}
		}
		p.unlock()
		if c.link == nil {
			return p.wait(ctx, c, use, client)
		}
		if why = c.link.unusable(time.Now()); why == "" {
			return nil
		}
	}
}

// inUse is how many connections are lent. The caller holds mu.
func (p *Pool) inUse() int { return len(p.all) - len(p.idle) }

// mayLend reports whether one command more may run. The caller holds mu.
func (p *Pool) mayLend() bool { return p.inUse() < p.concurrency.limit() }

// lend gives l to c. The caller holds mu.
func (p *Pool) lend(c *Conn, l *link) {
	c.link = l
	if c.bulk {
		p.bulkInUse++
	}
}

// takeBack ends what lend began. The caller holds mu.
func (p *Pool) takeBack(c *Conn) {
	if c.bulk {
		p.bulkInUse--
	}
}

// takeIdle returns the most recently used idle connection that use can have,
// or nil. The caller holds mu.
func (p *Pool) takeIdle(use Use) *link {
	for i := len(p.idle) - 1; i >= 0; i-- {
		if l := p.idle[i]; use == Shared || l.commands == 0 {
			p.dropIdle(i)
			return l
		}
	}
	return nil
}

// dropIdle takes the connection at i off the idle ones. The caller holds mu.
func (p *Pool) dropIdle(i int) {
	last := len(p.idle) - 1
	copy(p.idle[i:], p.idle[i+1:])
	p.idle[last] = nil
	p.idle = p.idle[:last]
}

// rest lays l to the idle connections, from where unlock gives it to the first
// who waits. The caller holds mu and owns l.
func (p *Pool) rest(l *link, now time.Time) {
	if p.closed || l.epoch != p.epoch {
		p.forget(l, closedRetired)
		return
	}
	l.restFrom(now, p.limits.IdleTimeout)
	p.idle = append(p.idle, l)
}

// forget takes l out of the books and has it closed. The caller holds mu and
// owns l.
func (p *Pool) forget(l *link, why CloseReason) {
	delete(p.all, l)
	p.closing++
	p.garbage = append(p.garbage, l)
	p.stat.Closed[why]++
	if p.full != nil {
		p.freed++
	}
}

// opened counts what max_open bounds. The caller holds mu.
func (p *Pool) opened() int { return len(p.all) + p.dialing + p.closing }

// unlock does what has become possible and necessary, and then lets go of mu:
// those who wait are served, and what was forgotten is closed. So no change
// can leave somebody waiting for what is there.
func (p *Pool) unlock() {
	for {
		p.serve()
		for len(p.idle) > p.limits.MaxIdle {
			l := p.idle[0]
			p.dropIdle(0)
			p.forget(l, closedSurplus)
		}
		garbage := p.garbage
		if len(garbage) == 0 {
			break
		}
		p.garbage = nil
		p.mu.Unlock()
		for _, l := range garbage {
			l.close()
		}
		p.mu.Lock()
		p.closing -= len(garbage)
	}
	if n := len(p.idle); n > 0 {
		l := p.idle[n-1] // only the last can be new here
		l.rested = true
		p.sweepBy(l.until)
	}
	if p.closed && p.opened() == 0 {
		select {
		case <-p.drained:
		default:
			close(p.drained)
		}
	}
	p.mu.Unlock()
}

// Retire closes the idle connections, and the others as they are released.
// New ones are opened as they are needed.
func (p *Pool) Retire() {
	p.mu.Lock()
	p.retire()
	p.unlock()
}

// retire returns how many idle connections it closes. The caller holds mu.
func (p *Pool) retire() int {
	p.epoch++
	n := len(p.idle)
	for _, l := range p.idle {
		p.forget(l, closedRetired)
	}
	clear(p.idle)
	p.idle = p.idle[:0]
	return n
}

// Close refuses new commands, fails those who wait and closes idle
// connections. It returns when the connections in use are released too; if
// ctx ends first it cuts them and returns the cause. Then they are still to be
// released.
func (p *Pool) Close(ctx context.Context) error {
	p.mu.Lock()
	p.closed = true
	p.retire()
	p.unlock()
	p.cancel()

	var err error
	select {
	case <-p.drained:
	case <-ctx.Done():
		if n := p.cut(); n > 0 {
			err = fmt.Errorf("backend %s: cut %d connections in use: %w", p.name, n, context.Cause(ctx))
		}
	}
	p.wg.Wait()
	return err
}

// cut closes the connections in use under their users, but for those that were
// opened since the last retire.
func (p *Pool) cut() int {
	p.mu.Lock()
	links := make([]*link, 0, len(p.all))
	for l := range p.all {
		if l.epoch < p.epoch {
			links = append(links, l)
		}
	}
	p.mu.Unlock()
	for _, l := range links {
		cut(l.client)
	}
	return len(links)
}
