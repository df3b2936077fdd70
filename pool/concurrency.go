package pool

import (
	"math"
	"time"
)

// concurrency finds out how many commands at the same time a backend answers
// most of. More of them than it has processors and disks for make all of them
// slower, and cost it more in all. How many that is depends on the machine and
// on the commands, and changes with them; so it is measured all the time, as a
// careful person would: the rate with the present number, with the next higher
// or lower one, and with the present one again, several times over, before the
// number changes. It tells only while commands wait, for then the number is
// what bounds the rate.
//
// It is about many short commands. Where few end, for they are long, nothing
// can be measured and nothing may starve: then the number is max_open.
//
// The pool's mu guards it.
type concurrency struct {
	levels []int // the numbers to choose from, rising; the last is max_open
	home   int   // index of the best one as far as is known
	at     int   // index of the one in force: home, or one beside it to compare

	// The window that is being measured.
	start   time.Time // zero: none
	settled bool      // what ran when the number changed has ended
	count   int       // commands that ended
	blocked time.Time // since when a command waits and none has ended; zero: that is not known

	before    float64  // rate at home before the comparison
	beside    float64  // rate beside it; 0: not measured yet
	direction int      // of the comparison: 1 or -1
	stride    int      // how many levels away that is: more while it goes on in one direction
	trials    [2]trial // of comparisons, by side
	pause     int      // windows until the next comparison
	pauseNext int      // the one after that
}

// trial is what comparisons with one side say so far.
type trial struct {
	n    int
	gain float64 // smoothed logarithm of the rate there over the rate at home
}

const (
	windowTime     = 250 * time.Millisecond
	windowCommands = 100
	// windowLong is when a window ends that has no windowCommands yet, and
	// windowFew how many it has to have, so that it says anything.
	windowLong = 2 * time.Second
	windowFew  = 24

	trialsNeeded = 3
	maxPause     = 64 // windows: 16 seconds and more
	// worthMore is what more commands at the same time have to bring, and
	// worthFewer what fewer may cost: of two numbers that are as good as each
	// other, the one that takes fewer of the backend's processes is better.
	worthMore  = 0.02
	worthFewer = -0.005
	// obvious is a gain or a loss that needs no second look.
	obvious   = 0.2
	maxStride = 4
)

// newConcurrency starts with max_open.
func newConcurrency(least, maxOpen int) *concurrency {
	c := &concurrency{direction: 1}
	for n := min(max(least, 1), maxOpen); n < maxOpen; n = max(n+1, n*6/5) {
		c.levels = append(c.levels, n)
	}
	c.levels = append(c.levels, maxOpen)
	c.unbound()
	return c
}

// limit is how many connections may be lent at the same time.
func (c *concurrency) limit() int { return c.levels[c.at] }

// best is the limit outside of comparisons.
func (c *concurrency) best() int { return c.levels[c.home] }

// unbound starts again with max_open.
func (c *concurrency) unbound() {
	c.home = len(c.levels) - 1
	c.at = c.home
	c.start, c.blocked = time.Time{}, time.Time{}
	c.forgetTrials()
}

func (c *concurrency) forgetTrials() {
	c.trials = [2]trial{}
	c.before, c.beside, c.pause, c.pauseNext, c.stride = 0, 0, 0, 0, 1
}

// commandEnded counts one, and draws its conclusions. waited: there are others
// that could have run already.
func (c *concurrency) commandEnded(now time.Time, waited bool) {
	if len(c.levels) == 1 {
		return
	}
	c.blocked = time.Time{}
	if !waited {
		c.start = time.Time{}
		return
	}
	c.blocked = now
	if c.start.IsZero() {
		c.start, c.settled, c.count = now, false, 0
		return
	}
	c.count++
	took := now.Sub(c.start)
	if !c.settled && took < windowLong {
		// New connections have been made by then, too.
		if c.count >= 2*c.limit() && took >= windowTime/4 {
			c.start, c.settled, c.count = now, true, 0
		}
		return
	}
	switch {
	case took >= windowTime && c.count >= windowCommands || took >= windowLong && c.count >= windowFew:
		rate := float64(c.count) / took.Seconds()
		c.start = time.Time{}
		c.measured(rate)
	case took >= windowLong:
		c.unbound()
	}
}

// block says that a command waits because of the limit. It returns when look
// has to find out whether none ends; zero: the limit is max_open.
func (c *concurrency) block() time.Time {
	if c.at == len(c.levels)-1 {
		return time.Time{}
	}
	if c.blocked.IsZero() {
		c.blocked = time.Now()
	}
	return c.blocked.Add(windowLong)
}

// look finds out that commands wait and none ends.
func (c *concurrency) look(now time.Time) {
	if !c.blocked.IsZero() && now.Sub(c.blocked) >= windowLong {
		c.unbound()
	}
}

// measured takes the rate of a window at the limit in force, and chooses the
// next one.
func (c *concurrency) measured(rate float64) {
	switch {
	case c.at != c.home:
		c.beside, c.at = rate, c.home
		return
	case c.beside > 0:
		// The mean of before and after, so that a load that gets heavier or
		// lighter meanwhile is not taken for the difference.
		gain := math.Log(c.beside / math.Sqrt(c.before*rate))
		c.beside = 0
		if c.compared(gain) {
			return // rate is that of another number now
		}
	}
	c.before = rate
	if c.pause > 0 {
		c.pause--
		return
	}
	c.direction = -c.direction
	if next := c.home + c.direction; next < 0 || next == len(c.levels) {
		c.direction, c.stride = -c.direction, 1
	}
	c.at = min(max(0, c.home+c.direction*c.stride), len(c.levels)-1)
}

// compared takes the outcome of a comparison and reports whether home changed.
func (c *concurrency) compared(gain float64) (moved bool) {
	side, worth := 1, worthMore
	if c.direction < 0 {
		side, worth = 0, worthFewer
	}
	t := &c.trials[side]
	t.n++
	if t.n == 1 {
		t.gain = gain
	} else {
		t.gain += (gain - t.gain) * 0.4
	}
	if gain > obvious || t.n >= trialsNeeded && t.gain > worth {
		c.home = min(max(0, c.home+c.direction*c.stride), len(c.levels)-1)
		c.at = c.home
		c.direction = -c.direction // measured turns it back: on in the same direction
		stride := min(c.stride+1, maxStride)
		c.forgetTrials()
		c.stride = stride
		return true
	}
	if c.stride > 1 {
		// Too far. That says nothing about what is near.
		*t, c.stride = trial{}, 1
		return false
	}
	if gain < -obvious || t.n%trialsNeeded == 0 {
		c.pauseNext = min(2*c.pauseNext+1, maxPause)
		c.pause = c.pauseNext
	}
	return false
}
