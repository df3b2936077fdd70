package pool

// turns is a queue in which clients take turns: it has rounds, and in each
// round a client has one place. So who has a thousand commands to run keeps
// others from theirs no longer than who has one. The pool's mu guards it.
type turns struct {
	rounds []*chain // the first is not empty
	number uint64   // of the first round, counted from the first of all
	lines  map[string]*line
	length int
	spare  []*chain // empty ones
	room   []*chain // that rounds is a part of
}

// line is what one client has in a queue.
type line struct {
	client  string
	waiters chain  // oldest first
	served  uint64 // the round after the last one in which it was served
}

// join lets w wait in the first round in which its client has no place.
func (q *turns) join(w *waiter) {
	ln := q.line(w.client.Name)
	round := max(q.number, ln.served)
	if last := ln.waiters.back; last != nil {
		round = max(round, last.waiter.round+1)
	}
	for q.number+uint64(len(q.rounds)) <= round {
		q.addRound()
	}
	w.round = round
	w.stand()
	q.rounds[round-q.number].pushBack(&w.place)
	ln.waiters.pushBack(&w.inLine)
	q.length++
}

// rejoin lets w wait before all others.
func (q *turns) rejoin(w *waiter) {
	if len(q.rounds) == 0 {
		q.addRound()
	}
	w.round = q.number
	w.stand()
	q.rounds[0].pushFront(&w.place)
	q.line(w.client.Name).waiters.pushFront(&w.inLine)
	q.length++
}

// addRound uses an empty round again, if there is one, and the room in front of
// the rounds.
func (q *turns) addRound() {
	if len(q.rounds) == cap(q.rounds) {
		if cap(q.room) < 2*len(q.rounds)+1 {
			q.room = make([]*chain, 0, 4*len(q.rounds)+8)
		}
		q.rounds = append(q.room[:0], q.rounds...)
	}
	n := len(q.spare)
	if n == 0 {
		q.rounds = append(q.rounds, new(chain))
		return
	}
	q.rounds = append(q.rounds, q.spare[n-1])
	q.spare = q.spare[:n-1]
}

// stand prepares w for its places in the queue.
func (w *waiter) stand() {
	w.queued = true
	w.place.waiter, w.inLine.waiter = w, w
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

// maxSpare is how many rounds and waiters are kept for later.
const maxSpare = 256

// leave takes w off the queue. served: its client has had its turn.
func (q *turns) leave(w *waiter, served bool) {
	ln := q.lines[w.client.Name]
	if served {
		ln.served = w.round + 1
	}
	ln.waiters.remove(&w.inLine)
	q.rounds[w.round-q.number].remove(&w.place)
	w.queued = false
	q.length--
	done := 0
	for done < len(q.rounds) && q.rounds[done].length == 0 {
		if len(q.spare) < maxSpare {
			q.spare = append(q.spare, q.rounds[done])
		}
		done++
	}
	q.rounds = q.rounds[done:] // all may be on its way through them
	q.number += uint64(done)
	if q.length == 0 {
		clear(q.lines) // nobody waits who could be owed a turn
	}
}

// all goes through those who wait, in their order. The one that it is at may
// leave.
func (q *turns) all(yield func(*waiter) bool) {
	for _, round := range q.rounds {
		for k := round.front; k != nil; {
			w := k.waiter
			k = k.next
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
	return most.waiters.back.waiter
}

func (ln *line) longer(other *line, prefer string) bool {
	switch n, m := ln.waiters.length, other.waiters.length; {
	case n != m:
		return n > m
	case ln.client == prefer || other.client == prefer:
		return ln.client == prefer
	}
	return ln.client < other.client
}
