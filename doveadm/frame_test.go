package doveadm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// cutReader returns at most size bytes a read, and counts the reads.
type cutReader struct {
	src   io.Reader
	size  int
	reads int
}

func (c *cutReader) Read(p []byte) (int, error) {
	c.reads++
	return c.src.Read(p[:min(c.size, len(p))])
}

// readChunks reads to the end of the stream, size bytes a read.
func readChunks(t *testing.T, framed bool, src io.Reader, size int) ([]Chunk, error) {
	t.Helper()
	in := &cutReader{src: src, size: size}
	b := newReadBuffer(in, readSize)
	c := chunkReader{framed: framed}
	var all []Chunk
	for {
		ready, reads := c.ready(&b), in.reads
		chunk, err := c.next(&b)
		if ready != (in.reads == reads) && err == nil || ready && in.reads > reads {
			t.Fatalf("ready was %v, then %d reads and %v", ready, in.reads-reads, err)
		}
		if len(b.buf) > 2*maxWholePacket {
			t.Fatalf("holds %d bytes", len(b.buf))
		}
		if err != nil {
			if _, again := c.next(&b); again != err {
				t.Errorf("after %v, next says %v", err, again)
			}
			if c.clean(&b) != (err == io.EOF) {
				t.Errorf("after %v, clean is %v", err, c.clean(&b))
			}
			return all, err
		}
		chunk.Data = bytes.Clone(chunk.Data)
		all = append(all, chunk)
	}
}

func packets(channelAndData ...string) []byte {
	var p []byte
	for _, s := range channelAndData {
		p = AppendPacket(p, s[0], []byte(s[1:]))
	}
	return p
}

func TestChunks(t *testing.T) {
	large := "\x00" + strings.Repeat("x", 200<<10)
	tests := map[string]struct {
		in   []byte
		want []string
		err  error
	}{
		"nothing":         {nil, nil, io.EOF},
		"one":             {packets("\x00\n+\n"), []string{"\x00\n+\n"}, io.EOF},
		"two channels":    {packets("L\x04te", "\x00a\tb", "Lxt\n", "\x00\t\n+\n"), []string{"L\x04te", "\x00a\tb", "Lxt\n", "\x00\t\n+\n"}, io.EOF},
		"unknown channel": {packets("Xdata", "\x00a"), []string{"Xdata", "\x00a"}, io.EOF},
		"of zero length":  {packets("\x00", "L", "\x00a", "\x00"), []string{"\x00a"}, io.EOF},
		"large":           {packets(large, "\x00a"), []string{large, "\x00a"}, io.EOF},
		"end in a header": {append(packets("\x00a"), 0, 0, 0), []string{"\x00a"}, io.ErrUnexpectedEOF},
		"end behind one":  {append(packets("\x00a"), 0, 0, 0, 0, 1), []string{"\x00a"}, io.ErrUnexpectedEOF},
		"end in data":     {append(packets("\x00a"), 0, 0, 0, 0, 5, 'b', 'c'), []string{"\x00a", "\x00bc"}, io.ErrUnexpectedEOF},
		"4 GiB announced": {[]byte("L\xff\xff\xff\xffb\tc"), []string{"Lb\tc"}, io.ErrUnexpectedEOF},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 4, 5, 6, 7, 4095, 1 << 20} {
				all, err := readChunks(t, true, bytes.NewReader(tc.in), size)
				if err != tc.err {
					t.Errorf("%d bytes a read: ended with %v, want %v", size, err, tc.err)
				}
				var got []string
				for _, c := range all {
					got = append(got, string(c.Channel)+string(c.Data))
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%d bytes a read (-want +got):\n%.2000s", size, diff)
				}
			}
		})
	}
}

func TestChunksWithoutFrames(t *testing.T) {
	in := "a\tb\t\n+\n"
	for _, size := range []int{1, 5, 100} {
		all, err := readChunks(t, false, strings.NewReader(in), size)
		if err != io.EOF {
			t.Errorf("ended with %v", err)
		}
		var got []byte
		for _, c := range all {
			if c.Channel != ChannelReply || len(c.Data) > size {
				t.Errorf("%d bytes a read gave %d bytes of channel %q", size, len(c.Data), c.Channel)
			}
			got = append(got, c.Data...)
		}
		if string(got) != in {
			t.Errorf("got %q, want %q", got, in)
		}
	}
}

func TestPacketsTooLargeForOnePiece(t *testing.T) {
	field := strings.Repeat("f", 1000)
	rows := strings.Repeat(field+"\t", 1000)
	tests := map[string]struct {
		channel byte
		data    string
		cut     string // what every piece but the last ends with
	}{
		"fields":          {ChannelReply, rows + "\n+\n", "\t"},
		"one large field": {ChannelReply, "1\t" + strings.Repeat("x", 1<<20) + "\t\n+\n", ""},
		"log":             {ChannelLog, "\x04" + rows + "\n", ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			in := AppendPacket(nil, tc.channel, []byte(tc.data))
			for _, size := range []int{4096, 1 << 21} {
				all, err := readChunks(t, true, bytes.NewReader(in), size)
				if err != io.EOF || len(all) < 4 {
					t.Fatalf("%d pieces, then %v", len(all), err)
				}
				var got []byte
				for i, c := range all {
					if c.Channel != tc.channel || len(c.Data) > maxWholePacket {
						t.Errorf("a piece of %d bytes of channel %q", len(c.Data), c.Channel)
					}
					if i < len(all)-1 && !bytes.HasSuffix(c.Data, []byte(tc.cut)) {
						t.Errorf("a piece ends with %q", c.Data[len(c.Data)-1])
					}
					got = append(got, c.Data...)
				}
				if string(got) != tc.data {
					t.Error("the pieces are not the packet")
				}
			}
		})
	}
}

func TestNotCleanInsideALargePacket(t *testing.T) {
	in := AppendPacket(nil, ChannelReply, make([]byte, maxWholePacket+10))
	b := newReadBuffer(io.MultiReader(bytes.NewReader(in[:frameHeader+maxWholePacket]), bytes.NewReader(in[frameHeader+maxWholePacket:])), readSize)
	c := chunkReader{framed: true}
	for _, want := range []int{maxWholePacket, 10} {
		chunk, err := c.next(&b)
		if err != nil || len(chunk.Data) != want {
			t.Fatalf("got %d bytes, %v, want %d", len(chunk.Data), err, want)
		}
		if c.clean(&b) != (want == 10) {
			t.Errorf("clean is %v behind a piece of %d bytes", c.clean(&b), want)
		}
	}
}

// failingReader returns its error once, as a socket does.
type failingReader struct {
	io.Reader
	err error
}

func (f *failingReader) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err == io.EOF && f.err != nil {
		err, f.err = f.err, nil
	}
	return n, err
}

func TestResetInsideAPacket(t *testing.T) {
	in := append(packets("\x00a"), 0, 0, 0, 0, 5, 'b', 'c')
	all, err := readChunks(t, true, &failingReader{bytes.NewReader(in), syscall.ECONNRESET}, 100)
	want := []Chunk{{Data: []byte("a")}, {Data: []byte("bc")}}
	if diff := cmp.Diff(want, all); diff != "" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("then %v, chunks (-want +got):\n%s", err, diff)
	}
}

func TestTimeoutInsideAPacket(t *testing.T) {
	whole := packets("\x00abc", "\x00d")
	for i := range whole[:9] {
		b := newReadBuffer(io.MultiReader(
			&failingReader{bytes.NewReader(whole[:i]), os.ErrDeadlineExceeded},
			bytes.NewReader(whole[i:])), readSize)
		c := chunkReader{framed: true}
		chunk, err := c.next(&b)
		if err == os.ErrDeadlineExceeded {
			chunk, err = c.next(&b)
		}
		if err != nil || string(chunk.Data) != "abc" {
			t.Errorf("timeout behind %d bytes: then %q, %v", i, chunk.Data, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, tr := range loadTranscripts(f) {
		_, server, _ := tr.split()
		if stream := bytes.Join(server, nil); len(stream) < 4000 {
			f.Add(stream, uint16(len(stream)/2))
		}
	}
	f.Add([]byte("\x00\xff\xff\xff\xffabc\tdef"), uint16(3))
	f.Add([]byte(everything), uint16(3))
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		if bytes.HasPrefix(stream, []byte(StreamHeader[:streamMagic])) {
			want, problem := readStream(string(stream))
			if got, err := byChannel(t, bytes.NewReader(stream), 1+int(size)); !maps.Equal(want, got) || !endsAs(err, problem) {
				t.Errorf("ended with %v, want %q; data by channel (-want +got):\n%s", err, problem, cmp.Diff(want, got))
			}
			return
		}
		// A second reader, on the whole stream.
		want := map[byte][]byte{}
		rest, whole := stream, true
		for len(rest) > 0 {
			if whole = len(rest) >= 5; !whole {
				break
			}
			n := uint64(binary.BigEndian.Uint32(rest[1:5]))
			channel, data := rest[0], rest[5:]
			if whole = uint64(len(data)) >= n; !whole {
				n = uint64(len(data))
			}
			want[channel] = append(want[channel], data[:n]...)
			rest = data[n:]
			if !whole {
				break
			}
		}
		all, err := readChunks(t, true, bytes.NewReader(stream), 1+int(size))
		if (err == io.EOF) != whole || !whole && err != io.ErrUnexpectedEOF {
			t.Errorf("ended with %v, whole packets: %v", err, whole)
		}
		got := map[byte][]byte{}
		for _, c := range all {
			got[c.Channel] = append(got[c.Channel], c.Data...)
		}
		for channel, data := range want {
			if len(data) == 0 {
				delete(want, channel)
			}
		}
		if !maps.EqualFunc(want, got, bytes.Equal) {
			t.Errorf("data by channel (-want +got):\n%s", cmp.Diff(want, got))
		}
	})
}
