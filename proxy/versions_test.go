package proxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// framingBytes are all that the formats of the versions give a meaning to: the
// header of STREAM, its escapes, whole and in part, and packets.
var framingBytes = []packet{
	{'L', "\x02\x03\xfe\n"},
	{0, "\xff\xff\xff\xff\xff\x02\x03\xfe\t"},
	{0, "\x03\xfe"},
	{0, "\x03"},
	{0, "\xfe"},
	{'L', "\x04in a field \x03"},
	{'L', "\xfe\x02L \x03\xfe\x03\xfeL\n\x03at its end \x03"},
	{0, "\xfe\x02\x03\t\t\x03"},
	{0, "\x03\x03\t"},
	{'L', "\n"},
	{0, "L\x010\x010\x010\x011x\x03\x011\t\x03\xfe\x03\xfe\x03\xfe\x02"},
	{0, "\x03\xfe\t"},
	{'L', "\x02last \x03\xfe\x02\n"},
	{0, "\n-NOTFOUND\n"},
}

// TestFramingBytesAsData: for every pair of versions, output, status and log
// lines are what the backend said, whatever bytes they are of and however they
// are cut.
func TestFramingBytesAsData(t *testing.T) {
	pieces := map[string]func(frames [][]byte) [][]byte{
		"one write":   func(frames [][]byte) [][]byte { return [][]byte{slices.Concat(frames...)} },
		"many writes": func(frames [][]byte) [][]byte { return frames },
		"bytes":       func(frames [][]byte) [][]byte { return slices.Collect(slices.Chunk(slices.Concat(frames...), 1)) },
	}
	pairs(t, func(t *testing.T, p pair) {
		s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			var frames [][]byte
			for _, piece := range framingBytes {
				frames = append(frames, c.Frame(piece.channel, []byte(piece.data)))
			}
			for _, p := range pieces[cmd.Args[1]](frames) {
				c.Raw(p)
			}
		}, oneFailureOpens)
		var output, logs string
		for _, piece := range framingBytes {
			switch {
			case piece.channel == 0:
				output += piece.data
			case p.client.logs() && p.backend > 0:
				logs += piece.data
			}
		}
		c := s.login(t, p.client)
		for sent := range pieces {
			r := c.run(t, "\talice\tfetch\tuid text\t"+sent+"\n")
			if diff := cmp.Diff(output, r.output+"\n"+r.status+"\n"); diff != "" {
				t.Errorf("%s: channel 0 (-want +got):\n%s", sent, diff)
			}
			if diff := cmp.Diff(logs, r.log()); diff != "" {
				t.Errorf("%s: log lines (-want +got):\n%s", sent, diff)
			}
		}
	})
}

// TestCutStream: what a backend of version 1.4 has sent when it goes, at
// whatever byte, is passed on with its fields ended, and no half of an escape.
func TestCutStream(t *testing.T) {
	// With what a client has of it once all of it has arrived.
	pieces := []struct{ sent, output string }{
		{"\xff\xff\xff\xff\xff\x00\x02\x03\xfe", ""},
		{"u", "u"},
		{"1", "1"},
		{"\t", "\t"},
		{"\x03\xfe\x01", "\x03"},
		{"\xfe", "\xfe"},
		{"\x03\xfe\x00L", ""},
		{"\x02log\n", ""},
		{"\x03\xfe\x00\x00", ""},
		{"\x03\xfe\x01", "\x03"},
		{"\t", "\t"},
		{"u", "u"},
	}
	var all string
	output := []string{""} // by the number of bytes that have arrived
	for _, piece := range pieces {
		all += piece.sent
		last := output[len(output)-1]
		for range len(piece.sent) - 1 {
			output = append(output, last)
		}
		output = append(output, last+piece.output)
	}
	for _, k := range clientKinds {
		t.Run("client "+k.name, func(t *testing.T) {
			t.Parallel()
			s, _ := startWith(t, doveadm.MinorStream, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
				var n int
				fmt.Sscan(cmd.Args[1], &n)
				c.Raw([]byte(all[:n]))
				c.Close()
			}, neverOpens)
			c := s.login(t, k)
			for n := range len(all) + 1 {
				want := output[n]
				for strings.Count(want, "\t")%2 != 0 || want != "" && !strings.HasSuffix(want, "\t") {
					want += "\t"
				}
				r := c.run(t, fmt.Sprintf("\talice\tfetch\tuid text\t%d\n", n))
				if r.output != want {
					t.Errorf("cut at %d: output %q, want %q", n, r.output, want)
				}
				c.failed(t, r, "-TEMPFAIL", "backend b1 ")
			}
		})
	}
}

// TestBrokenStream: what is no STREAM ends the reply, and says why.
func TestBrokenStream(t *testing.T) {
	for _, tc := range []struct{ sent, output, cause string }{
		{"\xff\xff\xff\xff\xff\x01\x02\x03\xfe", "", "protocol error: unsupported STREAM header"},
		{"\xff\xff\xff\xff\xff\x00\x02\x03\xfe1\ta\x03\xfe\x02", "1\ta\t", "protocol error: invalid escape"},
	} {
		s, _ := startWith(t, doveadm.MinorStream, func(c *doveadmtest.Conn, _ *doveadm.Command) {
			c.Raw([]byte(tc.sent))
		}, nil)
		c := s.login(t, client14)
		r := c.run(t, "\talice\tfetch\tuid text\tall\n")
		c.failed(t, r, "-TEMPFAIL", "backend b1 ", tc.cause)
		if r.output != tc.output {
			t.Errorf("%q: output %q, want %q", tc.sent, r.output, tc.output)
		}
	}
}
