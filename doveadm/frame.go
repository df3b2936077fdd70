package doveadm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// The channels of the multiplexed server output.
const (
	ChannelReply byte = 0   // output and status lines
	ChannelLog   byte = 'L' // log lines
)

// frameHeader is the length of a PACKET header: the channel and the length of
// the data, big endian (Dovecot's lib/istream-multiplex.c).
const frameHeader = 5

// maxWholePacket is the largest packet that is handed on in one piece. A
// larger one is cut, after a TAB where there is one, because the doveadm
// command prints a field that arrives in pieces in another layout. Dovecot's
// packets are a row or about 8 KiB.
const maxWholePacket = 256 << 10

// AppendPacket appends data, which is shorter than 4 GiB, as one packet of
// PACKET format, which servers write at minor versions 1 to 3.
func AppendPacket(dst []byte, channel byte, data []byte) []byte {
	dst = append(dst, channel)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)))
	return append(dst, data...)
}

// Chunk is a piece of what a server sent on one channel: a whole packet or a
// part of a very large one; at minor versions 0 and 4, where there are no
// packets, whatever arrived.
type Chunk struct {
	Channel byte
	Data    []byte // valid until the next read from the connection
}

// chunkReader cuts a server's stream into chunks.
//
// A framed stream is in PACKET or STREAM format. Its first bytes tell which,
// whatever versions were announced: so do Dovecot's clients since 2.4.
type chunkReader struct {
	framed  bool
	known   bool   // which format it is
	stream  bool   // it is STREAM
	channel byte   // of the packet being read, or switched to
	pending uint32 // bytes of it that are still to come
	err     error  // behind the last piece of a broken packet or stream
}

// ready reports whether next would return without reading.
func (c *chunkReader) ready(b *readBuffer) bool {
	p, pending := b.buffered(), c.pending
	switch {
	case c.err != nil:
		return true
	case !c.framed:
		return len(p) > 0
	case !c.recognize(b):
		return false
	case c.stream:
		return c.streamReady(b)
	}
	for pending == 0 {
		if len(p) < frameHeader {
			return false
		}
		pending = binary.BigEndian.Uint32(p[1:])
		p = p[frameHeader:]
	}
	return len(p) >= int(min(pending, maxWholePacket))
}

// clean reports whether the reader stands between two packets, or outside of
// an escape, with nothing buffered.
func (c *chunkReader) clean(b *readBuffer) bool {
	if c.framed && c.recognize(b) && c.stream {
		c.switches(b) // they hold nothing
	}
	return c.pending == 0 && b.r == b.w && c.err == nil
}

// next returns the next chunk. When the connection ends inside a packet, it
// first returns what there is of it. The error is io.EOF between two packets
// and io.ErrUnexpectedEOF inside one or inside an escape; a *ProtocolError
// stands behind an escape or header that does not exist. After a timeout next
// can be called again.
func (c *chunkReader) next(b *readBuffer) (Chunk, error) {
	if c.err != nil {
		return Chunk{}, c.err
	}
	if !c.framed {
		if b.r == b.w {
			if err := b.fill(0); err != nil {
				return Chunk{}, err
			}
		}
		data := b.buffered()
		b.discard(len(data))
		return Chunk{Channel: ChannelReply, Data: data}, nil
	}
	for !c.recognize(b) {
		if c.err != nil {
			return Chunk{}, c.err
		}
		if err := b.fill(frameHeader); err != nil {
			return Chunk{}, inside(err, b)
		}
	}
	if c.stream {
		return c.nextStream(b)
	}
	for c.pending == 0 {
		for len(b.buffered()) < frameHeader {
			if err := b.fill(frameHeader); err != nil {
				return Chunk{}, inside(err, b)
			}
		}
		h := b.buffered()
		c.channel, c.pending = h[0], binary.BigEndian.Uint32(h[1:])
		b.discard(frameHeader)
	}
	want := int(min(c.pending, maxWholePacket))
	for len(b.buffered()) < want {
		err := b.fill(want)
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return Chunk{}, err
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		c.err = err
		if data := b.buffered(); len(data) > 0 {
			return c.take(b, data), nil
		}
		return Chunk{}, err
	}
	data := b.buffered()[:want]
	if uint32(want) < c.pending && c.channel == ChannelReply {
		if i := bytes.LastIndexByte(data, '\t'); i >= 0 {
			data = data[:i+1]
		}
	}
	return c.take(b, data), nil
}

func (c *chunkReader) take(b *readBuffer, data []byte) Chunk {
	c.pending -= uint32(len(data))
	b.discard(len(data))
	return Chunk{Channel: c.channel, Data: data}
}
