package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// TestModel does at random what can be done with a pool, one thing at a time,
// and compares it after each with a model that knows neither locks nor
// goroutines: who has which connection, which are idle in which order, who
// waits, what is dialled. Dials end when the test says so.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits := config.Pool{
			MaxOpen:        rapid.IntRange(1, 4).Draw(rt, "max_open"),
			IdleTimeout:    rapid.SampledFrom([]time.Duration{0, 30 * time.Second}).Draw(rt, "idle_timeout"),
			MaxCommands:    rapid.SampledFrom([]int{0, 1, 3}).Draw(rt, "max_commands"),
			AcquireTimeout: rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(rt, "acquire_timeout"),
			MaxWaiting:     rapid.IntRange(0, 4).Draw(rt, "max_waiting"),
		}
		limits.MaxBulk = rapid.IntRange(1, limits.MaxOpen).Draw(rt, "max_bulk")
		limits.MaxIdle = rapid.IntRange(0, limits.MaxOpen).Draw(rt, "max_idle")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			tb := &bubbleTB{TB: t}
			d := newDriver(rt, tb, limits)
			defer tb.end()
			defer d.end()
			actions := d.actions()
			actions[""] = d.check
			rt.Repeat(actions)
		})
	})
}

// bubbleTB has what a test cleans up done in the bubble.
type bubbleTB struct {
	testing.TB
	cleanups []func()
}

func (b *bubbleTB) Cleanup(f func()) { b.cleanups = append(b.cleanups, f) }

func (b *bubbleTB) end() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
}

// command is an Acquire and what it got.
type command struct {
	client   Client
	round    int // of its queue in the model
	use      Use
	cancel   context.CancelFunc
	ended    chan struct{}
	conn     *Conn // these two are known when it has ended
	err      error
	deadline time.Time // of the model; zero: none
	number   int       // of its connection in the model
}

func (c *command) String() string { return fmt.Sprintf("command(%+v, use %d)", c.client, c.use) }

type modelConn struct {
	number   int
	epoch    int
	commands int
	until    time.Time // zero: none
}

type modelDial struct {
	epoch  int
	result chan error
}

type driver struct {
	rt     *rapid.T
	pool   *Pool
	srv    *doveadmtest.Server
	limits config.Pool

	mu      sync.Mutex // dials run by themselves
	started []chan error
	numbers map[*doveadm.ClientConn]int

	// What the model says.
	epoch   int
	opened  int // connections so far
	idle    []modelConn
	lent    map[*command]modelConn
	dials   []modelDial
	queue   modelQueue // of interactive clients
	bulk    modelQueue
	passed  int                // lent since one of bulk could have been
	expect  map[*command]error // commands that end with this action
	closed  map[CloseReason]uint64
	dialled uint64
	granted uint64
	full    uint64
	late    uint64
}

// modelQueue is who waits, sorted by round and, in a round, as they came.
type modelQueue struct {
	waiting []*command
	round   int            // of the first
	served  map[string]int // the round after the last in which a client was served; nothing is owed to those who find nobody waiting
}

func (q *modelQueue) join(c *command) {
	if len(q.waiting) == 0 {
		q.served = make(map[string]int)
	} else {
		q.round = q.waiting[0].round
	}
	c.round = max(q.round, q.served[c.client.Name])
	at := 0
	for _, o := range q.waiting {
		if o.client == c.client {
			c.round = max(c.round, o.round+1)
		}
	}
	for i, o := range q.waiting {
		if o.round <= c.round {
			at = i + 1
		}
	}
	q.waiting = slices.Insert(q.waiting, at, c)
}

func (q *modelQueue) leave(c *command) {
	q.waiting = slices.DeleteFunc(q.waiting, func(o *command) bool { return o == c })
}

// last is the newest of the client that has most, or else of the preferred.
func (q *modelQueue) last(prefer Client) *command {
	newest, number := make(map[string]*command), make(map[string]int)
	for _, c := range q.waiting {
		newest[c.client.Name] = c
		number[c.client.Name]++
	}
	clients := slices.SortedFunc(maps.Keys(newest), func(a, b string) int {
		if n := cmp.Compare(number[b], number[a]); n != 0 || a == b {
			return n
		}
		switch prefer.Name {
		case a:
			return -1
		case b:
			return 1
		}
		return cmp.Compare(a, b)
	})
	return newest[clients[0]]
}

func (d *driver) queueOf(c *command) *modelQueue {
	if c.client.Bulk {
		return &d.bulk
	}
	return &d.queue
}

// waiting is all who wait.
func (d *driver) waiting() []*command { return slices.Concat(d.queue.waiting, d.bulk.waiting) }

func (d *driver) bulkLent() int {
	n := 0
	for c := range d.lent {
		if c.client.Bulk {
			n++
		}
	}
	return n
}

// inTurn is who may have a connection now, in this order.
func (d *driver) inTurn() []*command {
	bulk := d.bulk.waiting[:min(len(d.bulk.waiting), d.limits.MaxBulk-d.bulkLent())]
	ahead := 0
	if d.passed >= interactiveTurns {
		ahead = min(1, len(bulk))
	}
	return slices.Concat(bulk[:ahead], d.queue.waiting, bulk[ahead:])
}

func newDriver(rt *rapid.T, tb testing.TB, limits config.Pool) *driver {
	d := &driver{
		rt: rt, limits: limits, srv: doveadmtest.NewPipeServer(tb, doveadmtest.Options{Minor: doveadm.MaxMinor}),
		numbers: make(map[*doveadm.ClientConn]int), lent: make(map[*command]modelConn),
		expect: make(map[*command]error), closed: make(map[CloseReason]uint64),
	}
	b := config.Backend{Name: "mail1", Pool: limits, Breaker: config.Breaker{Failures: 1 << 30, Open: time.Second, Probes: 1}}
	d.pool = New(b, d.dial, hclog.NewNullLogger())
	return d
}

func (d *driver) dial(ctx context.Context) (*doveadm.ClientConn, error) {
	result := make(chan error)
	d.mu.Lock()
	d.started = append(d.started, result)
	d.mu.Unlock()
	select {
	case err := <-result:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	nc, err := d.srv.Dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	c, err := login(ctx, nc, config.Backend{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.numbers[c] = len(d.numbers) + 1
	return c, err
}

func (d *driver) actions() map[string]func(*rapid.T) {
	acquire := func(use Use) func(*rapid.T) {
		return func(rt *rapid.T) { d.acquire(use, rapid.SampledFrom(modelClients).Draw(rt, "client")) }
	}
	return map[string]func(*rapid.T){
		"acquire":       acquire(Shared),
		"acquire again": acquire(Shared), // so much more likely
		"acquire more":  acquire(Shared),
		"acquire fresh": acquire(Fresh),
		"release":       d.release,
		"spend":         d.spend,
		"give up":       d.giveUp,
		"dial succeeds": func(rt *rapid.T) { d.dialEnds(rt, nil) },
		"dial fails":    func(rt *rapid.T) { d.dialEnds(rt, errors.New("failed")) },
		"dial refused":  func(rt *rapid.T) { d.dialEnds(rt, errDown) },
		"retire":        d.retire,
		"sleep":         d.sleep,
	}
}

// modelClients are some of which names sort both ways.
var modelClients = []Client{{Name: "a"}, {Name: "a"}, {Name: "b"}, {Name: "night", Bulk: true}, {Name: "dump", Bulk: true}}

func (d *driver) acquire(use Use, client Client) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &command{use: use, client: client, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		c.conn, c.err = d.pool.AcquireFor(ctx, use, client)
	}()
	if t := d.limits.AcquireTimeout; t > 0 {
		c.deadline = time.Now().Add(t)
	}
	if i := d.usable(c); i >= 0 && (!client.Bulk || d.bulkLent() < d.limits.MaxBulk) {
		d.has(c, i) // without a look at who waits
		d.settle()
		return
	}
	d.queueOf(c).join(c)
	d.settle()
	if slices.Contains(d.waiting(), c) && len(d.waiting())-len(d.dials) > d.limits.MaxWaiting {
		q := &d.queue
		if len(d.bulk.waiting) > 0 {
			q = &d.bulk
		}
		d.leaves(q.last(client), ErrQueueFull)
		d.full++
	}
}

// someone returns one of those who have a connection.
func (d *driver) someone(rt *rapid.T) *command {
	if len(d.lent) == 0 {
		rt.Skip("nothing is in use")
	}
	var all []*command
	for c := range d.lent {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *command) int { return cmp.Compare(a.number, b.number) })
	return rapid.SampledFrom(all).Draw(rt, "who")
}

func (d *driver) release(rt *rapid.T) {
	c := d.someone(rt)
	mc := d.lent[c]
	delete(d.lent, c)
	if rapid.Bool().Draw(rt, "runs a command") {
		reply, err := c.conn.Client().Do(context.Background(), &quota)
		if err == nil {
			err = reply.Close()
		}
		if err != nil {
			rt.Fatalf("connection %d: %v", mc.number, err)
		}
	}
	c.conn.Release(Reusable)
	mc.commands++
	if d.limits.MaxCommands > 0 && mc.commands >= d.limits.MaxCommands {
		d.closed[closedCommands]++
	} else {
		d.rests(mc)
	}
	d.settle()
}

func (d *driver) spend(rt *rapid.T) {
	c := d.someone(rt)
	delete(d.lent, c)
	outcome := rapid.SampledFrom([]Outcome{Answered, Abandoned, Failed}).Draw(rt, "outcome")
	c.conn.Release(outcome)
	d.closed[map[Outcome]CloseReason{Answered: closedUsedUp, Abandoned: closedAbandoned, Failed: ClosedLost}[outcome]]++
	d.settle()
}

func (d *driver) giveUp(rt *rapid.T) {
	if len(d.waiting()) == 0 {
		rt.Skip("nobody waits")
	}
	c := rapid.SampledFrom(d.waiting()).Draw(rt, "who")
	c.cancel()
	d.leaves(c, context.Canceled)
	d.settle()
}

func (d *driver) dialEnds(rt *rapid.T, err error) {
	if len(d.dials) == 0 {
		rt.Skip("nothing is dialled")
	}
	i := rapid.IntRange(0, len(d.dials)-1).Draw(rt, "which")
	dial := d.dials[i]
	dial.result <- err
	if errors.Is(err, syscall.ECONNREFUSED) {
		d.retires()
		d.settle()
	}
	d.dials = slices.Delete(d.dials, i, i+1)
	if err == nil {
		d.opened++
		d.rests(modelConn{number: d.opened, epoch: dial.epoch})
	} else if turn := d.inTurn(); len(turn) > 0 {
		d.leaves(turn[0], err)
	}
	d.settle()
}

func (d *driver) retire(*rapid.T) {
	d.pool.Retire()
	d.retires()
	d.settle()
}

func (d *driver) sleep(rt *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 15).Draw(rt, "seconds")) * time.Second)
	now := time.Now()
	for _, c := range d.waiting() {
		if !c.deadline.IsZero() && !c.deadline.After(now) {
			d.leaves(c, ErrTimeout)
			d.late++
		}
	}
	d.idle = slices.DeleteFunc(d.idle, func(mc modelConn) bool {
		over := !mc.until.IsZero() && !mc.until.After(now)
		if over {
			d.closed[closedIdle]++
		}
		return over
	})
	d.settle()
}

// leaves: c waits no more and fails.
func (d *driver) leaves(c *command, err error) {
	d.queueOf(c).leave(c)
	d.expect[c] = err
}

// usable is the place of the idle connection that c can have, or -1.
func (d *driver) usable(c *command) int {
	for i, mc := range slices.Backward(d.idle) {
		if c.use == Shared || mc.commands == 0 {
			return i
		}
	}
	return -1
}

// has: c gets the idle connection at i.
func (d *driver) has(c *command, i int) {
	c.number = d.idle[i].number
	d.lent[c] = d.idle[i]
	d.idle = slices.Delete(d.idle, i, i+1)
	d.granted++
	d.expect[c] = nil
}

func (d *driver) retires() {
	d.epoch++
	for range d.idle {
		d.closed[closedRetired]++
	}
	d.idle = nil
}

func (d *driver) rests(mc modelConn) {
	if mc.epoch != d.epoch {
		d.closed[closedRetired]++
		return
	}
	mc.until = time.Time{}
	if t := d.limits.IdleTimeout; t > 0 {
		mc.until = time.Now().Add(t)
	}
	d.idle = append(d.idle, mc)
}

func (d *driver) open() int { return len(d.idle) + len(d.lent) }

// settle gives to those who wait, in their order, what there is.
func (d *driver) settle() {
	dials := len(d.dials)
	for _, c := range d.inTurn() {
		switch i := d.usable(c); {
		case i >= 0:
			d.has(c, i)
			switch {
			case c.client.Bulk || len(d.bulk.waiting) == 0:
				d.passed = 0
			case d.bulkLent() < d.limits.MaxBulk:
				d.passed++
			}
			q := d.queueOf(c)
			q.served[c.client.Name] = c.round + 1
			q.leave(c)
			continue
		case dials > 0:
			dials--
			continue
		case d.open()+len(d.dials) < d.limits.MaxOpen:
		case len(d.idle) > 0: // too old for c: makes room
			d.idle = d.idle[1:]
			d.closed[closedEvicted]++
		default:
			continue
		}
		d.dialled++
		d.dials = append(d.dials, modelDial{epoch: d.epoch})
	}
	for len(d.idle) > d.limits.MaxIdle {
		d.idle = d.idle[1:]
		d.closed[closedSurplus]++
	}
}

// check compares the pool with the model.
func (d *driver) check(rt *rapid.T) {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	// Dials of one action are alike, so that their order does not matter.
	started := d.started
	d.started = nil
	for i := range d.dials {
		if d.dials[i].result == nil {
			if len(started) == 0 {
				rt.Fatalf("%d dials of the model did not start", len(d.dials)-i)
			}
			d.dials[i].result, started = started[0], started[1:]
		}
	}
	if len(started) > 0 {
		rt.Fatalf("%d dials more than the model's", len(started))
	}

	for c, want := range d.expect {
		select {
		case <-c.ended:
		default:
			rt.Fatalf("%v waits, want %v", c, want)
		}
		if !errors.Is(c.err, want) {
			rt.Fatalf("%v got %v, want %v", c, c.err, want)
		}
		if want == nil && d.numbers[c.conn.Client()] != c.number {
			rt.Fatalf("%v has connection %d, want %d", c, d.numbers[c.conn.Client()], c.number)
		}
		c.cancel()
	}
	clear(d.expect)
	for _, c := range d.waiting() {
		select {
		case <-c.ended:
			rt.Fatalf("%v ended with %v, want it to wait", c, c.err)
		default:
		}
	}

	var idle, want []int
	d.pool.mu.Lock()
	for _, l := range d.pool.idle {
		idle = append(idle, d.numbers[l.client])
	}
	d.pool.mu.Unlock()
	for _, mc := range d.idle {
		want = append(want, mc.number)
	}
	if diff := gocmp.Diff(want, idle); diff != "" {
		rt.Fatalf("idle connections (-want +got):\n%s", diff)
	}
	s := d.pool.Stat()
	if diff := gocmp.Diff(Stat{
		Open: d.open(), Idle: len(d.idle), InUse: len(d.lent), Dialing: len(d.dials), Waiting: len(d.waiting()),
		BulkInUse: d.bulkLent(), BulkWaiting: len(d.bulk.waiting),
		Limit: d.limits.MaxOpen, Best: d.limits.MaxOpen,
		Acquired: d.granted, TimedOut: d.late, QueueFull: d.full, Dials: d.dialled, Closed: d.closed,
	}, s, cmpopts.IgnoreFields(Stat{}, "Waits", "WaitTime", "DialTime", "DialErrors", "Causes", "LastError", "LastErrorAt")); diff != "" {
		rt.Fatalf("(-want +got):\n%s", diff)
	}
	if n := len(d.srv.Conns()); n != s.Open {
		rt.Fatalf("the backend has %d connections, the pool %d", n, s.Open)
	}
	if s.Open+s.Dialing > d.limits.MaxOpen {
		rt.Fatalf("more than max_open: %+v", s)
	}
}

// end closes the pool while its connections are in use.
func (d *driver) end() {
	if d.rt.Failed() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		d.pool.Close(now) // there is no knowing who has what
		return
	}
	done := make(chan error)
	go func() { done <- d.pool.Close(context.Background()) }()
	synctest.Wait()
	for _, c := range d.waiting() {
		if <-c.ended; !errors.Is(c.err, ErrClosed) {
			d.rt.Errorf("%v ended with %v, want %v", c, c.err, ErrClosed)
		}
		c.cancel()
	}
	for c := range d.lent {
		select {
		case <-done:
			d.rt.Error("Close returned with connections in use")
		default:
		}
		c.conn.Release(Reusable)
	}
	if err := <-done; err != nil {
		d.rt.Error(err)
	}
	synctest.Wait()
	if s, n := d.pool.Stat(), len(d.srv.Conns()); s.Open != 0 || s.Dialing != 0 || s.Waiting != 0 || n != 0 {
		d.rt.Errorf("after Close: %+v, %d connections at the backend", s, n)
	}
}
