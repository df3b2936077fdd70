package doveadm

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/textproto"
	"strings"
	"testing"
	"testing/iotest"
)

func TestInput(t *testing.T) {
	for _, tt := range []struct{ name, stream, input string }{
		{"empty", ".\r\nrest", ".\r\n"},
		{"empty with LF", ".\nrest", ".\n"},
		{"empty after a line end", "\r\n.\r\nrest", "\r\n.\r\n"},
		{"a line", "a\r\n.\r\nrest", "a\r\n.\r\n"},
		{"bare LF", "a\n.\nrest", "a\n.\n"},
		{"stuffed dots", "..\r\n...\n..a\r\n.\r\nrest", "..\r\n...\n..a\r\n.\r\n"},
		{"dot in front of text", ".a\r\n.\r\nrest", ".a\r\n.\r\n"},
		{"dot and two CR", ".\r\r\n.\r\nrest", ".\r\r\n.\r\n"},
		{"dot behind a bare CR", "a\r.\r\n.\r\nrest", "a\r.\r\n.\r\n"},
		{"dot, CR, text", ".\rx\n.\nrest", ".\rx\n.\n"},
		{"dot at the end of a line", "a.\r\n.\r\nrest", "a.\r\n.\r\n"},
		{"commands", "\tbob\tkick\r\n.\r\nrest", "\tbob\tkick\r\n.\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, wrap := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r },
				iotest.OneByteReader,
				iotest.HalfReader,
			} {
				s := NewServerConn(&recordedConn{in: wrap(strings.NewReader(tt.stream))}, 0)
				got, err := io.ReadAll(s.ReadInput())
				if string(got) != tt.input || err != nil {
					t.Errorf("read %q (%v), want %q", got, err, tt.input)
				}
				pieces := NewServerConn(&recordedConn{in: wrap(strings.NewReader(tt.stream))}, 0).ReadInput()
				for got = nil; err == nil; {
					var p []byte
					p, err = pieces.Next()
					got = append(got, p...)
				}
				if string(got) != tt.input || err != io.EOF {
					t.Errorf("the pieces are %q (%v), want %q", got, err, tt.input)
				}
				rest, err := io.ReadAll(s.Tunnel())
				if string(rest) != "rest" || err != nil {
					t.Errorf("behind it %q (%v)", rest, err)
				}
			}
			s := NewServerConn(&recordedConn{in: strings.NewReader(tt.input[:len(tt.input)-1])}, 0)
			if _, err := io.ReadAll(s.ReadInput()); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("cut before the end: %v", err)
			}
		})
	}
}

func TestInputWriter(t *testing.T) {
	for _, tt := range []struct{ data, input string }{
		{"", "\r\n.\r\n"},
		{"a", "a\r\n.\r\n"},
		{"a\n", "a\r\n\r\n.\r\n"},
		{"a\r\n", "a\r\n\r\n.\r\n"},
		{".\n", "..\r\n\r\n.\r\n"},
		{"\n.a\n..", "\r\n..a\r\n...\r\n.\r\n"},
		{"a\r", "a\r\r\n.\r\n"},
	} {
		for size := 1; size <= len(tt.data)+1; size++ {
			var b bytes.Buffer
			w := NewInputWriter(&b)
			for rest := tt.data; rest != ""; {
				n := min(size, len(rest))
				if m, err := w.Write([]byte(rest[:n])); m != n || err != nil {
					t.Fatal(m, err)
				}
				rest = rest[n:]
			}
			if err := w.Close(); err != nil || b.String() != tt.input {
				t.Errorf("%q in pieces of %d: %q (%v), want %q", tt.data, size, b.String(), err, tt.input)
			}
		}
	}
}

// FuzzInput: whatever is written by an InputWriter is read whole by an Input,
// never less and never more, however it is cut; and whatever is read ends
// where a reader of the SMTP form ends.
func FuzzInput(f *testing.F) {
	for _, seed := range []string{"", ".", "a\n.\nb", "\r.\r\n.\r\r\n", "..\n", ".\r\n\tbob\tkick\n", "a\r\n.\rx\n.\n"} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		var b bytes.Buffer
		w := NewInputWriter(&b)
		w.Write(data)
		w.Close()
		encoded := b.String()
		if size < 1 {
			size = 1
		}
		s := NewServerConn(&recordedConn{in: iotest.HalfReader(strings.NewReader(encoded + "rest\n"))}, 0)
		got, err := io.ReadAll(s.ReadInput())
		if err != nil || string(got) != encoded {
			t.Errorf("wrote %q, read %q (%v)", encoded, got, err)
		}

		// Any bytes: the end is the first line that is a lone dot.
		s = NewServerConn(&recordedConn{in: &pieces{data: data, size: size}}, 0)
		got, err = io.ReadAll(s.ReadInput())
		end := -1
		for at, line := range lines(data) {
			if line == ".\n" || line == ".\r\n" {
				end = at + len(line)
				break
			}
		}
		if end < 0 {
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("no end in %q, read %q (%v)", data, got, err)
			}
		} else if err != nil || !bytes.Equal(got, data[:end]) {
			t.Errorf("of %q read %q (%v), want %q", data, got, err, data[:end])
		}
	})
}

// lines yields each line of data with its offset.
func lines(data []byte) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		at := 0
		for line := range bytes.Lines(data) {
			if !yield(at, string(line)) {
				return
			}
			at += len(line)
		}
	}
}

// pieces is a reader that returns size bytes at a time.
type pieces struct {
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

// TestInputAgainstTextproto compares with the standard library's reader of the
// SMTP form, which drops CR before LF.
func TestInputAgainstTextproto(t *testing.T) {
	const data = "Subject: x\n\n.\n..\nlast"
	var b bytes.Buffer
	w := NewInputWriter(&b)
	io.WriteString(w, data)
	w.Close()
	got, err := io.ReadAll(textproto.NewReader(bufio.NewReader(&b)).DotReader())
	if err != nil || string(got) != data+"\n" {
		t.Errorf("read %q (%v)", got, err)
	}
}
