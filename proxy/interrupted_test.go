package proxy_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// wire is a reply of several rows of two columns as a backend sends it: rows in
// packets of their own, one of them split, log lines in between, and every kind
// of escape.
type wire struct {
	bytes   []byte
	arrived []string // output by the number of bytes that have arrived
}

func newWire(framed bool) *wire {
	w := &wire{arrived: []string{""}}
	write := func(channel byte, data string) {
		header := doveadm.AppendPacket(nil, channel, []byte(data))[:5]
		switch {
		case framed:
			w.add(string(header), false)
		case channel != doveadm.ChannelReply:
			return
		}
		w.add(data, channel == doveadm.ChannelReply && data[0] != '\n')
	}
	for _, piece := range []string{"1\ta\x01tb\t", "2\t\t", "\t\x011\t", "3\tx\x01ny", "\x01rz\x010\t"} {
		write(doveadm.ChannelReply, piece)
		if piece == "2\t\t" {
			write(doveadm.ChannelLog, "\x02log line\n")
		}
	}
	write(doveadm.ChannelLog, "\x03last ")
	write(doveadm.ChannelLog, "words\n")
	write(doveadm.ChannelReply, "\n+\n")
	return w
}

func (w *wire) add(data string, output bool) {
	for i := range data {
		got := w.arrived[len(w.arrived)-1]
		if output {
			got += data[i : i+1]
		}
		w.arrived = append(w.arrived, got)
		w.bytes = append(w.bytes, data[i])
	}
}

// padded is what a client is to see of output that was cut off.
func padded(output string) string {
	if output != "" && !strings.HasSuffix(output, "\t") {
		if last := strings.TrimRight(output, "\x01"); (len(output)-len(last))%2 == 1 {
			output += "1"
		}
		output += "\t"
	}
	if strings.Count(output, "\t")%2 == 1 {
		output += "\t"
	}
	return output
}

// withColumn puts a user name in front of each row of columns fields.
func withColumn(user string, columns int, output string) string {
	var b strings.Builder
	for i, field := range strings.SplitAfter(output, "\t") {
		if i%columns == 0 && field != "" {
			b.WriteString(user + "\t")
		}
		b.WriteString(field)
	}
	return b.String()
}

// TestCutAtEveryByte: whatever a backend has sent of a reply when it goes,
// rows are whole, the status is a failure with its reason in front, and the
// session goes on.
func TestCutAtEveryByte(t *testing.T) {
	for _, p := range []pair{
		{client10, 0}, {client10, 3}, {clientKinds[1], 1}, {clientKinds[2], 2}, {client13, 0}, {client13, 3}, {client13mute, 3}, {client13, 1},
	} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			cutAtEveryByte(t, p)
		})
	}
}

func cutAtEveryByte(t *testing.T, p pair) {
	w := newWire(p.backend > 0)
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		n, err := strconv.Atoi(cmd.Args[len(cmd.Args)-1])
		if err != nil {
			answer(c, cmd)
			return
		}
		c.Raw(w.bytes[:n])
		if n < len(w.bytes) {
			c.Close()
		}
	}, neverOpens)
	c := s.login(t, p.client)
	for n := range len(w.bytes) + 1 {
		reused := n%2 == 0
		if reused {
			if r := c.run(t, "\talice\tfetch\tuid text\tgood\n"); r.status != "+" || len(r.fields()) != 2 {
				t.Fatalf("after a reply that ended at %d: %q", n-1, r)
			}
		}
		want, line := padded(w.arrived[n]), fmt.Sprintf("\talice\tfetch\tuid text\t%d\n", n)
		if p.client.minor < 3 && n%3 == 0 {
			want, line = withColumn("alice", 2, want), fmt.Sprintf("\talice\tfetch\t-A\tuid text\t%d\n", n)
		}
		before := len(srv.Commands())
		r := c.run(t, line)
		if r.output != want {
			t.Errorf("cut at %d: output %q, want %q", n, r.output, want)
		}
		if n == len(w.bytes) {
			if r.status != "+" {
				t.Errorf("a whole reply: status %q", r.status)
			}
			continue
		}
		if p.backend > 0 && w.arrived[n] == "" || n == 0 {
			c.failed(t, r, "-TEMPFAIL", "backend b1 ")
		} else {
			c.failed(t, r, "-TEMPFAIL", "backend b1 was lost in the middle of the command")
		}
		wantSent := 1
		if reused && n <= 5 && (p.backend > 0 || n == 0) {
			wantSent = 2 // nothing of the reply itself had arrived
		}
		if sent := len(srv.Commands()) - before; sent != wantSent {
			t.Errorf("cut at %d: sent %d times, want %d", n, sent, wantSent)
		}
	}
}

// TestResetAtEveryByte: a reset may overtake what was sent before it.
func TestResetAtEveryByte(t *testing.T) {
	for _, p := range []pair{{client10, 0}, {client13, 3}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			w := newWire(p.backend > 0)
			s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
				n, err := strconv.Atoi(cmd.Args[1])
				must(t, err)
				c.Raw(w.bytes[:n])
				c.Reset()
			}, neverOpens)
			c := s.login(t, p.client)
			for n := range len(w.bytes) {
				r := c.run(t, fmt.Sprintf("\talice\tfetch\tuid text\t%d\n", n))
				c.failed(t, r, "-TEMPFAIL", "backend b1 ")
				k := 0
				for k < n && r.output != padded(w.arrived[k]) {
					k++
				}
				if r.output != padded(w.arrived[k]) {
					t.Errorf("reset at %d: output %q, which is no part of %q", n, r.output, w.arrived[n])
				}
			}
		})
	}
}

// TestReplyInTwoWrites: it does not matter where the network cuts a reply.
func TestReplyInTwoWrites(t *testing.T) {
	for _, p := range []pair{{client10, 0}, {client10, 3}, {client13, 0}, {client13, 3}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			w := newWire(p.backend > 0)
			s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
				n, err := strconv.Atoi(cmd.Args[1])
				must(t, err)
				c.Raw(w.bytes[:n])
				c.Raw(w.bytes[n:])
			}, oneFailureOpens)
			c := s.login(t, p.client)
			for n := range w.bytes {
				r := c.run(t, fmt.Sprintf("\talice\tfetch\tuid text\t%d\n", n))
				if want := w.arrived[len(w.bytes)]; r.output != want || r.status != "+" {
					t.Errorf("cut at %d: got %q %q, want %q", n, r.output, r.status, want)
				}
				if want := "\x02log line\n\x03last words\n"; p.client.logs() && p.backend > 0 && r.log() != want {
					t.Errorf("cut at %d: log %q, want %q", n, r.log(), want)
				}
			}
			if got := srv.Accepted(); got != 1 {
				t.Errorf("%d connections for good replies", got)
			}
		})
	}
}
