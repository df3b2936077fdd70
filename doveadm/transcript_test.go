package doveadm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The files of testdata/transcripts are conversations with real Dovecot
// servers; its README describes the format.

type transcript struct {
	name   string
	client []byte   // all bytes of the client
	server [][]byte // the server's lines and, after the login, packets
}

// tlsAlert begins what is recorded of the end of a TLS connection.
var tlsAlert = []byte("\x17\x03\x03")

func loadTranscripts(t testing.TB) []transcript {
	t.Helper()
	files, err := filepath.Glob("testdata/transcripts/*_*.txt")
	if err != nil || len(files) < 190 {
		t.Fatalf("found %d transcripts: %v", len(files), err)
	}
	var all []transcript
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tr := transcript{name: strings.TrimSuffix(filepath.Base(file), ".txt")}
		for line := range strings.Lines(string(text)) {
			kind, quoted, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if kind != "C:" && kind != "S:" {
				continue
			}
			data, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatalf("%s: %v in %q", file, err, line)
			}
			switch {
			case kind == "C:":
				tr.client = append(tr.client, data...)
			case !bytes.HasPrefix([]byte(data), tlsAlert):
				tr.server = append(tr.server, []byte(data))
			}
		}
		all = append(all, tr)
	}
	return all
}

// notReplayed are the conversations that hold something this package does not
// speak yet.
var notReplayed = map[string]string{
	"dsync-server": "a tunnel, not a reply",
}

func replayed(t *testing.T) []transcript {
	var all []transcript
	skipped := map[string]bool{}
next:
	for _, tr := range loadTranscripts(t) {
		for part := range notReplayed {
			if strings.Contains(tr.name, part) && !strings.Contains(tr.name, "nouser") {
				skipped[part] = true
				continue next
			}
		}
		all = append(all, tr)
	}
	if len(skipped) != len(notReplayed) {
		t.Errorf("notReplayed names transcripts that do not exist: only found %v", skipped)
	}
	return all
}

// split returns the handshake lines of the server and what follows, and
// whether the login succeeded.
func (tr transcript) split() (handshake, rest [][]byte, loggedIn bool) {
	for i, s := range tr.server {
		if string(s) == "+\n" {
			return tr.server[:i+1], tr.server[i+1:], true
		}
	}
	return tr.server, nil, false
}

func (tr transcript) clientMinor() (Minor, bool) {
	line, _, _ := bytes.Cut(tr.client, []byte{'\n'})
	return parseVersion(bytes.TrimSuffix(line, []byte{'\r'}), serviceWantedByClient)
}

// demux is a second, simpler reader of what a server of PACKET format wrote.
func demux(t *testing.T, framed bool, packets [][]byte) (reply, logs []byte) {
	t.Helper()
	for _, p := range packets {
		if !framed {
			reply = append(reply, p...)
			continue
		}
		for len(p) > 0 {
			if len(p) < 5 {
				t.Fatalf("a recorded packet is cut: %q", p)
			}
			n := int(p[1])<<24 | int(p[2])<<16 | int(p[3])<<8 | int(p[4])
			if p[0] == 'L' {
				logs = append(logs, p[5:5+n]...)
			} else {
				reply = append(reply, p[5:5+n]...)
			}
			p = p[5+n:]
		}
	}
	return reply, logs
}

// recordedConn is a peer whose bytes are known; it keeps what it is sent.
type recordedConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (c *recordedConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *recordedConn) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *recordedConn) Close() error                { return nil }
func (c *recordedConn) SetDeadline(time.Time) error { return nil }

// oneByteReader makes every boundary a boundary of reads.
type oneByteReader struct{ r io.Reader }

func (o oneByteReader) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// asSent returns a reader that returns one item a read.
func asSent(items [][]byte) io.Reader {
	var readers []io.Reader
	for _, s := range items {
		readers = append(readers, bytes.NewReader(s))
	}
	return io.MultiReader(readers...)
}

// startTLS stands for a TLS handshake: what is recorded is what was said inside
// TLS. That bytes do not pass from outside to inside has tests of its own.
func startTLS(nc net.Conn) (net.Conn, error) { return nc, nil }

// outputBehindStatus are the conversations in which the server itself breaks
// the protocol (rows of a global command on a used connection).
var outputBehindStatus = []string{"global-after-mail", "who-kick", "who-kick-sessions"}

func TestTranscriptsInClientRole(t *testing.T) {
	for _, tr := range replayed(t) {
		t.Run(tr.name, func(t *testing.T) {
			minor, ok := tr.clientMinor()
			if !ok {
				minor = MaxMinor
			}
			handshake, packets, loggedIn := tr.split()
			stream := bytes.Join(tr.server, nil)
			if strings.HasPrefix(tr.name, "cli-") || len(stream) < 20_000 {
				replayAsClient(t, tr, &recordedConn{in: oneByteReader{bytes.NewReader(stream)}}, minor, handshake, packets, loggedIn)
			}
			replayAsClient(t, tr, &recordedConn{in: asSent(tr.server)}, minor, handshake, packets, loggedIn)
		})
	}
}

func replayAsClient(t *testing.T, tr transcript, nc *recordedConn, minor Minor, handshake, packets [][]byte, loggedIn bool) {
	t.Helper()
	var logs []byte
	o := ClientOptions{Password: "secret", Minor: minor, OnLog: func(l LogLevel, text string) {
		logs = append(append(append(logs, byte(l)), text...), '\n')
	}}
	if strings.HasSuffix(tr.name, "starttls") {
		o.StartTLS = startTLS
	}
	c, err := NewClientConn(nc, o)
	if !loggedIn {
		refused := len(handshake) > 0 && string(handshake[len(handshake)-1]) == "-\n" && len(handshake) > 2
		if errors.Is(err, ErrLoginRefused) != refused {
			t.Fatalf("login refused = %v, got %v", refused, err)
		}
		var herr *HandshakeError
		if !errors.As(err, &herr) {
			t.Fatalf("got %v, want a HandshakeError", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if minor <= MaxMinor {
		// What we send to log in is what the recorded client sent.
		want := strings.ReplaceAll(string(tr.client[:min(nc.out.Len(), len(tr.client))]), "\r\n", "\n")
		want = want[:min(len(want), nc.out.Len())]
		if got := nc.out.String()[:len(want)]; got != want {
			t.Errorf("handshake sent\n%q, recorded\n%q", got, want)
		}
	}
	if minor >= MinorMultiplex && c.ServerMinor() == 0 {
		t.Error("no server version")
	}

	var read []byte // the reply stream as it is written again from what was parsed
	stray := false
	for {
		reply := &Reply{conn: c, ctx: t.Context(), stop: func() bool { return false }}
		for reply.Next() {
			text, err := reply.Text()
			if err != nil {
				break
			}
			read = AppendEscaped(read, text)
			read = append(read, '\t')
		}
		var status *StatusError
		err := reply.Err()
		if err != nil && !errors.As(err, &status) {
			var perr *ProtocolError
			stray = errors.As(err, &perr)
			if !stray && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("reading replies ended with %v", err)
			}
			break
		}
		read = append(read, '\n')
		read = AppendStatus(read, reply.Status())
	}
	want, wantLogs := demux(t, c.Logs(), packets)
	for _, part := range outputBehindStatus {
		if stray && strings.HasSuffix(tr.name, part) {
			return // read up to there, and noticed
		}
	}
	if stray {
		t.Error("data behind a status line")
	}
	got := string(read)
	// The command "user" prints JSON without a TAB behind it.
	got = strings.ReplaceAll(got, "}\t\n", "}\n")
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("replies (-recorded +read again):\n%s", diff)
	}
	if diff := cmp.Diff(string(wantLogs), string(logs)); diff != "" {
		t.Errorf("log lines (-recorded +read):\n%s", diff)
	}
}

func TestTranscriptsInServerRole(t *testing.T) {
	for _, tr := range replayed(t) {
		t.Run(tr.name, func(t *testing.T) {
			replayAsServer(t, tr, bytes.NewReader(tr.client))
			replayAsServer(t, tr, oneByteReader{bytes.NewReader(tr.client)})
		})
	}
}

func replayAsServer(t *testing.T, tr transcript, client io.Reader) {
	t.Helper()
	handshake, packets, loggedIn := tr.split()
	nc := &recordedConn{in: client}
	s := NewServerConn(nc, 0)
	s.StartTLS = startTLS
	auth := func(username, password string) (bool, error) {
		return username == "doveadm" && password == "secret", nil
	}
	if strings.Contains(tr.name, "unix-preauth") {
		auth = nil
	}
	err := s.Handshake(auth)
	if err != nil {
		s.RefuseLogin()
	}
	if (err == nil) != loggedIn {
		t.Fatalf("logged in = %v, got %v", loggedIn, err)
	}
	// Our answer is the recorded one but for the announced version and what
	// follows from it.
	want := regexp.MustCompile(`(?m)^(VERSION\t.*\t)\d+$`).ReplaceAllString(string(bytes.Join(handshake, nil)), fmt.Sprintf("${1}%d", MaxMinor))
	inStream := s.ClientMinor() >= MinorStream
	if inStream && loggedIn {
		want += StreamHeader
	}
	if got := nc.out.String(); got != want {
		t.Errorf("handshake written\n%q, recorded\n%q", got, want)
	}
	if !loggedIn {
		return
	}

	var parsed []byte
	var rerr error
	for {
		var cmd Command
		if rerr = s.ReadCommand(&cmd); rerr != nil {
			break
		}
		if cmd.Name == "save" || cmd.Name == "sieve put" {
			// What follows is input, not commands.
			rerr = io.EOF
			break
		}
		parsed = AppendCommand(parsed, &cmd, s.ClientMinor())
	}
	if got, want := canonical(parsed), canonical(tr.client); !strings.Contains(want, got) {
		t.Errorf("commands read\n%q, recorded\n%q", got, want)
	}
	reply, logs := demux(t, s.ClientMinor() >= MinorMultiplex, packets)
	closing := rerr != io.EOF
	for _, text := range []string{"No command given", "Unknown flag: "} {
		i := strings.LastIndex(string(logs), "doveadm client: "+text)
		if i >= 0 && !strings.Contains(tr.name, "save") && !strings.Contains(tr.name, "x-flag-unknown") {
			line, _, _ := strings.Cut(string(logs[i:]), "\n")
			if !closing || "doveadm client: "+rerr.Error() != line {
				t.Errorf("error %v, recorded %q", rerr, line)
			}
		}
	}

	// The recorded packets, written by us, are the recorded bytes; for a client
	// that reads STREAM, which no recorded server writes, what it reads out of
	// them. Servers below 1.3 send log lines to everybody; we, as a server of
	// 1.4, send them to newer clients that asked.
	nc.out.Reset()
	var out, recorded []byte
	for _, p := range packets {
		switch {
		case s.ClientMinor() < MinorMultiplex:
			out = s.AppendReply(out, p)
		case p[0] == ChannelLog && !s.Logs() && s.ClientMinor() >= MinorExtraFields && bytes.Contains(handshake[0], []byte("\t1\t2\n")):
			if len(s.AppendLogs(out, p[5:])) != len(out) {
				t.Error("log lines without being asked")
			}
			continue
		case p[0] == ChannelLog:
			out = s.AppendLogs(out, p[5:])
		default:
			out = s.AppendReply(out, p[5:])
		}
		recorded = append(recorded, p...)
	}
	if inStream {
		wantReply, wantLogs := demux(t, true, [][]byte{recorded})
		if got, problem := readStream(StreamHeader + string(out)); problem != "" || got[ChannelReply] != string(wantReply) || got[ChannelLog] != string(wantLogs) {
			t.Errorf("written %q (%s), recorded\n%q", got, problem, recorded)
		}
	} else if got, want := string(out), string(recorded); got != want {
		t.Errorf("packets written\n%q, recorded\n%q", got, want)
	}
	if len(reply) > 0 && !bytes.Contains(reply, []byte{'\n'}) {
		t.Errorf("no status in %q", reply)
	}
}

// canonical drops what may be written in two ways: line ends, the OPTION line,
// the handshake and the "x" of empty extra fields.
func canonical(client []byte) string {
	var lines []string
	for line := range strings.Lines(string(client)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "VERSION\t") || strings.HasPrefix(line, "PLAIN\t") || line == startTLSLine || strings.HasPrefix(line, "\t\tOPTION\t") {
			continue
		}
		line = strings.Replace(line, "Dv", "D", 1)
		line = strings.Replace(line, "vD", "D", 1)
		// An escape byte before the end of a field is dropped.
		line = strings.ReplaceAll(line+"\t", "\x01\t", "\t")
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
