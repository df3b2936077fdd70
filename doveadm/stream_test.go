package doveadm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readStream is a second, simpler reader of STREAM. It returns the data of
// each channel and what is wrong at the end of it: nothing, that it is cut, or
// a header or escape that does not exist.
func readStream(stream string) (data map[byte]string, problem string) {
	bytes := map[byte][]byte{}
	defer func() { data = texts(bytes) }()
	body, ok := strings.CutPrefix(stream, StreamHeader)
	if !ok {
		if len(stream) < len(StreamHeader) {
			return nil, "cut"
		}
		return nil, "header"
	}
	channel := byte(0)
	for len(body) > 0 {
		size, literal := 1, body[:1]
		switch {
		case body[0] != 3 || len(body) > 1 && body[1] != 0xfe:
		case len(body) < 3:
			return nil, "cut"
		case body[2] == 1:
			size = 3
		case body[2] != 0:
			return nil, "escape"
		case len(body) < 4:
			return nil, "cut"
		default:
			size, literal, channel = 4, "", body[3]
		}
		if literal != "" {
			bytes[channel] = append(bytes[channel], literal...)
		}
		body = body[size:]
	}
	return nil, ""
}

func texts(data map[byte][]byte) map[byte]string {
	all := map[byte]string{}
	for channel, text := range data {
		all[channel] = string(text)
	}
	return all
}

// byChannel returns the data of each channel and the error of the end.
func byChannel(t *testing.T, src io.Reader, size int) (map[byte]string, error) {
	t.Helper()
	all, err := readChunks(t, true, src, size)
	data := map[byte][]byte{}
	for _, c := range all {
		if len(c.Data) == 0 {
			t.Error("an empty chunk")
		}
		data[c.Channel] = append(data[c.Channel], c.Data...)
	}
	return texts(data), err
}

// endsAs reports whether err is the end of a stream with that problem.
func endsAs(err error, problem string) bool {
	var bad *ProtocolError
	switch problem {
	case "":
		return err == io.EOF
	case "cut":
		return err == io.ErrUnexpectedEOF
	}
	return errors.As(err, &bad)
}

func TestStream(t *testing.T) {
	const toLog, back, literal = "\x03\xfe\x00L", "\x03\xfe\x00\x00", "\x03\xfe\x01"
	large := strings.Repeat("x\x03y", 20_000)
	type channels = map[byte]string
	tests := map[string]struct {
		in      string
		want    channels
		problem string
	}{
		"nothing":                    {"", channels{}, ""},
		"one":                        {"a\t\n+\n", channels{0: "a\t\n+\n"}, ""},
		"two channels":               {toLog + "\x04text\n" + back + "a\t" + toLog + "\x02more\n" + back + "\n+\n", channels{'L': "\x04text\n\x02more\n", 0: "a\t\n+\n"}, ""},
		"switch to the same":         {back + "a" + back + back + "b", channels{0: "ab"}, ""},
		"switches only":              {toLog + back, channels{}, ""},
		"to a channel named 03":      {"\x03\xfe\x00\x03\xfe\x00\x03\xfe\x00\x00b", channels{3: "\xfe\x00", 0: "b"}, ""},
		"literal":                    {"a" + literal + "b", channels{0: "a\x03b"}, ""},
		"literal first":              {literal + "b", channels{0: "\x03b"}, ""},
		"literal last":               {"a" + literal, channels{0: "a\x03"}, ""},
		"literals only":              {literal + literal + literal, channels{0: "\x03\x03\x03"}, ""},
		"the escape as data":         {literal + "\xfe" + literal + "\xfe\x01", channels{0: "\x03\xfe\x03\xfe\x01"}, ""},
		"literal in front of escape": {literal + toLog + "x" + back + literal, channels{0: "\x03\x03", 'L': "x"}, ""},
		"03 that is data":            {"\x03a\x03\x03b\x03\xff", channels{0: "\x03a\x03\x03b\x03\xff"}, ""},
		"03 in front of an escape":   {"\x03" + literal + "\x03" + toLog + "x", channels{0: "\x03\x03\x03", 'L': "x"}, ""},
		"bytes of a packet":          {"L\x00\x00\x00\x01x\xff\xff\xff\xff\xff", channels{0: "L\x00\x00\x00\x01x\xff\xff\xff\xff\xff"}, ""},
		"unknown channel":            {"\x03\xfe\x00Xdata" + back + "a", channels{'X': "data", 0: "a"}, ""},
		"large":                      {large + toLog + large + back + "\n+\n", channels{0: large + "\n+\n", 'L': large}, ""},
		"ends with 03":               {"a\x03", channels{0: "a"}, "cut"},
		"ends in an escape":          {"a\x03\xfe", channels{0: "a"}, "cut"},
		"ends in a switch":           {"a\x03\xfe\x00", channels{0: "a"}, "cut"},
		"bad escape":                 {"a\x03\xfe\x02b", channels{0: "a"}, "escape"},
		"bad escape behind a switch": {toLog + "a" + back + "\x03\xfe\xff", channels{'L': "a"}, "escape"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			in := StreamHeader + tc.in
			if tc.in == "" {
				in = ""
			}
			for _, size := range []int{1, 2, 3, 4, 5, 7, 9, 10, 4095, 1 << 20} {
				got, err := byChannel(t, strings.NewReader(in), size)
				if diff := cmp.Diff(tc.want, got); diff != "" || !endsAs(err, tc.problem) {
					t.Errorf("%d bytes a read: ended with %v, want %q; channels (-want +got):\n%.2000s", size, err, tc.problem, diff)
				}
			}
			if again, problem := readStream(StreamHeader + tc.in); !maps.Equal(tc.want, again) || problem != tc.problem {
				t.Errorf("the second reader got %.2000q, %q", again, problem)
			}
		})
	}
}

func TestStreamHeader(t *testing.T) {
	tests := map[string]string{ // in: problem
		"\xff\xff\xff\xff\xff\x00\x02\x03\xfe": "",
		"\xff\xff\xff\xff\xff\x01\x02\x03\xfe": "header",
		"\xff\xff\xff\xff\xff\x00\x01\x03\xfe": "header",
		"\xff\xff\xff\xff\xff\x00\x02\x03\xff": "header",
		"\xff\xff\xff\xff\xff\x00\x02\x02\xfe": "header",
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff": "header",
		"\xff\xff\xff\xff\xff\x00\x02\x03":     "cut",
		"\xff\xff\xff\xff\xff":                 "cut",
		"\xff":                                 "cut",
		"\xff\xff\xff\xff\x00":                 "cut", // a packet
	}
	for in, problem := range tests {
		for _, size := range []int{1, 5, 6, 100} {
			if got, err := byChannel(t, strings.NewReader(in), size); len(got) > 0 || !endsAs(err, problem) {
				t.Errorf("%q: %q, ended with %v, want %q", in, got, err, problem)
			}
		}
	}
	// A packet of a channel that begins as the header does.
	in := "\xff\xff\xff\xff\x00x"
	if got, err := byChannel(t, strings.NewReader(in), 100); got[0xff] != "x" || err != io.ErrUnexpectedEOF {
		t.Errorf("%q: %q, %v", in, got, err)
	}
}

// everything is a stream with one of each.
const everything = StreamHeader + "a\x03b\x03\xfe\x01\xfe\x03\x03\xfe\x01c\x03\xfe\x00L\x03\xfe\x01log\n\x03\xfe\x00\x00\x03\xfe\x00\x03\xfe\x00\x03\xfe\x00\x00\t\n+\n"

// At whatever byte a stream ends, or waits, what has arrived is handed on, and
// no half of an escape.
func TestStreamCutAnywhere(t *testing.T) {
	whole, _ := readStream(everything)
	for i := range len(everything) + 1 {
		want, problem := readStream(everything[:i])
		if i == 0 {
			problem = ""
		}
		for _, size := range []int{1, 100} {
			got, err := byChannel(t, strings.NewReader(everything[:i]), size)
			if !maps.Equal(want, got) || !endsAs(err, problem) {
				t.Errorf("cut behind %d bytes: %q, %v, want %q, %q", i, got, err, want, problem)
			}
		}

		for _, interruption := range []error{os.ErrDeadlineExceeded, syscall.ECONNRESET} {
			b := newReadBuffer(io.MultiReader(
				&failingReader{strings.NewReader(everything[:i]), interruption},
				strings.NewReader(everything[i:])), readSize)
			c := chunkReader{framed: true}
			got := map[byte]string{}
			read := func() error {
				for {
					chunk, err := c.next(&b)
					if err != nil {
						return err
					}
					got[chunk.Channel] += string(chunk.Data)
				}
			}
			if err := read(); err != interruption {
				t.Fatalf("%v behind %d bytes: got %v", interruption, i, err)
			}
			if !maps.Equal(want, got) || c.ready(&b) || c.clean(&b) != (problem == "") {
				t.Errorf("%v behind %d bytes: %q, ready %v, clean %v, want %q, %q", interruption, i, got, c.ready(&b), c.clean(&b), want, problem)
			}
			if err := read(); err != io.EOF || !maps.Equal(whole, got) {
				t.Errorf("%v behind %d bytes: then %q, %v, want %q", interruption, i, got, err, whole)
			}
		}
	}
}

// A header or a switch that has arrived with nothing behind it is no reason to
// distrust a connection that rests.
func TestStreamCleanWithoutData(t *testing.T) {
	for stream, want := range map[string]bool{
		StreamHeader:                                true,
		StreamHeader + "\x03\xfe\x00\x00":           true,
		StreamHeader + "\x03\xfe\x00L\x03\xfe\x00X": true,
		StreamHeader + "\x03\xfe\x00":               false,
		StreamHeader + "\x03":                       false,
		StreamHeader + "\x03\xfe\x00La":             false,
		StreamHeader + "\x03\xfe\x07":               false,
		StreamHeader[:7]:                            false,
	} {
		b := newReadBuffer(strings.NewReader(stream), readSize)
		c := chunkReader{framed: true}
		if err := b.fill(0); err != nil {
			t.Fatal(err)
		}
		if got := c.clean(&b); got != want {
			t.Errorf("%q: clean %v, want %v", stream, got, want)
		}
		if c.ready(&b) != (strings.HasSuffix(stream, "a") || c.err != nil) {
			t.Errorf("%q: ready %v", stream, c.ready(&b))
		}
	}
}

func TestAppendStream(t *testing.T) {
	tests := map[string]struct {
		channel    byte
		data, want string
	}{
		"nothing":            {0, "", ""},
		"nothing to log":     {'L', "", ""},
		"data":               {0, "abc", "abc"},
		"log":                {'L', "\x04text\n", "\x03\xfe\x00L\x04text\n\x03\xfe\x00\x00"},
		"the escape":         {0, "\x03\xfe", "\x03\xfe\x01\xfe"},
		"a switch":           {0, "a\x03\xfe\x00L", "a\x03\xfe\x01\xfe\x00L"},
		"03":                 {0, "\x03", "\x03\xfe\x01"},
		"03 and other":       {0, "\x03x", "\x03x"},
		"03 and FE apart":    {0, "\x03\x00\xfe", "\x03\x00\xfe"},
		"03 at the end":      {0, "a\x03", "a\x03\xfe\x01"},
		"03 twice":           {0, "\x03\x03", "\x03\x03\xfe\x01"},
		"03 and the escape":  {0, "\x03\x03\xfe", "\x03\x03\xfe\x01\xfe"},
		"03 ends a log line": {'L', "\x04a\x03", "\x03\xfe\x00L\x04a\x03\xfe\x01\x03\xfe\x00\x00"},
	}
	for name, tc := range tests {
		if got := string(AppendStream([]byte(">"), tc.channel, []byte(tc.data))); got != ">"+tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	reply := bytes.Repeat([]byte("a\x03\xfe\x03"), 1000)
	dst := make([]byte, 0, 4*len(reply))
	for minor := MinorBase; minor <= MaxMinor; minor++ {
		s := trusted(t, minor, 0, "")
		s.logs.Store(true)
		if n := testing.AllocsPerRun(100, func() {
			s.AppendLogs(s.AppendReply(dst, reply), reply[:4])
		}); n != 0 {
			t.Errorf("minor %d: %v allocations", minor, n)
		}
	}
}

// Replies are made side by side: sent in whatever order, or not at all, each
// piece is read as what it was.
func TestPiecesInAnyOrder(t *testing.T) {
	s := trusted(t, MinorStream, 0, "\t\tOPTION\tlog-passthrough\n\t\twho\n")
	if err := s.ReadCommand(new(Command)); err != nil {
		t.Fatal(err)
	}
	var pieces [][]byte
	for i := range 3 {
		text := fmt.Sprintf("%d\x03\xfe\x03", i)
		pieces = append(pieces, s.AppendReply(nil, []byte(text)), s.AppendLogs(nil, []byte(text)))
	}
	stream := StreamHeader + string(bytes.Join([][]byte{pieces[5], pieces[2], pieces[1], pieces[0]}, nil))
	want := map[byte]string{0: "1\x03\xfe\x030\x03\xfe\x03", 'L': "2\x03\xfe\x030\x03\xfe\x03"}
	if got, problem := readStream(stream); !maps.Equal(want, got) || problem != "" {
		t.Errorf("%q: got %q, %q, want %q", stream, got, problem, want)
	}
}

// FuzzStream reads any bytes as STREAM, and writes and reads them.
func FuzzStream(f *testing.F) {
	f.Add([]byte(everything[len(StreamHeader):]), uint16(0), uint16(1))
	f.Add([]byte("a\x03\xfe\x05"), uint16(2), uint16(3))
	f.Add([]byte("\x03\x03\xfe\xfe\x03L\x03\xfe\x00L\x00\x03"), uint16(1), uint16(4))
	f.Fuzz(func(t *testing.T, p []byte, read, write uint16) {
		want, problem := readStream(StreamHeader + string(p))
		got, err := byChannel(t, strings.NewReader(StreamHeader+string(p)), 1+int(read))
		if !maps.Equal(want, got) || !endsAs(err, problem) {
			t.Errorf("ended with %v, want %q; channels (-want +got):\n%s", err, problem, cmp.Diff(want, got))
		}

		// Written in pieces of one channel and the other.
		stream := []byte(StreamHeader)
		want = map[byte]string{}
		for rest, channel := p, ChannelReply; len(rest) > 0; channel ^= ChannelReply ^ ChannelLog {
			piece := rest[:min(len(rest), 1+int(write))]
			rest = rest[len(piece):]
			stream = AppendStream(stream, channel, piece)
			want[channel] += string(piece)
			// No byte waits for the next piece.
			if len(p) < 100 {
				if got, problem := readStream(string(stream)); !maps.Equal(want, got) || problem != "" {
					t.Fatalf("%q holds %q, %q, want %q", stream, got, problem, want)
				}
			}
		}
		got, err = byChannel(t, bytes.NewReader(stream), 1+int(read))
		if !maps.Equal(want, got) || err != io.EOF {
			t.Errorf("ended with %v; channels (-want +got):\n%s", err, cmp.Diff(want, got))
		}
	})
}
