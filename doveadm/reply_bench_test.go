package doveadm

import (
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
)

// packetsReader gives the same packet a number of times, then the status.
type packetsReader struct {
	packet []byte
	left   int
	rest   bytes.Reader
}

func (p *packetsReader) Read(b []byte) (int, error) {
	if p.rest.Len() == 0 {
		if p.left--; p.left < 0 {
			return 0, io.EOF
		}
		p.rest.Reset(p.packet)
	}
	return p.rest.Read(b)
}

func TestMemoryForALargeField(t *testing.T) {
	const size = 50_000_000
	text := bytes.Repeat([]byte("text\x01r\x01n"), 1000)
	for name, tc := range map[string]struct{ header, packet, end string }{
		"PACKET": {"", string(AppendPacket(nil, ChannelReply, text)), "\x00\x00\x00\x00\x04\t\n+\n"},
		"STREAM": {StreamHeader, string(AppendStream(nil, ChannelReply, text)), "\t\n+\n"},
	} {
		stream := &packetsReader{packet: []byte(tc.packet), left: size / 8000}
		c, _ := loggedIn(t, ClientOptions{Minor: MaxMinor}, MaxMinor, io.MultiReader(strings.NewReader(tc.header), stream, strings.NewReader(tc.end)))
		reply, err := c.Do(t.Context(), &Command{Name: "fetch"})
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		reply.Next()
		n, err := io.Copy(io.Discard, reply)
		runtime.ReadMemStats(&after)
		if n != size/8*6 || err != nil || reply.Err() != nil || !reply.Status().OK {
			t.Fatalf("%s: read %d bytes, %v, then %v, %v", name, n, err, reply.Status(), reply.Err())
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 256<<10 {
			t.Errorf("%s: allocated %d bytes for a field of %d", name, used, n)
		}
	}
}

// BenchmarkReply reads one field of 100 MB, the text of a mail, over TCP.
// Dovecot writes such a field in pieces of about 8 KiB.
func BenchmarkReply(b *testing.B) {
	for name, minor := range map[string]Minor{"PACKET": MinorMultiplex, "STREAM": MinorStream} {
		b.Run(name, func(b *testing.B) { benchmarkReply(b, minor) })
	}
}

func benchmarkReply(b *testing.B, minor Minor) {
	mail := AppendEscaped(nil, bytes.Repeat([]byte("A line of a mail is about this long, or longer where the text is flowed.\r\n"), 100))
	const pieces = 100_000_000 / 8000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	go func() {
		nc, err := listener.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		s := NewServerConn(nc, 0)
		if s.Handshake(nil) != nil {
			return
		}
		piece := s.AppendReply(nil, mail[:8000])
		var cmd Command
		for s.ReadCommand(&cmd) == nil {
			for range pieces {
				nc.Write(piece)
			}
			nc.Write(s.AppendEnd(s.AppendReply(nil, []byte("\t")), Status{OK: true}))
		}
	}()
	c, err := Dial(context.Background(), listener.Addr().String(), ClientOptions{Minor: minor})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.SetBytes(pieces * 8000)
	b.ReportAllocs()
	for b.Loop() {
		reply, err := c.Do(context.Background(), &Command{Name: "fetch"})
		if err != nil {
			b.Fatal(err)
		}
		for reply.Next() {
			if _, err := io.Copy(io.Discard, reply); err != nil {
				b.Fatal(err)
			}
		}
		if err := reply.Err(); err != nil {
			b.Fatal(err)
		}
	}
}
