package doveadm

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestLine(t *testing.T) {
	const limit = 10_000
	longest := strings.Repeat("x", limit-1)
	tests := map[string]struct {
		in   string
		want []string
		err  error
	}{
		"empty stream":        {"", nil, io.EOF},
		"LF":                  {"a\nb\n", []string{"a", "b"}, io.EOF},
		"CRLF":                {"a\r\nb\r\n", []string{"a", "b"}, io.EOF},
		"one CR only":         {"a\r\r\n\r\n", []string{"a\r", ""}, io.EOF},
		"empty lines":         {"\n\n", []string{"", ""}, io.EOF},
		"end inside":          {"a\nb", []string{"a"}, io.ErrUnexpectedEOF},
		"at the limit":        {longest + "\n" + longest + "\na\n", []string{longest, longest, "a"}, io.EOF},
		"CRLF at the limit":   {longest[1:] + "\r\na\n", []string{longest[1:], "a"}, io.EOF},
		"over the limit":      {"a\n" + longest + "x\n", []string{"a"}, ErrLineTooLong},
		"CRLF over it":        {longest + "\r\n", nil, ErrLineTooLong},
		"without end":         {longest + longest, nil, ErrLineTooLong},
		"limit, then nothing": {longest, nil, io.ErrUnexpectedEOF},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, src := range map[string]io.Reader{
				"whole":      strings.NewReader(tc.in),
				"bytes":      iotest.OneByteReader(strings.NewReader(tc.in)),
				"with error": iotest.DataErrReader(strings.NewReader(tc.in)),
			} {
				b := newReadBuffer(src, readSize)
				var got []string
				line, err := b.line(limit)
				for ; err == nil; line, err = b.line(limit) {
					got = append(got, string(line))
				}
				if err != tc.err {
					t.Errorf("%s: ended with %v, want %v", kind, err, tc.err)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("%s: lines (-want +got):\n%s", kind, diff)
				}
				if len(b.buf) > 4*limit {
					t.Errorf("%s: holds %d bytes for lines of %d", kind, len(b.buf), limit)
				}
			}
		})
	}
}

// TestFirstBuffer: a client that sends little at a time is read into little, and
// one that sends more into what all others have, in as few reads.
func TestFirstBuffer(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	few := newReadBuffer(iotest.OneByteReader(strings.NewReader(strings.Repeat(line, 20))), firstSize)
	src, reads := strings.NewReader(strings.Repeat(line, 20)), 0
	many := newReadBuffer(readFunc(func(p []byte) (int, error) {
		reads++
		return src.Read(p)
	}), firstSize)
	for range 20 {
		for _, b := range []*readBuffer{&few, &many} {
			if got, err := b.line(MaxLine); err != nil || string(got)+"\n" != line {
				t.Fatalf("%q, %v", got, err)
			}
		}
	}
	if len(few.buf) != firstSize {
		t.Errorf("holds %d bytes for lines of %d", len(few.buf), len(line))
	}
	if many.shrink(); len(many.buf) != readSize || reads != 2 {
		t.Errorf("holds %d bytes after %d reads", len(many.buf), reads)
	}
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestLineOfTheLargestSizeNeedsNoMore(t *testing.T) {
	b := newReadBuffer(strings.NewReader(strings.Repeat("x", 3*MaxLine)), readSize)
	if _, err := b.line(MaxLine); err != ErrLineTooLong {
		t.Fatalf("got %v, want %v", err, ErrLineTooLong)
	}
	if len(b.buf) > MaxLine {
		t.Errorf("holds %d bytes, more than the %d of a line", len(b.buf), MaxLine)
	}
}

func TestShrink(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	b := newReadBuffer(strings.NewReader(long+"\nnext\n"+long+"\n"+long+"\n"), readSize)
	line, err := b.line(MaxLine)
	if err != nil {
		t.Fatal(err)
	}
	rest := bytes.Clone(b.buffered())
	if len(rest) <= readSize {
		t.Fatalf("the test needs more than %d bytes behind the line, has %d", readSize, len(rest))
	}
	if b.shrink(); len(b.buf) <= readSize {
		t.Error("shrunk with too much in it")
	}
	if b.discard(len(rest) - 10); len(b.buffered()) != 10 {
		t.Fatal("the test is wrong")
	}
	b.shrink()
	if len(b.buf) != readSize {
		t.Errorf("holds %d bytes, want %d", len(b.buf), readSize)
	}
	if diff := cmp.Diff(string(rest[len(rest)-10:]), string(b.buffered())); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if string(line) != long {
		t.Error("a line that was returned before has changed")
	}
}

type noProgress struct{}

func (noProgress) Read([]byte) (int, error) { return 0, nil }

func TestReaderWithoutProgress(t *testing.T) {
	b := newReadBuffer(noProgress{}, readSize)
	if _, err := b.line(100); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v, want %v", err, io.ErrNoProgress)
	}
}
