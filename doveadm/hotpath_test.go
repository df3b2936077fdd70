package doveadm

import (
	"bytes"
	"io"
	"testing"
)

// endless gives the same messages again and again, one a read, as from a peer
// that waits for answers.
type endless struct {
	messages [][]byte
	rest     []byte
	next     int
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.messages[e.next%len(e.messages)]
		e.next++
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// hot is something that is done for each command, or for each piece of a reply.
type hot struct {
	name   string
	run    func()
	bytes  int // of the piece; 0: it is a short command
	allocs float64
}

const (
	hotLine  = "x\tproxy-ttl=5\talice@example.com\tquota get\t-u\talice@example.com\n"
	hotReply = "User quota\tSTORAGE\t1\t1024\t0\tUser quota\tMESSAGE\t6\t-\t0\t"
)

// hotPath is all of them. What allocates says why.
func hotPath(t testing.TB) []hot {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var all []hot
	add := func(h hot) { all = append(all, h) }

	server := func(lines ...string) *ServerConn {
		e := new(endless)
		for _, line := range lines {
			e.messages = append(e.messages, []byte(line))
		}
		version := appendVersion(nil, serviceWantedByClient, MaxMinor)
		s := NewServerConn(&recordedConn{in: io.MultiReader(bytes.NewReader(version), e)}, 0)
		must(s.Handshake(nil))
		return s
	}
	decode := func(name string, allocs float64, lines ...string) {
		s, cmd := server(lines...), new(Command)
		add(hot{name: "decode/" + name, allocs: allocs, run: func() { must(s.ReadCommand(cmd)) }})
	}
	decode("same line", 0, hotLine)
	// The line is the memory of the command's fields.
	decode("other line", 1, hotLine, "x\tproxy-ttl=5\tbob@example.com\tmailbox list\t-s\tINBOX\n")

	cmd := &Command{User: "alice@example.com", Name: "quota get", Args: []string{"-u", "alice@example.com"}, Extra: []string{"proxy-ttl=5"}}
	line := make([]byte, 0, 200)
	add(hot{name: "encode", run: func() { line = AppendCommand(line[:0], cmd, MinorExtraFields) }})

	scan := func(name string, size int, chunks ...[]byte) {
		add(hot{name: "scan/" + name, bytes: size, run: func() {
			var s ReplyScanner
			for _, chunk := range chunks {
				_, _, err := s.Scan(chunk)
				must(err)
			}
		}})
	}
	scan("reply", 0, []byte(hotReply+"\n+\n"))
	scan("failure", 0, []byte("\n-NOUSER\n"))
	field := bytes.Repeat([]byte("a line of a mail\x01r\x01n"), 8<<10/20)
	scan("8 KiB", len(field), field)

	formats := []struct {
		name   string
		minor  Minor
		append func(dst []byte, channel byte, data []byte) []byte
	}{{"PACKET", MinorExtraFields, AppendPacket}, {"STREAM", MinorStream, AppendStream}}
	for _, from := range formats {
		for _, to := range formats {
			for _, piece := range []struct {
				name string
				data []byte
			}{{"reply", []byte(hotReply + "\n+\n")}, {"8 KiB", field}} {
				// The first bytes tell the format; what follows is in it.
				message := from.append(nil, ChannelReply, piece.data)
				var begin []byte
				if from.minor == MinorStream {
					begin = []byte(StreamHeader)
				}
				c, _ := loggedIn(t, ClientOptions{Minor: from.minor}, from.minor, io.MultiReader(bytes.NewReader(begin), &endless{messages: [][]byte{message}}))
				s := trusted(t, to.minor, 0, "")
				out := make([]byte, 0, 64<<10)
				h := hot{name: "transcode/" + from.name + " to " + to.name + "/" + piece.name, run: func() {
					chunk, err := c.ReadChunk()
					must(err)
					out = s.AppendReply(out[:0], chunk.Data)
				}}
				if len(piece.data) > 1000 {
					h.bytes = len(piece.data)
				}
				add(h)
			}
		}
	}
	return all
}

// TestHotPathAllocations holds what a command and its reply cost the garbage
// collector here.
func TestHotPathAllocations(t *testing.T) {
	for _, h := range hotPath(t) {
		for range 100 { // until buffers have their size
			h.run()
		}
		if n := testing.AllocsPerRun(1000, h.run); n > h.allocs {
			t.Errorf("%s: %v allocations, want %v", h.name, n, h.allocs)
		}
	}
}

func BenchmarkHotPath(b *testing.B) {
	for _, h := range hotPath(b) {
		b.Run(h.name, func(b *testing.B) {
			if h.bytes > 0 {
				b.SetBytes(int64(h.bytes))
			}
			b.ReportAllocs()
			for b.Loop() {
				h.run()
			}
		})
	}
}
