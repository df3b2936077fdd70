package doveadm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scanned is all that a ReplyScanner tells.
type scanned struct {
	Output     string
	Rest       string // what is behind the reply
	Status     Status
	Done       bool
	OutputEnd  bool
	Fields     int64
	MidField   bool
	ErrorFound bool
}

// scan reads stream in pieces that end at the cuts.
func scan(t *testing.T, stream []byte, cuts ...int) scanned {
	t.Helper()
	var s ReplyScanner
	var got scanned
	from := 0
	for _, to := range append(cuts, len(stream)) {
		piece := stream[from:to]
		if s.Done() || got.ErrorFound {
			got.Rest += string(piece)
			from = to
			continue
		}
		before := s.OutputEnded()
		output, consumed, err := s.Scan(piece)
		if output > 0 && before || output > consumed || consumed > len(piece) || consumed < len(piece) && !s.Done() && err == nil {
			t.Fatalf("%q: output %d of %d consumed, done %v, %v", piece, output, consumed, s.Done(), err)
		}
		var perr *ProtocolError
		if err != nil && !errors.As(err, &perr) {
			t.Fatalf("%q: got %v, want a ProtocolError", piece, err)
		}
		got.Output += string(piece[:output])
		got.Rest += string(piece[consumed:])
		got.ErrorFound = err != nil
		from = to
	}
	got.Status, got.Done, got.OutputEnd = s.Status(), s.Done(), s.OutputEnded()
	got.Fields, got.MidField = s.Fields(), s.MidField()
	if got.ErrorFound {
		got.Rest = "" // where a bad status line is noticed depends on the cuts
	}
	return got
}

func TestReplyScanner(t *testing.T) {
	longest := strings.Repeat("x", maxStatusLine-1)
	tests := map[string]struct {
		stream string
		want   scanned
	}{
		"nothing":           {"", scanned{}},
		"success":           {"\n+\n", scanned{Done: true, OutputEnd: true, Status: Status{OK: true}}},
		"success with text": {"\n+ fine\n", scanned{Done: true, OutputEnd: true, Status: Status{OK: true, Text: " fine"}}},
		"failure":           {"\n-NOUSER\n", scanned{Done: true, OutputEnd: true, Status: Failure(CodeNoUser)}},
		"CRLF":              {"a\t\n-NOUSER\r\n", scanned{Output: "a\t", Fields: 1, Done: true, OutputEnd: true, Status: Failure(CodeNoUser)}},
		"output":            {"a\tb\x01t\t\t\n+\n", scanned{Output: "a\tb\x01t\t\t", Fields: 3, Done: true, OutputEnd: true, Status: Status{OK: true}}},
		"output of user":    {"{}\n+\n", scanned{Output: "{}", MidField: true, Done: true, OutputEnd: true, Status: Status{OK: true}}},
		"output and no":     {"a\t\n-TEMPFAIL\n", scanned{Output: "a\t", Fields: 1, Done: true, OutputEnd: true, Status: Failure(CodeTempFail)}},
		"cut in a field":    {"a\tb", scanned{Output: "a\tb", Fields: 1, MidField: true}},
		"cut behind one":    {"a\tb\t", scanned{Output: "a\tb\t", Fields: 2}},
		"cut behind LF":     {"a\t\n", scanned{Output: "a\t", Fields: 1, OutputEnd: true}},
		"cut in the status": {"a\t\n-NOUS", scanned{Output: "a\t", Fields: 1, OutputEnd: true}},
		"second status":     {"\n-NOUSER\n\n-\n", scanned{Rest: "\n-\n", Done: true, OutputEnd: true, Status: Failure(CodeNoUser)}},
		"output behind":     {"\n+\n2\t", scanned{Rest: "2\t", Done: true, OutputEnd: true, Status: Status{OK: true}}},
		"empty status":      {"a\t\n\n", scanned{Output: "a\t", Fields: 1, OutputEnd: true, ErrorFound: true}},
		"no status":         {"\nOK\n", scanned{OutputEnd: true, ErrorFound: true}},
		"longest status":    {"\n-" + longest + "\n", scanned{Done: true, OutputEnd: true, Status: Failure(longest)}},
		"too long a status": {"\n-" + longest + "x\n", scanned{OutputEnd: true, ErrorFound: true}},
		"endless status":    {"\n-" + longest + "xx", scanned{OutputEnd: true, ErrorFound: true}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			stream := []byte(tc.stream)
			if diff := cmp.Diff(tc.want, scan(t, stream)); diff != "" {
				t.Errorf("in one piece (-want +got):\n%.2000s", diff)
			}
			var everywhere []int
			for cut := range stream {
				everywhere = append(everywhere, cut)
				if len(stream) > 100 && cut > 10 && cut < len(stream)-10 {
					continue
				}
				if diff := cmp.Diff(tc.want, scan(t, stream, cut)); diff != "" {
					t.Errorf("cut at %d (-want +got):\n%.2000s", cut, diff)
				}
			}
			if len(stream) > 100 {
				everywhere = []int{1, 2, len(stream) / 2, len(stream) - 1}
			}
			if diff := cmp.Diff(tc.want, scan(t, stream, everywhere...)); diff != "" {
				t.Errorf("cut everywhere (-want +got):\n%.2000s", diff)
			}
		})
	}
}

func FuzzReply(f *testing.F) {
	for _, tr := range loadTranscripts(f) {
		minor, _ := tr.clientMinor()
		_, packets, loggedIn := tr.split()
		if _, skip := notReplayed[tr.name[strings.IndexByte(tr.name, '_')+1:]]; skip || !loggedIn {
			continue
		}
		for _, p := range packets {
			if minor >= MinorMultiplex && len(p) > frameHeader {
				p = p[frameHeader:]
			}
			if len(p) < 2000 {
				f.Add(p, uint8(len(p)/2), uint8(3))
			}
		}
	}
	f.Add([]byte("a\t\n-NOUSER\r\n\n-\n"), uint8(4), uint8(200))
	f.Fuzz(func(t *testing.T, stream []byte, a, b uint8) {
		whole := scan(t, stream)
		cuts := []int{int(a) % (len(stream) + 1), int(b) % (len(stream) + 1)}
		slices.Sort(cuts)
		if got := scan(t, stream, cuts...); got != whole {
			t.Errorf("cut at %v (-whole +cut):\n%s", cuts, cmp.Diff(whole, got))
		}
		if !whole.Done {
			return
		}
		// What was understood is what stood there.
		again := AppendStatus([]byte(whole.Output+"\n"), whole.Status)
		again = append(again, whole.Rest...)
		line, _, _ := bytes.Cut(stream[len(whole.Output)+1:], []byte{'\n'})
		if bytes.HasSuffix(line, []byte{'\r'}) || bytes.HasSuffix(line, []byte{' '}) {
			return // these ends are not kept
		}
		if !bytes.Equal(again, stream) {
			t.Errorf("written again: %q, read: %q", again, stream)
		}
	})
}
