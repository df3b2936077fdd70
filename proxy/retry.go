package proxy

import (
	"strconv"
	"sync"
	"time"
)

// Of the commands for a backend in retryWindow, one of retryShare may be sent
// again, and freeRetries in any case: a quiet backend that has just restarted
// has as many dead connections as a busy one.
const (
	retryWindow = time.Minute
	retryShare  = 10
	freeRetries = 10

	retrySlots = 12
	retrySlot  = retryWindow / retrySlots
)

// retryBudget counts the commands for a backend and how many of them were sent
// twice, in a window that moves on slot by slot. It keeps a backend that loses
// connections from getting more to do for it.
type retryBudget struct {
	mu      sync.Mutex
	slots   [retrySlots]retryCount
	at      int64 // the slot that is counted in, in retrySlot since the epoch
	sum     retryCount
	refused int // since the last that was not
}

type retryCount struct{ commands, retries int }

// command counts a command.
func (b *retryBudget) command(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.move(now)
	b.slots[b.at%retrySlots].commands++
	b.sum.commands++
}

// retry counts a command that is sent again. If it may not be, refused is how
// many were not since the last that was.
func (b *retryBudget) retry(now time.Time) (ok bool, refused int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.move(now)
	if b.sum.retries >= max(freeRetries, b.sum.commands/retryShare) {
		b.refused++
		return false, b.refused
	}
	b.slots[b.at%retrySlots].retries++
	b.sum.retries++
	b.refused = 0
	return true, 0
}

// mayRetry asks the budget of the backend.
func (t *task) mayRetry(b *backend) bool {
	ok, refused := b.retries.retry(time.Now())
	if !ok {
		b.meter.retriesRefused.Add(1)
	}
	if refused == 1 {
		t.session.logger().Warn("too many commands lost their connection and were sent again: further ones fail for now",
			"backend", b.Name(), "share", "1/"+strconv.Itoa(retryShare), "window", retryWindow.String())
	}
	return ok
}

// move drops what the window has left behind. The caller holds mu.
func (b *retryBudget) move(now time.Time) {
	at := now.UnixNano() / int64(retrySlot)
	for steps := min(at-b.at, retrySlots); steps > 0; steps-- {
		old := &b.slots[(at-steps+1)%retrySlots]
		b.sum.commands -= old.commands
		b.sum.retries -= old.retries
		*old = retryCount{}
	}
	b.at = max(b.at, at)
}
