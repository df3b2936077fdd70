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
	stream := &packetsReader{packet: AppendPacket(nil, ChannelReply, bytes.Repeat([]byte("text\x01r\x01n"), 1000)), left: size / 8000}
	c, _ := loggedIn(t, ClientOptions{Minor: 1}, 1, io.MultiReader(stream, strings.NewReader("\x00\x00\x00\x00\x04\t\n+\n")))
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
		t.Fatalf("read %d bytes, %v, then %v, %v", n, err, reply.Status(), reply.Err())
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 256<<10 {
		t.Errorf("allocated %d bytes for a field of %d", used, n)
	}
}

// BenchmarkReply reads one field of 100 MB, the text of a mail, over TCP.
// Dovecot sends such a field in packets of about 8 KiB.
func BenchmarkReply(b *testing.B) {
	mail := AppendEscaped(nil, bytes.Repeat([]byte("A line of a mail is about this long, or longer where the text is flowed.\r\n"), 100))
	packet := AppendPacket(nil, ChannelReply, mail[:8000])
	const packets = 100_000_000 / 8000
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
		var cmd Command
		for s.ReadCommand(&cmd) == nil {
			for range packets {
				nc.Write(packet)
			}
			nc.Write(s.AppendEnd(s.AppendReply(nil, []byte("\t")), Status{OK: true}))
		}
	}()
	c, err := Dial(context.Background(), listener.Addr().String(), ClientOptions{Minor: MinorMultiplex})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.SetBytes(packets * 8000)
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
