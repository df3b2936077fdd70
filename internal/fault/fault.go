// Package fault stands between two TCP peers and spoils what they say to each
// other: late, in drops, cut off, reset, silent, closed in one direction or
// corrupted. It is for tests; what it does to bytes, it does for real.
package fault

import "time"

// Direction is the way of the bytes that a fault hits.
type Direction uint8

// The directions.
const (
	Both Direction = iota
	ToServer
	ToClient
)

// Fault is what a Link does to connections. The zero value does nothing: bytes
// pass as they come.
type Fault struct {
	Direction Direction

	// Delay holds each piece back, and Jitter by a random time more. A piece is
	// what arrived at once, or Drip bytes if that is not 0.
	Delay, Jitter time.Duration
	Drip          int

	Corrupt Corruption

	// End happens to a connection when, in a direction that is hit, After bytes
	// have passed since the fault was set, and up to Spread more at random.
	// Those bytes still arrive.
	End           End
	After, Spread int
}

// End is what becomes of a connection.
type End uint8

const (
	// Open leaves it as it is.
	Open End = iota
	// Cut closes both ends in order, which both peers read as the end.
	Cut
	// Reset closes both ends with a TCP reset.
	Reset
	// Silence lets nothing more through for as long as the fault lasts, as a
	// network does that is out. What was held back arrives afterwards.
	Silence
	// HalfClose ends the direction that is hit, and lets the other go on.
	HalfClose
)

// Corruption is what becomes of bytes.
type Corruption uint8

const (
	// Intact leaves them as they are.
	Intact Corruption = iota

	// Status spoils each line that says "+", so that it is no status line of
	// the doveadm protocol any more. A receiver has to notice that.
	Status

	// Bits inverts the highest bit of a byte now and then. A receiver has to
	// notice that where the connection has checksums, as TLS does. Elsewhere it
	// cannot: TCP's own is right again behind a Link. But no "-" becomes a "+".
	Bits
)

// bitsEvery is how far apart the bytes are that Bits hits: some in each large
// reply, and one in a handshake or a small reply often enough.
const bitsEvery = 600

// corrupter spoils the bytes of one direction of a connection. Its state is
// what it must know of those before.
type corrupter struct {
	last byte
	skip int // bytes that Bits leaves alone before the next
}

// apply spoils p. random(n) returns a number below n.
func (c *corrupter) apply(kind Corruption, p []byte, random func(n int) int) {
	for i, b := range p {
		switch {
		case kind == Status && b == '+' && c.last == '\n':
			p[i] = '*' // an LF inside a field is escaped, so this is no data
		case kind != Bits:
		case c.skip == 0:
			p[i] ^= 0x80
			c.skip = random(2 * bitsEvery)
		default:
			c.skip--
		}
		c.last = b
	}
}
