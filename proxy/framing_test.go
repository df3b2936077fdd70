package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// scripts are replies as a backend with packets sends them. The last packet
// ends with the status.
var scripts = map[string][]packet{
	"one packet":        {{0, "u1\tt1\tu2\tt2\t\n+\n"}},
	"nothing":           {{0, "\n+\n"}},
	"failure":           {{0, "\n-NOUSER\n"}},
	"failure with text": {{0, "u1\tt1\t"}, {0, "\n-NO-SUCH some text\n"}},
	"plain failure":     {{0, "\n-\n"}},
	"a packet a row":    {{0, "u1\tt1\t"}, {0, "u2\tt2\t"}, {0, "\n+\n"}},
	"logs in their order": {
		{'L', "\x02one\n"},
		{0, "u1\tt1\t"},
		{'L', "\x01two\n\x03three\n"},
		{0, "u2\tt2\t"},
		{'L', "\x04four\n"},
		{0, "\n+\n"},
	},
	"logs inside fields and escapes": {
		{0, "u"},
		{'L', "\x02one\n"},
		{0, "1\tt\x01"},
		{'L', "\x02t"},
		{'L', "wo\n"},
		{0, "t1\t"},
		{0, "\n+\n"},
	},
	"odd log lines": {{'L', "\x09no such level\n\n\xff\n"}, {'L', "\x02doveadm(al\x1bice): x\n"}, {0, "\n+\n"}},
	"large fields": {
		{0, strings.Repeat("x", 200<<10) + "\t"},
		{0, strings.Repeat("y", 4096) + "\t"},
		{'L', "\x02" + strings.Repeat("z", 20<<10) + "\n"},
		{0, strings.Repeat("\x01t", 30<<10) + "\tlast\t"},
		{0, "\n+\n"},
	},
	"many rows": append(manyRows(300), packet{0, "\n+\n"}),
}

func manyRows(n int) (p []packet) {
	for i := range n {
		p = append(p, packet{0, fmt.Sprintf("%d\t%s\t", i, strings.Repeat("x", i*7%1000))})
		if i%10 == 0 {
			p = append(p, packet{'L', fmt.Sprintf("\x02row %d\n", i)})
		}
	}
	return p
}

// play is a handler that sends the script that the last argument names.
func play(c *doveadmtest.Conn, cmd *doveadm.Command) {
	var all []byte
	for _, p := range scripts[cmd.Args[len(cmd.Args)-1]] {
		all = append(all, c.Frame(p.channel, []byte(p.data))...)
	}
	c.Raw(all)
}

// TestSameBytes: for every pair of versions the bytes of a reply are the same,
// and where both sides have packets, so are these: a field that came in one
// goes in one, and log lines keep their place.
func TestSameBytes(t *testing.T) {
	pairs(t, func(t *testing.T, p pair) {
		s, srv := startWith(t, p.backend, play, oneFailureOpens)
		c := s.login(t, p.client)
		for name, script := range scripts {
			var output, logs strings.Builder
			var want []packet
			for _, piece := range script {
				switch {
				case piece.channel == 0:
					output.WriteString(piece.data)
				case p.client.logs() && p.backend > 0:
					logs.WriteString(piece.data)
				default:
					continue
				}
				want = append(want, piece)
			}
			r := c.run(t, "\talice\tfetch\tuid text\t"+name+"\n")
			if got := r.output + "\n" + r.status + "\n"; got != output.String() {
				t.Errorf("%s: channel 0 has %.300q, want %.300q", name, got, output.String())
			}
			if r.log() != logs.String() {
				t.Errorf("%s: logs %.300q, want %.300q", name, r.log(), logs.String())
			}
			if p.client.framed() && !p.client.stream() && p.backend > 0 && p.backend < doveadm.MinorStream {
				if diff := cmp.Diff(want, r.packets, cmp.AllowUnexported(packet{})); diff != "" {
					t.Errorf("%s: packets (-want +got):\n%.1000s", name, diff)
				}
			}
		}
		if got := srv.Accepted(); p.client.framed() && got > 1+len(scripts) {
			t.Errorf("%d connections", got)
		}
	})
}

// TestVeryLargePacket: what does not fit into memory goes in pieces, and where
// there is one the cut is behind a field.
func TestVeryLargePacket(t *testing.T) {
	field := strings.Repeat("x", 99<<10)
	single := strings.Repeat("y", 600<<10)
	s, _ := startWith(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Args[1] == "single" {
			c.Fields(single)
		} else {
			c.Fields(field, field, field, field, field, field, field, field)
		}
		c.Status("+")
	}, nil)
	c := s.login(t, client13)
	r := c.run(t, "\talice\tfetch\tuid text\tseveral\n")
	if want := strings.Repeat(field+"\t", 8); r.output != want || r.status != "+" {
		t.Errorf("got %d bytes, status %q", len(r.output), r.status)
	}
	for i, p := range r.packets[:len(r.packets)-1] {
		if !strings.HasSuffix(p.data, "\t") {
			t.Errorf("packet %d of %d bytes ends inside a field", i, len(p.data))
		}
	}
	if r = c.run(t, "\talice\tfetch\tuid text\tsingle\n"); r.output != single+"\t" || r.status != "+" {
		t.Errorf("got %d bytes, status %q", len(r.output), r.status)
	}
}

// TestUserColumnOnTheWire: clients below 1.3 that run a command for several
// users get the user name in front of each row, others the rows as they are.
func TestUserColumnOnTheWire(t *testing.T) {
	pairs(t, func(t *testing.T, p pair) {
		s, srv := startWith(t, p.backend, play, nil)
		c := s.login(t, p.client)
		for name, script := range scripts {
			var output strings.Builder
			for _, piece := range script {
				if piece.channel == 0 {
					output.WriteString(piece.data)
				}
			}
			want, _, _ := strings.Cut(output.String(), "\n")
			for _, args := range []string{"-u\t*", "-u\talice"} {
				want := want
				if args == "-u\t*" && p.client.minor < 3 {
					want = withColumn("alice", 2, want)
				}
				if r := c.run(t, "\talice\tfetch\t"+args+"\tuid text\t"+name+"\n"); r.output != want {
					t.Errorf("%s, %q: got %.300q, want %.300q", name, args, r.output, want)
				}
			}
		}
		for _, cmd := range srv.Commands() {
			if len(cmd.Args) != 2 {
				t.Errorf("the backend got %+v", cmd)
			}
		}
	})
}
