package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// recorder is a lineBackend that answers every command and keeps the lines by
// connection.
type recorder struct {
	*lineBackend

	mu    sync.Mutex
	lines map[int][]string
}

var plus = doveadm.AppendPacket(nil, doveadm.ChannelReply, []byte("\n+\n"))

func newRecorder(t testing.TB, minor doveadm.Minor) *recorder {
	r := &recorder{lines: make(map[int][]string)}
	r.lineBackend = newLineBackend(t, minor, func(c *lineConn, line []byte) {
		r.mu.Lock()
		r.lines[c.number] = append(r.lines[c.number], string(line))
		r.mu.Unlock()
		switch {
		case bytes.HasPrefix(line, []byte("\t\tOPTION\t")):
		case minor > 0:
			c.Write(plus)
		default:
			io.WriteString(c, "\n+\n")
		}
	})
	return r
}

// of returns the lines of a connection and forgets them.
func (r *recorder) of(conn int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines[conn]
	delete(r.lines, conn)
	return lines
}

// TestRequestLines: what a backend is sent for what a client sent.
func TestRequestLines(t *testing.T) {
	tests := []struct{ sent, to13, older string }{
		{"\talice\tquota get", "x\tproxy-ttl=4\talice\tquota get", "\talice\tquota get"},
		{"\tALICE\tquota get\r", "x\tproxy-ttl=4\tALICE\tquota get", "\tALICE\tquota get"},
		{"v\talice\tquota get", "vx\tproxy-ttl=4\talice\tquota get", "v\talice\tquota get"},
		{"x\tproxy-ttl=5\talice\tquota get", "x\tproxy-ttl=4\talice\tquota get", "\talice\tquota get"},
		{"x\tproxy-ttl=2\talice\tquota get", "x\tproxy-ttl=1\talice\tquota get", "\talice\tquota get"},
		{"x\tproxy-ttl=99\talice\tquota get", "x\tproxy-ttl=4\talice\tquota get", "\talice\tquota get"},
		{"x\tproxy-ttl=x\talice\tquota get", "x\tproxy-ttl=4\talice\tquota get", "\talice\tquota get"},
		{"x\tforward=k=v\talice\tquota get", "x\tforward=k=v\x01tproxy-ttl=4\talice\tquota get", "\talice\tquota get"},
		{
			"vx\tproxy-ttl=3\x01tforward=key=value\x01tforward=k2=a\x011tb\x01tnew\talice\tquota get",
			"vx\tproxy-ttl=2\x01tforward=key=value\x01tforward=k2=a\x011tb\x01tnew\talice\tquota get", "v\talice\tquota get",
		},
		{"\talice\tmailbox\tlist\t-s", "x\tproxy-ttl=4\talice\tmailbox list\t-s", "\talice\tmailbox list\t-s"},
		{"\talice\tmailbox\tcache\tpurge\tINBOX", "x\tproxy-ttl=4\talice\tmailbox cache purge\tINBOX", "\talice\tmailbox cache purge\tINBOX"},
		{"\talice\tmailbox cache\tpurge\tINBOX", "x\tproxy-ttl=4\talice\tmailbox cache purge\tINBOX", "\talice\tmailbox cache purge\tINBOX"},
		{"\talice\tmailbox list\t-u\tbob\t--\tA*", "x\tproxy-ttl=4\talice\tmailbox list\t--\tA*", "\talice\tmailbox list\t--\tA*"},
		{"\talice\tmailbox list\t-S\t/etc\t-sX", "x\tproxy-ttl=4\talice\tmailbox list\t-sX", "\talice\tmailbox list\t-sX"},
		{
			"\talice\tsearch\ta\x01tb\x01nc\x01rd\x011e\xff\x1b[1m\t\t", "x\tproxy-ttl=4\talice\tsearch\ta\x01tb\x01nc\x01rd\x011e\xff\x1b[1m\t\t",
			"\talice\tsearch\ta\x01tb\x01nc\x01rd\x011e\xff\x1b[1m\t\t",
		},
		{"\talice\tno\x01nsuch\tcommand\t-x", "x\tproxy-ttl=4\talice\tno\x01nsuch\tcommand\t-x", "\talice\tno\x01nsuch\tcommand\t-x"},
		// The last one: its connection is not used again.
		{"vDvD\talice\tquota get", "Dx\tproxy-ttl=4\talice\tquota get", "D\talice\tquota get"},
	}
	for _, minor := range minors {
		for _, k := range []clientKind{client10, client13} {
			t.Run(fmt.Sprintf("client %s backend 1.%d", k.name, minor), func(t *testing.T) {
				srv := newRecorder(t, minor)
				s := start(t, configure(t, nil, srv.Addr().String()))
				c := s.login(t, k)
				conn, fresh := 1, true
				for _, tc := range tests {
					r := c.run(t, tc.sent+"\n")
					want := []string{tc.older}
					if minor >= 3 {
						want[0] = tc.to13
						if fresh { // once on a connection
							want = []string{"\t\tOPTION\tlog-passthrough", want[0]}
						}
					}
					if diff := cmp.Diff(want, srv.of(conn)); diff != "" || r.status != "+" {
						t.Errorf("%q got %q; the backend got (-want +got):\n%s", tc.sent, r, diff)
					}
					flags, _, _ := strings.Cut(tc.sent, "\t")
					if fresh = minor >= 3 && strings.ContainsAny(flags, "vD"); fresh {
						conn++
					}
				}
			})
		}
	}
}

// TestOptionOncePerConnection on each connection, with several of them.
func TestOptionOncePerConnection(t *testing.T) {
	for _, minor := range minors {
		srv := newRecorder(t, minor)
		s := start(t, configure(t, func(c *config.Config) { first(c).Pool.MaxCommands = 3 }, srv.Addr().String()))
		for range 2 {
			c := s.login(t, client13)
			for range 3 {
				c.works(t)
			}
		}
		for conn := 1; conn <= 2; conn++ {
			lines := srv.of(conn)
			options := 0
			for _, line := range lines {
				options += strings.Count(line, "OPTION")
			}
			if minor < 3 && (options != 0 || len(lines) != 3) || minor >= 3 && (options != 1 || len(lines) != 4 || lines[0] != "\t\tOPTION\tlog-passthrough") {
				t.Errorf("backend 1.%d, connection %d: %q", minor, conn, lines)
			}
		}
	}
}

// TestRequestsThatAreRefused reach no backend.
func TestRequestsThatAreRefused(t *testing.T) {
	const loop = "TTL reached zero - proxies appear to be looping?"
	for _, k := range clientKinds {
		t.Run(k.name, func(t *testing.T) {
			srv := newRecorder(t, 3)
			s := start(t, configure(t, nil, srv.Addr().String()))
			c := s.login(t, k)
			for _, tc := range []struct{ line, status, cause, outcome string }{
				{"x\tproxy-ttl=1\talice\tquota get", "-TEMPFAIL", loop, "loop"},
				{"x\tproxy-ttl=0\talice\tquota get", "-TEMPFAIL", loop, "loop"},
				{"x\tproxy-ttl=-5\talice\tquota get", "-TEMPFAIL", loop, "loop"},
				{"x\tproxy-ttl=0\talice\tdsync-server\t-ualice", "-TEMPFAIL", loop, "loop"},
				{"x\tforward=k\x01ney=v\talice\tquota get", "-USAGE", "forward field whose key has control characters", "denied"},
				{"x\tforward=k\x011tey=v\talice\tquota get", "-USAGE", "forward field whose key has control characters", "denied"},
				{"\tali\x01nce\tquota get", "-NOUSER", "user name with control characters", "no-user"},
				{"\tali\x01tce\tquota get", "-NOUSER", "user name with control characters", "no-user"},
				{"\tali\x1bce\tquota get", "-NOUSER", "user name with control characters", "no-user"},
				{"\tali\x7fce\tquota get", "-NOUSER", "user name with control characters", "no-user"},
				{"\tali\x011ce\tquota get", "-NOUSER", "user name with control characters", "no-user"},
			} {
				c.refused(t, tc.line+"\n", tc.status, tc.cause)
				s.log.wait(t, "outcome="+tc.outcome+" ", "status="+tc.status, tc.cause)
			}
			if lines := srv.of(1); len(lines) > 0 {
				t.Errorf("the backend got %q", lines)
			}
			c.works(t)
		})
	}
}

// TestLongCommand: a line that grows beyond the limit for the backend, by
// proxy-ttl.
func TestLongCommand(t *testing.T) {
	srv := newBackend(t, 3, answer)
	s := start(t, configure(t, oneFailureOpens, srv.Addr()))
	c := s.login(t, client13)
	const around = len("\talice\tsearch\t\n")
	arg := strings.Repeat("x", doveadm.MaxLine-around)
	c.refused(t, "\talice\tsearch\t"+arg+"\n", "-USAGE", "the command is longer than 1048576 bytes as the backend reads it")
	arg = arg[len("xproxy-ttl=4\t"):]
	if r := c.run(t, "\talice\tsearch\t"+arg+"\n"); r.status != "+" {
		t.Errorf("the longest command: %q", r)
	}
	c.works(t)
	if got := srv.Commands(); len(got) != 2 || len(got[0].Args[0]) != len(arg) {
		t.Errorf("the backend got %d commands", len(got))
	}
}

// TestLogCannotBeForged: text of clients and backends makes neither a line of
// the proxy's log nor one of a client's.
func TestLogCannotBeForged(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	for _, line := range []string{
		"\tali\x01n[ERROR] forged\tquota get",
		"\talice\tno\x01n[ERROR] forged\t\x01n[ERROR] forged",
		"\talice\tsearch\t-\x01n[ERROR] forged\t-A\t--\x01n\x04[ERROR] forged",
		"\talice\tfetch\t--all-users=\x01n\x04[ERROR] forged\tuid\tall",
		"x\tproxy-ttl=1\x01t\x01n[ERROR] forged\talice\t\x01n[ERROR] forged",
		"\n",
	} {
		must(t, c.send(line+"\n"))
		r, err := c.reply()
		if line != "\n" {
			must(t, err)
		}
		for _, l := range r.logs {
			if !strings.HasPrefix(l, "\x04doveadm-proxy: ") || strings.ContainsAny(l[1:], "\x01\x04\x1b") {
				t.Errorf("%q: log line %q", line, l)
			}
		}
	}
	bad := s.connect(t)
	must(t, bad.send("VERSION\n[ERROR] forged\n"))
	bad.ended(t)
	s.log.wait(t, "handshake failed")
	for line := range strings.Lines(s.log.String()) {
		if !strings.HasPrefix(line, "[") || strings.HasPrefix(line, "[ERROR] forged") {
			t.Errorf("log line %q", line)
		}
	}
}
