package doveadm

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEscape(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	tests := map[string]struct{ plain, escaped string }{
		"empty":     {"", ""},
		"nothing":   {"INBOX/Entwürfe \x7f\xff", "INBOX/Entwürfe \x7f\xff"},
		"each":      {"\x00\x01\t\r\n", "\x010\x011\x01t\x01r\x01n"},
		"in text":   {"a\tb\nc", "a\x01tb\x01nc"},
		"of itself": {"\x01t", "\x011t"},
		"at ends":   {"\nx\n", "\x01nx\x01n"},
		"all bytes": {string(all), "\x010\x011" + string(all[2:9]) + "\x01t\x01n\x0b\x0c\x01r" + string(all[14:])},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := AppendEscaped([]byte("x"), tc.plain)
			if diff := cmp.Diff("x"+tc.escaped, string(got)); diff != "" {
				t.Errorf("escaped (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.plain, string(Unescape(got[1:]))); diff != "" {
				t.Errorf("unescaped again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnescapeWhatNobodyWrites(t *testing.T) {
	// As Dovecot's str_tabunescape does.
	tests := map[string]struct{ escaped, plain string }{
		"unknown pair":       {"a\x01xb", "axb"},
		"raw byte in a pair": {"a\x01\x01b", "a\x01b"},
		"lone at the end":    {"ab\x01", "ab"},
		"alone":              {"\x01", ""},
		"three":              {"\x01\x01\x01", "\x01"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.plain, string(Unescape([]byte(tc.escaped)))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnescapePieceByPiece(t *testing.T) {
	escaped := []byte("\x01ta\x01\x01b\x01nlonger\x01rtext\x01xy\x01t\x010\x01")
	want := Unescape(bytes.Clone(escaped))
	for size := 1; size <= len(escaped); size++ {
		var got []byte
		open := false
		for rest := bytes.Clone(escaped); len(rest) > 0; {
			piece := rest[:min(size, len(rest))]
			rest = rest[len(piece):]
			piece, open = unescapePiece(piece, open)
			got = append(got, piece...)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" || !open {
			t.Errorf("in pieces of %d bytes (-whole +pieces), open %v:\n%s", size, open, diff)
		}
	}
	if piece, open := unescapePiece(nil, true); len(piece) > 0 || !open {
		t.Errorf("an empty piece inside a pair gave %q, open %v", piece, open)
	}
}
