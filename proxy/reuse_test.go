package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

func channel0(c *doveadmtest.Conn, data string) []byte {
	return c.Frame(doveadm.ChannelReply, []byte(data))
}

func channelL(c *doveadmtest.Conn, data string) []byte {
	return c.Frame(doveadm.ChannelLog, []byte(data))
}

// TestCleanReuse: a connection with anything left on it is closed, and what was
// left reaches nobody.
func TestCleanReuse(t *testing.T) {
	type conn = doveadmtest.Conn
	tests := []struct {
		name   string
		from   doveadm.Minor // of the backend, on
		status string
		reply  func(c *conn) // of the command
		idle   func(c *conn) // behind it
	}{
		{"second status in the same packet", 0, "-NOTFOUND", func(c *conn) { c.Output([]byte("\n-NOTFOUND\n\n-\n")) }, nil},
		{"second status in the next packet", 1, "-NOTFOUND", func(c *conn) { c.Raw(append(channel0(c, "\n-NOTFOUND\n"), channel0(c, "\n-\n")...)) }, nil},
		{"second status later", 0, "-NOTFOUND", func(c *conn) { c.Status("-NOTFOUND") }, func(c *conn) { c.Status("-") }},
		{"success behind a failure", 0, "-NOUSER", func(c *conn) { c.Output([]byte("\n-NOUSER\n\n+\n")) }, nil},
		{"output behind the status", 0, "+", func(c *conn) { c.Output([]byte("\n+\n2\t")) }, nil},
		{"output behind the status in the next packet", 1, "+", func(c *conn) { c.Raw(append(channel0(c, "\n+\n"), channel0(c, "2\t")...)) }, nil},
		{"output later", 0, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Output([]byte("2\t")) }},
		{"a whole reply later", 0, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Output([]byte("stray\t1\t\n+\n")) }},
		{"log line behind the status", 1, "+", func(c *conn) { c.Raw(append(channel0(c, "\n+\n"), channelL(c, "\x04stray\n")...)) }, nil},
		{"log line later", 1, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Log(doveadm.LogError, "stray") }},
		{"part of a header behind the status", 1, "+", func(c *conn) { c.Raw(append(channel0(c, "\n+\n"), 0, 0)) }, nil},
		{"part of a header later", 1, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Raw([]byte("L")) }},
		{"empty packet later", 1, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Raw(make([]byte, 5)) }},
		{"end later", 0, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Close() }},
		{"reset later", 0, "+", func(c *conn) { c.Status("+") }, func(c *conn) { c.Reset() }},
		{"end behind the status", 0, "+", func(c *conn) { c.Status("+"); c.Close() }, nil},
		{"status that says nothing about the rest", 0, "-TEMPFAIL", func(c *conn) { c.Status("-TEMPFAIL") }, nil},
		{"status without a code", 0, "-", func(c *conn) { c.Status("-") }, nil},
		{"usage", 0, "-USAGE", func(c *conn) { c.Status("-USAGE") }, nil},
		{"unknown status", 0, "-NO-SUCH text", func(c *conn) { c.Status("-NO-SUCH text") }, nil},
	}
	for _, p := range []pair{{client10, 0}, {client10, 3}, {client13, 0}, {client13, 2}, {client13, 3}, {client14, 4}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			s, srv := startWith(t, p.backend, func(c *conn, cmd *doveadm.Command) {
				if cmd.Name == "quota get" {
					answer(c, cmd)
					return
				}
				for _, tc := range tests {
					if tc.name == cmd.Args[0] {
						tc.reply(c)
					}
				}
			}, oneFailureOpens)
			one, other := s.login(t, p.client), s.login(t, p.client)
			number := 1 // of the good connection
			for _, tc := range tests {
				if p.backend < tc.from {
					continue
				}
				r := one.run(t, "\talice\tsearch\t"+tc.name+"\n")
				if r.status != tc.status || r.output != "" || len(r.logs) > 0 {
					t.Errorf("%s: got %q, want only the status %q", tc.name, r, tc.status)
				}
				if tc.idle != nil {
					tc.idle(srv.Conns()[0])
				}
				number++
				for i, c := range []*client{other, one} {
					r := c.works(t)
					if want := fmt.Sprintf("alice\t%d\t", number); r.output != want || len(r.logs) > 0 {
						t.Errorf("%s: client %d: the next command got %q, want %q", tc.name, i, r, want)
					}
				}
				eventually(t, tc.name+": the connection is closed", func() bool { return len(srv.Conns()) == 1 })
			}
		})
	}
}

// TestReusableStatuses: the statuses behind which a connection is kept.
func TestReusableStatuses(t *testing.T) {
	for _, m := range minors {
		s, srv := startWith(t, m, func(c *doveadmtest.Conn, cmd *doveadm.Command) { c.Status(cmd.Args[1]) }, nil)
		c := s.login(t, client13)
		for range 3 {
			for _, status := range []string{"+", "-NOUSER", "-NOTFOUND"} {
				if r := c.run(t, "\talice\tsearch\t--\t"+status+"\n"); r.status != status {
					t.Errorf("backend 1.%d: status %q, want %q", m, r.status, status)
				}
			}
		}
		if got := srv.Accepted(); got != 1 {
			t.Errorf("backend 1.%d: %d connections, want 1", m, got)
		}
	}
}

// TestFlagsAreForOneCommand: a server of 2.4 would log the next command on the
// connection of one with -v or -D with debug lines.
func TestFlagsAreForOneCommand(t *testing.T) {
	type step struct {
		flags    string
		accepted int // connections of the backend so far
	}
	for m, steps := range map[doveadm.Minor][]step{
		2: {{"", 1}, {"v", 1}, {"D", 1}, {"", 1}},
		3: {{"", 1}, {"v", 1}, {"D", 2}, {"vD", 3}, {"", 4}, {"", 4}},
	} {
		s, srv := startWith(t, m, answer, nil)
		c := s.login(t, client13)
		for _, st := range steps {
			c.run(t, st.flags+"\talice\tquota get\n")
			if got := int(srv.Accepted()); got != st.accepted {
				t.Errorf("backend 1.%d, flags %q: %d connections, want %d", m, st.flags, got, st.accepted)
			}
		}
	}
}

// TestCommandsOfTheServerRunAlone: a command that is not for a mail user gets a
// connection of its own.
func TestCommandsOfTheServerRunAlone(t *testing.T) {
	s, srv := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	for i, tc := range []struct{ line, output string }{
		{"\talice\tquota get\n", "alice\t1\t"},
		{"\talice\tquota get\n", "alice\t1\t"},
		{"\t\twho\n", "\t2\t"},
		{"\talice\tquota get\n", "alice\t1\t"},
		{"\t\twho\n", "\t3\t"},
		{"\talice\tquota get\n", "alice\t1\t"},
	} {
		if r := c.run(t, tc.line); r.output != tc.output {
			t.Errorf("%d: %q got %q, want %q", i, tc.line, r.output, tc.output)
		}
	}
	eventually(t, "their connections are closed", func() bool { return len(srv.Conns()) == 1 })
}

// TestNoReplyMeetsAnother: with backends that do all that they should not,
// every client gets what belongs to its own commands. What is behind a status
// comes with it in one write: if it came later, between the look at an idle
// connection and the next reply, nothing could tell it from that reply.
func TestNoReplyMeetsAnother(t *testing.T) {
	const clients, commands = 10, 60
	faults := []string{"none", "none", "none", "second status", "output behind", "log behind", "reply behind", "cut", "cut in log", "close", "reset", "no user"}
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		tag, fault := cmd.Args[1], cmd.Args[2]
		if !c.Logs() && strings.HasSuffix(fault, "behind") {
			fault = "output behind"
		}
		if fault == "close" {
			c.Close()
			return
		}
		if fault == "no user" {
			c.Status("-NOUSER")
			return
		}
		c.Log(doveadm.LogInfo, tag)
		for range rand.IntN(5) {
			c.Fields(tag, strings.Repeat(tag, rand.IntN(3000)))
		}
		switch fault {
		case "cut":
			c.Output([]byte(tag + "\t" + tag))
			c.Close()
		case "cut in log":
			if c.Logs() {
				c.Raw(channelL(c, "\x02"+tag))
			}
			c.Close()
		case "reset":
			c.Reset()
		case "second status":
			c.Output([]byte("\n-NOTFOUND\n\n-\n"))
		case "output behind":
			c.Output([]byte("\n+\n" + tag + "\t"))
		case "log behind":
			c.Raw(append(channel0(c, "\n+\n"), channelL(c, "\x04"+tag+"\n")...))
		case "reply behind":
			c.Raw(append(channel0(c, "\n+\n"), channel0(c, tag+"\t\n+\n")...))
		default:
			c.Status("+")
		}
	}
	var addrs []string
	for _, m := range minors {
		addrs = append(addrs, newBackend(t, m, h).Addr())
	}
	cfg := configure(t, nil, addrs...)
	for i := range cfg.Shards {
		b := &cfg.Shards[i].Backends[0]
		b.Breaker.Failures = 1 << 30
		b.Pool.MaxOpen, b.Pool.MaxIdle = 3, 3
	}
	s := start(t, cfg)
	var running sync.WaitGroup
	for n := range clients {
		running.Go(func() {
			k := clientKinds[n%len(clientKinds)]
			c := s.connect(t)
			c.ahead = true
			if err := c.login(k); err != nil {
				t.Error(err)
				return
			}
			for i := 0; i < commands; {
				ahead := 1 + rand.IntN(6)
				var all strings.Builder
				var tags []string
				for range ahead {
					tags = append(tags, fmt.Sprintf("tag-%d-%d;", n, i))
					fmt.Fprintf(&all, "\tu%d@s%d\tfetch\tuid text\t%s\t%s\n",
						rand.IntN(3), 1+rand.IntN(len(minors)), tags[len(tags)-1], faults[rand.IntN(len(faults))])
					i++
				}
				if err := c.send(all.String()); err != nil {
					t.Error(err)
					return
				}
				for _, tag := range tags {
					r, err := c.reply()
					if err != nil {
						t.Errorf("client %d, %s: %v after output %.200q, status %q", n, tag, err, r.output, r.status)
						return
					}
					checkTag(t, r, tag)
				}
			}
		})
	}
	running.Wait()
}

func checkTag(t *testing.T, r reply, tag string) {
	fields := r.fields()
	if r.output == "" {
		fields = nil
	}
	for _, field := range fields {
		if strings.ReplaceAll(field, tag, "") != "" {
			t.Errorf("%s: a field of another command: %.200q", tag, field)
		}
	}
	if len(fields)%2 != 0 {
		t.Errorf("%s: %d fields are no whole rows", tag, len(fields))
	}
	for _, line := range r.logs {
		if line[1:] != tag && !strings.HasPrefix(line, "\x04doveadm-proxy: backend ") {
			t.Errorf("%s: log line %q", tag, line)
		}
	}
	if !slices.Contains([]string{"+", "-NOTFOUND", "-NOUSER", "-TEMPFAIL"}, r.status) {
		t.Errorf("%s: status %q", tag, r.status)
	}
}
