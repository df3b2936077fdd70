package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// bugs is a log that fails on what must never be in one.
type bugs struct{ t testing.TB }

func (b bugs) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("ended by a bug")) {
		panic(string(p))
	}
	return len(p), nil
}

// fuzzed is the backend of FuzzSession. What it answers depends on the command.
type fuzzed struct {
	mu    sync.Mutex
	wrong []string        // what no backend may see
	users map[string]bool // of the commands that it got
}

func (f *fuzzed) serve(c *lineConn, line []byte) {
	if c.input {
		// Of a tunnel, which has no end, or of a save.
		if string(line) == "." || string(line) == ".\r" {
			c.input = false
			c.Write(plus)
		}
		return
	}
	flags, rest, _ := strings.Cut(string(line), "\t")
	if strings.Contains(flags, "x") {
		_, rest, _ = strings.Cut(rest, "\t")
	}
	fields := strings.Split(rest, "\t")
	if fault := wrongLine(flags, fields, string(line)); fault != "" {
		f.mu.Lock()
		f.wrong = append(f.wrong, fmt.Sprintf("%s: %q", fault, line))
		f.mu.Unlock()
		c.Close()
		return
	}
	user, name := unescaped(fields[0]), unescaped(fields[1])
	if user == "" && name == "OPTION" {
		return
	}
	f.mu.Lock()
	f.users[user] = true
	f.mu.Unlock()
	switch name {
	case "quota get":
		c.Write(packet0("User quota\tSTORAGE\t1\t1024\t0\t\n+\n"))
	case "search":
		c.Write(packetL("\x02one\n\x02tw"))
		c.Write(packet0("guid\x01t\t1\x03\xfe\x03"))
		c.Write(packetL("o\n"))
		c.Write(packet0("\t\n"))
		c.Write(packet0("+\n"))
	case "fetch":
		c.Write(packetL("\x02not ended"))
		c.Write(packet0("one\ttwo\x01")) // columns that depend on the arguments
		c.Close()
	case "mailbox list":
		c.Close()
	case "mailbox status":
		c.Write(packet0("\n-REFERRAL elsewhere\n"))
	case "index":
		c.Write(packet0("\n-NOTFOUND\n\n-\n"))
	case "flags add":
		c.Write(packet0("no status\nat all\n"))
	case "move":
		c.Write(packetL("\x04explained\n"))
		c.Write(packet0("\n-TEMPFAIL\n"))
	case "sieve list":
		c.Write(plus)
	case "save", "sieve put":
		c.input = true
	case "dsync-server":
		c.Write(plus)
		c.input = true
	default:
		c.Write(packet0("\n-\n"))
	}
}

// wrongLine says what is wrong with a line as a backend gets it.
func wrongLine(flags string, fields []string, line string) string {
	switch {
	case strings.Trim(flags, "Dvx") != "":
		return "flags"
	case len(fields) < 2:
		return "fields"
	case strings.ContainsAny(line, "\r\x00"):
		return "control characters that are to be escaped"
	}
	for _, field := range strings.Split(line, "\t") {
		for i := 0; i < len(field); i++ {
			if field[i] != 1 {
				continue
			}
			if i++; i == len(field) || !strings.Contains("1trn", field[i:i+1]) {
				return "escapes"
			}
		}
	}
	for _, b := range []byte(unescaped(fields[0])) {
		if b < ' ' || b == 0x7f {
			return "control characters in the user name"
		}
	}
	return ""
}

// unescaped reads a field as Dovecot does: an unknown escape stands for its
// second byte, and half of one at the end for nothing.
func unescaped(field string) string {
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		c := field[i]
		if c == 1 {
			if i++; i == len(field) {
				break
			}
			c = field[i]
			if at := strings.IndexByte("01trn", c); at >= 0 {
				c = "\x00\x01\t\r\n"[at]
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

// sent is what a client sent, as a server has to read it.
func sent(input string) (commands int, users map[string]bool) {
	users = make(map[string]bool)
	inInput := false
	for line := range strings.Lines(input) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if inInput {
			inInput = line != "."
			continue
		}
		commands++
		fields := strings.Split(line, "\t")
		for range strings.Count(fields[0], "x") {
			if len(fields) > 1 {
				fields = fields[1:]
			}
		}
		if len(fields) < 3 {
			break
		}
		for i, field := range fields {
			fields[i] = unescaped(field)
		}
		users[fields[1]] = true
		words := strings.Join(fields[2:], " ")
		inInput = fields[2] == "save" || words == "sieve put" || strings.HasPrefix(words, "sieve put ")
	}
	return commands, users
}

// FuzzSession sends anything to a proxy behind a valid login. The first byte
// is the version of the client.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"\x00\talice\tquota get\n",
		"\x04\talice\tquota get\n\tbob\tsearch\tall\n\tbob\tmove\tx\tall\n",
		"\x01v\talice\tfetch\tuid text\tall\n\talice\tquota get\n",
		"\x02\talice\tfetch\t-A\tuid text\tall\nD\talice\tsearch\t-u\t*\tall\n",
		"\x04x\tproxy-ttl=3\x01tforward=k=a\x011tb\talice\tmailbox\tlist\n",
		"\x03x\tproxy-ttl=1\talice\tquota get\n\t\tOPTION\tlog-passthrough\n\talice\tmove\n",
		"\x04\talice\tsave\nX: y\r\n\r\n\tsmuggled\tquota get\n..\n.\r\n\talice\tquota get\n",
		"\x04\talice\tsieve\tput\tname\n\tsmuggled\tquota get\n.\n",
		"\x04\talice\tsave\t-Z\n\tsmuggled\tquota get\n.\n\talice\tmailbox status\tall\t*\n",
		"\x00\talice\tsave\n\tsmuggled\tquota get\n",
		"\x04\talice\tdsync-server\t-ualice\n\tsmuggled\tquota get\n",
		"\x04\tali\x01nce\tquota get\n\talice\tno such\x01r\tcommand\n\talice\tindex\t*\n\talice\tflags add\t\\Seen\tall\n",
		"\x05\n",
		"\x05\tbob\tsearch\tall\n\talice\tfetch\tuid text\tall\n\talice\tindex\t*\n\talice\tdsync-server\t-ualice\n\x03\xfe\x02",
		"\x05\tali\x03\xfece\tquota get\n\talice\tno \x03such\x03\n\talice\tmove\tx\tall\n\tbob\x03",
		"\x01Q\talice\tquota get\n",
		"\x04\t\twho\n\t\treload\n\talice\tbatch\n\n",
	} {
		f.Add([]byte(seed))
	}
	backend := &fuzzed{users: make(map[string]bool)}
	srv := newLineBackend(f, 3, backend.serve)
	cfg := configure(f, both(neverOpens, func(c *config.Config) {
		c.Routes = []config.Route{{Kind: "ring", Shards: []string{"s1"}}}
		first(c).Timeouts.Tunnel = time.Second
	}), srv.Addr().String())
	p, err := proxy.New(cfg, proxy.Options{Log: hclog.New(&hclog.LoggerOptions{Output: bugs{f}, Level: hclog.Error})})
	must(f, err)
	f.Cleanup(func() { p.Shutdown(f.Context()) })
	p.Serve()
	s := &site{Proxy: p, cfg: cfg}

	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < 1 || len(input) > 32<<10 {
			return
		}
		kind := clientKinds[int(input[0])%len(clientKinds)]
		c := s.connect(t)
		must(t, c.login(kind), c.send(string(input[1:])), c.nc.CloseWrite())
		got, err := io.ReadAll(c.in)
		if err != nil {
			t.Fatalf("reading: %v", err)
		}
		c.nc.Close()
		commands, users := sent(string(input[1:]))
		output, logs, err := deframe(kind, got)
		if err != nil {
			t.Fatalf("%v: %q", err, got)
		}
		if !kind.logs() && logs != "" {
			t.Errorf("log lines without a log channel: %q", logs)
		}
		checkLogs(t, logs)
		if statuses := checkReplies(t, output); statuses > commands {
			t.Errorf("%d statuses for %d commands: %q", statuses, commands, output)
		}
		backend.mu.Lock()
		defer backend.mu.Unlock()
		for _, wrong := range backend.wrong {
			t.Errorf("the backend got %s", wrong)
		}
		for user := range backend.users {
			if !users[user] {
				t.Errorf("the backend got a command of %q, the client has those of %v", user, users)
			}
		}
		backend.wrong = nil
		clear(backend.users)
	})
}

// deframe takes what a client read behind the login apart: packets, all of
// which must be whole, or the pieces of STREAM behind its header.
func deframe(k clientKind, stream []byte) (output, logs string, err error) {
	switch {
	case k.stream():
		return destream(stream)
	case !k.framed():
		return string(stream), "", nil
	}
	for len(stream) > 0 {
		if len(stream) < 5 {
			return output, logs, io.ErrUnexpectedEOF
		}
		channel, n := stream[0], int(binary.BigEndian.Uint32(stream[1:]))
		stream = stream[5:]
		// An empty packet asks a client that has half-closed whether it is there.
		if n > len(stream) {
			return output, logs, fmt.Errorf("packet of %d bytes in %d", n, len(stream))
		}
		switch channel {
		case 0:
			output += string(stream[:n])
		case 'L':
			logs += string(stream[:n])
		default:
			return output, logs, fmt.Errorf("channel %q", channel)
		}
		stream = stream[n:]
	}
	return output, logs, nil
}

// destream is deframe for STREAM. What begins an escape must be one, up to its
// end.
func destream(stream []byte) (output, logs string, err error) {
	channels := map[byte]*strings.Builder{0: {}, 'L': {}}
	to := channels[0]
	for len(stream) > 0 {
		n := bytes.IndexByte(stream, 3)
		if n < 0 {
			n = len(stream)
		}
		to.Write(stream[:n])
		if stream = stream[n:]; len(stream) == 0 {
			break
		}
		switch {
		case len(stream) >= 2 && stream[1] != 0xfe:
			to.WriteByte(3)
			stream = stream[1:]
		case len(stream) >= 3 && stream[2] == 1:
			to.WriteByte(3)
			stream = stream[3:]
		case len(stream) >= 4 && stream[2] == 0:
			if to = channels[stream[3]]; to == nil {
				return "", "", fmt.Errorf("channel %q", stream[3])
			}
			stream = stream[4:]
		default:
			return "", "", fmt.Errorf("escape %q", stream[:min(len(stream), 4)])
		}
	}
	return channels[0].String(), channels['L'].String(), nil
}

func checkLogs(t *testing.T, logs string) {
	for line := range strings.Lines(logs) {
		text := strings.TrimSuffix(line, "\n")
		if text == line || text == "" || text[0] < 1 || text[0] > 6 || strings.ContainsFunc(text[1:], func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("log line %q", line)
		}
	}
}

// checkReplies counts the statuses. Behind the last one there may be the
// output of a reply that was cut off.
func checkReplies(t *testing.T, output string) (statuses int) {
	for {
		_, rest, ended := strings.Cut(output, "\n")
		if !ended {
			return statuses
		}
		status, rest, ended := strings.Cut(rest, "\n")
		if !ended || status == "" || status[0] != '+' && status[0] != '-' {
			t.Errorf("status %q", status)
			return statuses
		}
		statuses++
		output = rest
	}
}
