package history

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// hour is how far back everything here goes.
	hour = time.Hour

	slowSpan = time.Minute // each has its own slowest commands
	slowEach = 10          // of them in a span
	slowMost = 50          // that Slowest returns

	failedMost = 200
)

// Command is one that has ended.
type Command struct {
	Ended   time.Time
	Session uint64
	Client  string
	User    string
	Name    string
	Backend string
	Outcome string
	Status  string
	Reason  string
	Wait    time.Duration
	Took    time.Duration
	Bytes   int64
}

// Commands keeps the slowest commands of the last hour and the newest of those
// that failed. The zero value is empty. All methods may be called from any
// goroutine.
type Commands struct {
	// until and floor tell without a lock that a command is not among the
	// slowest of its span: until is the end of the span in ns of UNIX, and
	// floor the time of the least slow one of a span that is full.
	until, floor atomic.Int64

	mu     sync.Mutex // guards what follows
	spans  [hour / slowSpan]span
	failed []Command // a ring
	next   int       // in failed
}

// span is the slowest commands of slowSpan, those that took longest first.
type span struct {
	number   int64 // in slowSpan since 1970
	commands []Command
}

// IsSlow reports whether a command that took so long and ended now may be among
// the slowest: then it is worth to make a Command of it for AddSlow.
func (c *Commands) IsSlow(now time.Time, took time.Duration) bool {
	return int64(took) > c.floor.Load() || now.UnixNano() >= c.until.Load()
}

// AddSlow keeps a command if it is among the slowest of its minute.
func (c *Commands) AddSlow(cmd *Command) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number := cmd.Ended.UnixNano() / int64(slowSpan)
	s := &c.spans[number%int64(len(c.spans))]
	switch {
	case number < s.number:
		return // its place is that of a later one
	case number > s.number:
		*s = span{number: number}
	}
	i, _ := slices.BinarySearchFunc(s.commands, cmd.Took, func(a Command, took time.Duration) int { return int(min(1, max(-1, took-a.Took))) })
	if i == slowEach {
		return
	}
	if len(s.commands) == slowEach {
		s.commands = s.commands[:slowEach-1]
	}
	s.commands = slices.Insert(s.commands, i, *cmd)
	floor := int64(-1)
	if len(s.commands) == slowEach {
		floor = int64(s.commands[slowEach-1].Took)
	}
	c.floor.Store(floor)
	c.until.Store((number + 1) * int64(slowSpan))
}

// AddFailed keeps a command among the newest of those that failed.
func (c *Commands) AddFailed(cmd *Command) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failed) < failedMost {
		c.failed = append(c.failed, *cmd)
		return
	}
	c.failed[c.next] = *cmd
	c.next = (c.next + 1) % failedMost
}

// Slowest returns the slowest commands of the hour before now, that which took
// longest first.
func (c *Commands) Slowest(now time.Time) []Command {
	c.mu.Lock()
	var all []Command
	for i := range c.spans {
		all = append(all, c.spans[i].commands...)
	}
	c.mu.Unlock()
	all = slices.DeleteFunc(all, func(cmd Command) bool { return now.Sub(cmd.Ended) > hour })
	slices.SortStableFunc(all, func(a, b Command) int { return int(min(1, max(-1, b.Took-a.Took))) })
	return all[:min(len(all), slowMost)]
}

// Failed returns those that failed in the hour before now, the newest first.
func (c *Commands) Failed(now time.Time) []Command {
	c.mu.Lock()
	all := append(slices.Clone(c.failed[c.next:]), c.failed[:c.next]...)
	c.mu.Unlock()
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(cmd Command) bool { return now.Sub(cmd.Ended) > hour })
}
