package doveadm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAppendLogLine(t *testing.T) {
	tests := map[string]struct {
		text, want string
	}{
		"plain":        {"User doesn't exist", "\x04User doesn't exist\n"},
		"line end":     {"text\n\n", "\x04text\n"},
		"second line":  {"a\n\x03b", "\x04a  b\n"},
		"control":      {"a\tb\rc\x00d\x7fe", "\x04a b c d e\n"},
		"other script": {"Übersicht", "\x04Übersicht\n"},
		"empty":        {"", "\x04\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := appendLogLine([]byte("x"), LogError, tc.text)
			if diff := cmp.Diff("x"+tc.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := appendLogLine(nil, LogError, strings.Repeat("x", 1<<20)); len(got) != 32<<10 || got[len(got)-1] != '\n' {
		t.Errorf("a text of 1 MiB became %d bytes", len(got))
	}
}

func TestLogLines(t *testing.T) {
	long := strings.Repeat("x", maxLogLine-1)
	tests := map[string]struct {
		data string
		want []string
	}{
		"one":              {"\x04text\n", []string{"error text"}},
		"several":          {"\x01a\n\x02b\n\x03c\n\x05d\n\x06e\n", []string{"debug a", "info b", "warning c", "fatal d", "panic e"}},
		"empty line":       {"\n\n\x04a\n\n", []string{"error a"}},
		"empty text":       {"\x04\n", []string{"error "}},
		"invalid level":    {"no level\n", []string{"unknown o level"}},
		"not ended":        {"\x04a\n\x04b", []string{"error a"}},
		"longest":          {"\x04" + long + "\n\x02b\n", []string{"error " + long, "info b"}},
		"too long":         {"\x04" + long + "yz\n\x02b\n", []string{"error " + long, "info b"}},
		"much too long":    {"\x04" + long + long + long + "\n\x02b\n", []string{"error " + long, "info b"}},
		"nothing at all":   {"", nil},
		"carriage returns": {"\x04a\r\n", []string{"error a\r"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1, 7, 5000, 1 << 20} {
				var l logLines
				var got []string
				for rest := tc.data; rest != ""; {
					n := min(size, len(rest))
					l.read([]byte(rest[:n]), func(level LogLevel, text string) { got = append(got, level.String()+" "+text) })
					rest = rest[n:]
					if cap(l.line) > 2*maxLogLine {
						t.Fatalf("holds %d bytes", cap(l.line))
					}
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("in pieces of %d bytes (-want +got):\n%s", size, diff)
				}
			}
		})
	}
}
