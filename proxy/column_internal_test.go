package proxy

import (
	"strings"
	"testing"
)

// TestUserColumn cuts output at every byte: the column is the same.
func TestUserColumn(t *testing.T) {
	const output = "a\tb\t\tc\x01t\td\te\t"
	const want = "al\x01tice\ta\tb\tal\x01tice\t\tc\x01t\tal\x01tice\td\te\t"
	for i := range len(output) + 1 {
		for j := i; j <= len(output); j++ {
			c := newUserColumn("al\tice", 2)
			var got strings.Builder
			for _, piece := range []string{output[:i], output[i:j], output[j:]} {
				got.Write(c.insert([]byte(piece)))
			}
			if got.String() != want {
				t.Fatalf("cut at %d and %d: %q, want %q", i, j, got.String(), want)
			}
		}
	}
}
