package proxy

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Failure is one way in which something goes wrong: how often it has since the
// start, and the last time. There are as many as there are words for it.
type Failure struct {
	// Kind is what went wrong: a command that no backend answered, a reply that
	// is no success, a login, a line of a session, a connection, a reload.
	Kind  string
	What  string // the word that the log and the metrics have for it
	Count uint64

	// Of the last one.
	At      time.Time
	Peer    string // address of the client
	Client  string
	User    string
	Command string
	Backend string
	Status  string // that the client got
	Reason  string
}

// failures keeps the last of each. The zero value is empty.
type failures struct {
	mu  sync.Mutex // guards what follows; nothing else is done under it
	all map[failureKey]*Failure
}

type failureKey struct{ kind, what string }

// add counts f, which is the last of its kind now.
func (l *failures) add(f Failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := failureKey{f.Kind, f.What}
	was, ok := l.all[key]
	if !ok {
		if l.all == nil {
			l.all = make(map[failureKey]*Failure)
		}
		was = new(Failure)
		l.all[key] = was
	}
	f.Count = was.Count + 1
	*was = f
}

// Failures returns what has gone wrong since the start, the last first.
func (p *Proxy) Failures() []Failure {
	l := &p.meters.failures
	l.mu.Lock()
	var all []Failure
	for _, f := range l.all {
		all = append(all, *f)
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.What, b.What))
	})
	return all
}
