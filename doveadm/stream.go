package doveadm

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// StreamHeader is what a server that writes STREAM format begins with: five
// bytes that no packet begins with, the version of the format, and the length
// and bytes of what introduces an escape (Dovecot's lib/istream-multiplex.c).
const StreamHeader = "\xff\xff\xff\xff\xff" + "\x00" + "\x02" + streamEscape

const (
	streamMagic  = frameHeader // how many of its bytes tell STREAM from PACKET
	streamEscape = "\x03\xfe"
	streamSwitch = 0 // behind streamEscape: the next byte is the channel of what follows
	streamByte   = 1 // behind streamEscape: the data byte 0x03
)

// streamRead is how much a reader of STREAM asks for at once: all of what a
// Dovecot gathers before it writes, which is 8 KiB, with room for escapes. The
// doveadm command shows a field that did not arrive in one read in another
// layout.
const streamRead = 16 << 10

// AppendStream appends data of a channel in STREAM format, which servers of
// minor version 4 write behind one StreamHeader. What it appends begins and
// ends on ChannelReply, and no byte of it waits for the next. So pieces that
// were made side by side can be sent in any order, or not at all.
func AppendStream(dst []byte, channel byte, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	if channel != ChannelReply {
		dst = append(dst, streamEscape...)
		dst = append(dst, streamSwitch, channel)
	}
	for {
		n := unescapedRun(data)
		dst = append(dst, data[:n]...)
		if data = data[n:]; len(data) == 0 {
			break
		}
		dst = append(dst, streamEscape...)
		dst = append(dst, streamByte)
		data = data[1:]
	}
	if channel != ChannelReply {
		dst = append(dst, streamEscape...)
		dst = append(dst, streamSwitch, ChannelReply)
	}
	return dst
}

// unescapedRun returns how many bytes p begins with that stand for themselves
// in STREAM: up to the first byte of an escape, or the last byte if it may
// become one.
func unescapedRun(p []byte) int {
	if n := bytes.Index(p, []byte(streamEscape)); n >= 0 {
		return n
	}
	if n := len(p) - 1; n >= 0 && p[n] == streamEscape[0] {
		return n
	}
	return len(p)
}

// recognize finds out the format by what has arrived and takes a StreamHeader
// out of it. It returns false if it takes more bytes to tell, or sets err.
func (c *chunkReader) recognize(b *readBuffer) bool {
	if c.known || c.err != nil {
		return c.known
	}
	p := b.buffered()
	if magic := p[:min(len(p), streamMagic)]; !strings.HasPrefix(StreamHeader, string(magic)) {
		c.known = true
		return true
	}
	if len(p) < len(StreamHeader) {
		return false
	}
	if header := p[:len(StreamHeader)]; string(header) != StreamHeader {
		c.err = &ProtocolError{What: fmt.Sprintf("unsupported STREAM header %q", header)}
		return false
	}
	c.known, c.stream = true, true
	b.discard(len(StreamHeader))
	return true
}

// switches takes channel switches out of the beginning of what has arrived.
func (c *chunkReader) switches(b *readBuffer) {
	for c.err == nil {
		p := b.buffered()
		if len(p) < 3 || string(p[:2]) != streamEscape || p[2] == streamByte {
			return
		}
		if p[2] != streamSwitch {
			c.err = &ProtocolError{What: fmt.Sprintf("invalid escape %q in STREAM", p[:3])}
			return
		}
		if len(p) < 4 {
			return
		}
		c.channel = p[3]
		b.discard(4)
	}
}

// streamReady reports whether data of a channel has arrived.
func (c *chunkReader) streamReady(b *readBuffer) bool {
	c.switches(b)
	p := b.buffered()
	return unescapedRun(p[:min(len(p), 2)]) > 0 || len(p) > 2 && p[2] == streamByte
}

// nextStream is next in STREAM: all that has arrived up to the next switch.
func (c *chunkReader) nextStream(b *readBuffer) (Chunk, error) {
	for {
		c.switches(b)
		if data := streamData(b); len(data) > 0 {
			return Chunk{Channel: c.channel, Data: data}, nil
		}
		if c.err != nil {
			return Chunk{}, c.err
		}
		if err := b.fill(streamRead); err != nil {
			return Chunk{}, inside(err, b)
		}
	}
}

// streamData takes data out of the beginning of what has arrived, unescaped in
// place, up to the next switch or to an escape that has not arrived whole.
func streamData(b *readBuffer) []byte {
	p, r, w := b.buffered(), 0, 0
	for r < len(p) {
		n := unescapedRun(p[r:])
		if w < r {
			copy(p[w:], p[r:r+n])
		}
		r, w = r+n, w+n
		if len(p)-r < 3 || p[r+2] != streamByte {
			break
		}
		p[w] = streamEscape[0]
		r, w = r+3, w+1
	}
	b.discard(r)
	return p[:w]
}

// inside makes the end of the stream an unexpected one if it left bytes behind
// that belong together with what did not come.
func inside(err error, b *readBuffer) error {
	if err == io.EOF && b.r < b.w {
		return io.ErrUnexpectedEOF
	}
	return err
}
