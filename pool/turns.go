package pool

import "container/list"

// turns is a queue in which clients take turns: it has rounds, and in each
// round a client has one place. So who has a thousand commands to run keeps
// others from theirs no longer than who has one. The pool's mu guards it.
type turns struct {
	rounds []*list.List // of *waiter; the first is not empty
	number uint64       // of the first round, counted from the first of all
	lines  map[string]*line
	length int
}

// line is what one client has in a queue.
type line struct {
	client  string
	waiters list.List // oldest first
	served  uint64    // the round after the last one in which it was served
}

// join lets w wait in the first round in which its client has no place.
func (q *turns) join(w *waiter) {
	ln := q.line(w.client.Name)
	round := max(q.number, ln.served)
	if last := ln.waiters.Back(); last != nil {
		round = max(round, last.Value.(*waiter).round+1)
	}
	for q.number+uint64(len(q.rounds)) <= round {
		q.rounds = append(q.rounds, list.New())
	}
	w.round = round
	w.place = q.rounds[round-q.number].PushBack(w)
	w.inLine = ln.waiters.PushBack(w)
	q.length++
}

// rejoin lets w wait before all others.
func (q *turns) rejoin(w *waiter) {
	if len(q.rounds) == 0 {
		q.rounds = append(q.rounds, list.New())
	}
	w.round = q.number
	w.place = q.rounds[0].PushFront(w)
	w.inLine = q.line(w.client.Name).waiters.PushFront(w)
	q.length++
}

func (q *turns) line(client string) *line {
	ln := q.lines[client]
	if ln == nil {
		if q.lines == nil {
			q.lines = make(map[string]*line)
		}
		ln = &line{client: client}
		q.lines[client] = ln
	}
	return ln
}

// leave takes w off the queue. served: its client has had its turn.
func (q *turns) leave(w *waiter, served bool) {
	ln := q.lines[w.client.Name]
	if served {
		ln.served = w.round + 1
	}
	ln.waiters.Remove(w.inLine)
	q.rounds[w.round-q.number].Remove(w.place)
	w.place, w.inLine = nil, nil
	q.length--
	for len(q.rounds) > 0 && q.rounds[0].Len() == 0 {
		q.rounds = q.rounds[1:]
		q.number++
	}
	if q.length == 0 {
		clear(q.lines) // nobody waits who could be owed a turn
	}
}

// all goes through those who wait, in their order. The one that it is at may
// leave.
func (q *turns) all(yield func(*waiter) bool) {
	for _, round := range q.rounds {
		for e := round.Front(); e != nil; {
			w := e.Value.(*waiter)
			e = e.Next()
			if !yield(w) {
				return
			}
		}
	}
}

// first returns who is next, or nil.
func (q *turns) first() *waiter {
	for w := range q.all {
		return w
	}
	return nil
}

// last returns the newest of the client that has most in the queue, which is
// not empty. Where several have as many it is that of prefer, if it is among
// them.
func (q *turns) last(prefer string) *waiter {
	var most *line
	for _, ln := range q.lines {
		if most == nil || ln.longer(most, prefer) {
			most = ln
		}
	}
	return most.waiters.Back().Value.(*waiter)
}

func (ln *line) longer(other *line, prefer string) bool {
	switch n, m := ln.waiters.Len(), other.waiters.Len(); {
	case n != m:
		return n > m
	case ln.client == prefer || other.client == prefer:
		return ln.client == prefer
	}
	return ln.client < other.client
}
