package proxy

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// Event is a command that has ended.
type Event struct {
	Time     time.Time // of its end
	Session  uint64
	Number   uint64 // of the command in its session
	Listener string
	Peer     string
	Client   string
	User     string
	Command  string
	Outcome  string
	Status   string // that the client got; empty: none
	Shard    string
	Backend  string
	Reason   string
	Wait     time.Duration // of Duration: for its turn and for a connection
	Duration time.Duration
	Bytes    int64 // of reply
	Retried  bool

	Failed bool // for a reason that is neither the client's nor the user's
}

// Filter says which commands are wanted. What is empty says nothing; all else
// has to be true of one.
type Filter struct {
	Client   string
	User     string // a glob, for the name as it was sent or in its normal form
	Command  string // a glob
	Shard    string
	Backend  string
	Outcome  string
	Failed   bool          // only those that failed
	Duration time.Duration // at least
}

func (f *Filter) match(e *Event, names *router.Names) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	return is(f.Client, e.Client) && is(f.Shard, e.Shard) && is(f.Backend, e.Backend) && is(f.Outcome, e.Outcome) &&
		(f.User == "" || glob.Match(f.User, e.User) || glob.Match(f.User, names.User(e.User))) &&
		(f.Command == "" || glob.Match(f.Command, e.Command)) &&
		(e.Failed || !f.Failed) && e.Duration >= f.Duration
}

// Tail gets the commands that end from Tail to Close. One that is not read
// loses commands and is told how many; nobody waits for it.
type Tail struct {
	proxy  *Proxy
	filter Filter
	events chan Event
	lost   atomic.Uint64
}

// Tail returns a new one, which keeps as many events as buffer says.
func (p *Proxy) Tail(f Filter, buffer int) *Tail {
	t := &Tail{proxy: p, filter: f, events: make(chan Event, buffer)}
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.tails, t)
	return t
}

// Events returns where the events are to be read. It is never closed.
func (t *Tail) Events() <-chan Event { return t.events }

// Lost returns how many events were lost since the last call.
func (t *Tail) Lost() uint64 { return t.lost.Swap(0) }

// Close ends it.
func (t *Tail) Close() {
	t.proxy.mu.Lock()
	defer t.proxy.mu.Unlock()
	remove(&t.proxy.tails, t)
}

// add and remove replace a list of which each command looks at the pointer.
// The caller holds the proxy's mu.
func add[T any](list *atomic.Pointer[[]*T], one *T) {
	next := []*T{one}
	if all := list.Load(); all != nil {
		next = append(slices.Clone(*all), one)
	}
	list.Store(&next)
}

func remove[T any](list *atomic.Pointer[[]*T], one *T) {
	all := list.Load()
	if all == nil {
		return
	}
	next := slices.DeleteFunc(slices.Clone(*all), func(t *T) bool { return t == one })
	if len(next) == 0 {
		list.Store(nil)
		return
	}
	list.Store(&next)
}

// tell tells those who want to know that the task has ended.
func (t *task) tell(start time.Time, took time.Duration) {
	tails := t.session.proxy.tails.Load()
	if tails == nil {
		return
	}
	e := Event{
		Time: start.Add(took), Session: t.session.id, Number: t.live.number, Listener: t.session.settings.Name,
		Peer: t.session.peerName, Client: t.session.client,
		User: printable(t.cmd.User), Command: printable(t.cmd.Name), Outcome: t.res.outcome.String(), Failed: t.res.outcome.failed(),
		Shard: t.res.shard, Backend: t.res.backend, Reason: printable(t.res.reason),
		Wait: t.res.wait, Duration: took, Bytes: t.res.bytes, Retried: t.res.retried,
	}
	if t.res.status != (doveadm.Status{}) {
		e.Status = t.res.status.String()
	}
	names := t.session.proxy.snapshot.Load().names
	for _, tail := range *tails {
		if !tail.filter.match(&e, names) {
			continue
		}
		select {
		case tail.events <- e:
		default:
			tail.lost.Add(1)
		}
	}
}
