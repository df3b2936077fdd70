package doveadm

import (
	"bytes"
	"errors"
	"io"
)

// ErrLineTooLong is the error of a line that is longer than its limit.
var ErrLineTooLong = errors.New("line too long")

// readBuffer reads lines and chunks from one byte stream. It grows for a line
// or packet that does not fit and can be made small again between messages.
type readBuffer struct {
	src  io.Reader
	buf  []byte
	r, w int  // buf[r:w] is read but not consumed
	full bool // the last read filled buf: there is probably more
}

// readSize is what a connection that waits for a command or reply holds.
const readSize = 4 << 10

// bulkSize is what the buffer grows to while the peer sends more than it holds,
// so that a large reply or input takes few reads.
const bulkSize = 128 << 10

// firstSize is what is enough for a client that logs in and sends a command or
// two.
const firstSize = 512

// newReadBuffer returns a buffer that holds size bytes until more come at once.
func newReadBuffer(src io.Reader, size int) readBuffer {
	return readBuffer{src: src, buf: make([]byte, size)}
}

func (b *readBuffer) buffered() []byte { return b.buf[b.r:b.w] }

func (b *readBuffer) discard(n int) {
	b.r += n
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// fill reads once, making room for at least one byte and for size bytes in
// all. It returns nil if at least one byte was read.
func (b *readBuffer) fill(size int) error {
	if b.w == len(b.buf) && b.w < readSize {
		b.grow(readSize)
	}
	if b.r > 0 && (b.w == len(b.buf) || b.r+size > len(b.buf)) {
		copy(b.buf, b.buf[b.r:b.w])
		b.w -= b.r
		b.r = 0
	}
	if b.full && b.r == b.w && len(b.buf) < bulkSize {
		b.grow(min(max(4*len(b.buf), readSize), bulkSize))
	}
	if size > len(b.buf) || b.w == len(b.buf) {
		n := 2 * len(b.buf)
		for n < size {
			n *= 2
		}
		b.grow(n)
	}
	for range 100 {
		n, err := b.src.Read(b.buf[b.w:])
		b.w += n
		if n > 0 {
			b.full = b.w == len(b.buf)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// grow makes it one of size bytes. It leaves what was returned before untouched.
func (b *readBuffer) grow(size int) {
	grown := make([]byte, size)
	b.r, b.w = 0, copy(grown, b.buffered())
	b.buf = grown
}

// shrink gives memory back that a long line or packet needed. It leaves what
// was returned before untouched.
func (b *readBuffer) shrink() {
	b.full = false
	if len(b.buf) > readSize && b.w-b.r <= readSize {
		b.grow(readSize)
	}
}

// line returns the next line without LF or CRLF. It is valid until the next
// call. A line that does not fit into max bytes, LF included, is
// ErrLineTooLong. At the end of the stream, the error is io.EOF before the
// first byte of a line and io.ErrUnexpectedEOF behind it.
func (b *readBuffer) line(max int) ([]byte, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(b.buf[b.r+seen:b.w], '\n'); i >= 0 {
			n := seen + i + 1
			if n > max {
				return nil, ErrLineTooLong
			}
			line := b.buf[b.r : b.r+n-1]
			b.discard(n)
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		seen = b.w - b.r
		if seen >= max {
			return nil, ErrLineTooLong
		}
		if err := b.fill(0); err != nil {
			if err == io.EOF && seen > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
