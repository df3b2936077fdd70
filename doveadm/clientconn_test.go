package doveadm

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	helloFromClient = "VERSION\tdoveadm-server\t1\t4\n"
	plainSecret     = "PLAIN\tAGRvdmVhZG0Ac2VjcmV0\n"
)

func TestClientHandshake(t *testing.T) {
	const version = "VERSION\tdoveadm-client\t1\t2\n"
	tests := map[string]struct {
		server string
		minor  Minor
		framed bool
		login  bool // PLAIN was sent
		phase  Phase
		err    string // empty: logged in
	}{
		"2.2.34 and newer":             {server: version + "-\n+\n", minor: 2, framed: true, login: true},
		"2.2.33":                       {server: "-\n" + version + "+\n", minor: 2, framed: true, login: true},
		"2.2.32 and older":             {server: "-\n+\n", login: true},
		"trusted":                      {server: version + "+\n", minor: 2, framed: true},
		"trusted, old":                 {server: "+\n"},
		"trusted, VERSION is too late": {server: "+\n" + version},
		"CRLF":                         {server: "VERSION\tdoveadm-client\t1\t2\r\n-\r\n+\r\n", minor: 2, framed: true, login: true},
		"newer than we are":            {server: "VERSION\tdoveadm-client\t1\t9\n-\n+\n", minor: 9, framed: true, login: true},
		"refused":                      {server: version + "-\n-\n", login: true, phase: PhaseLogin, err: "login refused"},
		"refused, closed":              {server: version + "-\n", login: true, phase: PhaseLogin, err: "unexpected EOF"},
		"silent":                       {server: "", phase: PhaseGreeting, err: "unexpected EOF"},
		"cut":                          {server: "VERSION", phase: PhaseGreeting, err: "unexpected EOF"},
		"cut behind VERSION":           {server: version, phase: PhaseLogin, err: "unexpected EOF"},
		"VERSION twice":                {server: version + version + "-\n+\n", phase: PhaseLogin, err: `protocol error: server is not compatible: "VERSION\tdoveadm-client\t1\t2"`},
		"a client":                     {server: helloFromClient, phase: PhaseLogin, err: `protocol error: server is not compatible: "VERSION\tdoveadm-server\t1\t4"`},
		"other major":                  {server: "VERSION\tdoveadm-client\t2\t0\n", phase: PhaseLogin, err: `protocol error: server is not compatible: "VERSION\tdoveadm-client\t2\t0"`},
		"another protocol":             {server: "* OK IMAP4rev1 ready\r\n", phase: PhaseLogin, err: `protocol error: invalid handshake line: "* OK IMAP4rev1 ready"`},
		"text behind":                  {server: "-NO\n", phase: PhaseLogin, err: `protocol error: invalid handshake line: "-NO"`},
		"empty line":                   {server: "\n", phase: PhaseLogin, err: `protocol error: invalid handshake line: ""`},
		"endless line":                 {server: strings.Repeat("x", maxStatusLine), phase: PhaseGreeting, err: "line too long"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, in := range map[string]io.Reader{
				"whole": strings.NewReader(tc.server),
				"bytes": oneByteReader{strings.NewReader(tc.server)},
			} {
				nc := &recordedConn{in: in}
				c, err := NewClientConn(nc, ClientOptions{Password: "secret", Minor: MaxMinor})
				sent := helloFromClient
				if tc.login {
					sent += plainSecret
				}
				if diff := cmp.Diff(sent, nc.out.String()); diff != "" {
					t.Errorf("%s: sent (-want +got):\n%s", kind, diff)
				}
				if tc.err != "" {
					var herr *HandshakeError
					if !errors.As(err, &herr) {
						t.Fatalf("%s: got %v, want a HandshakeError", kind, err)
					}
					if herr.Phase != tc.phase || herr.Err.Error() != tc.err || err.Error() != tc.phase.String()+": "+tc.err {
						t.Errorf("%s: got %v, want %v: %s", kind, err, tc.phase, tc.err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", kind, err)
				}
				if c.ServerMinor() != tc.minor || c.Logs() != tc.framed {
					t.Errorf("%s: minor %d, framed %v, want %d, %v", kind, c.ServerMinor(), c.Logs(), tc.minor, tc.framed)
				}
			}
		})
	}
}

func TestClientHandshakeWithNUL(t *testing.T) {
	for _, o := range []ClientOptions{{Password: "secret\x00x"}, {Username: "dove\x00adm", Password: "secret"}} {
		nc := &recordedConn{in: strings.NewReader("-\n+\n")}
		_, err := NewClientConn(nc, o)
		if err == nil || !strings.Contains(err.Error(), "NUL") || nc.out.Len() > 0 {
			t.Errorf("%+v: got %v, sent %q", o, err, nc.out.String())
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

func TestClientAnnouncesAtMostWhatItSpeaks(t *testing.T) {
	nc := &recordedConn{in: strings.NewReader("+\n")}
	if _, err := NewClientConn(nc, ClientOptions{Minor: 9}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(helloFromClient, nc.out.String()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
}

// loggedIn returns a connection to a server that sends stream after its "+".
func loggedIn(t testing.TB, o ClientOptions, server Minor, stream io.Reader) (*ClientConn, *recordedConn) {
	t.Helper()
	greeting := append(appendVersion(nil, serviceWantedByServer, server), "+\n"...)
	nc := &recordedConn{in: io.MultiReader(bytes.NewReader(greeting), stream)}
	c, err := NewClientConn(nc, o)
	if err != nil {
		t.Fatal(err)
	}
	nc.out.Reset()
	return c, nc
}

func TestSend(t *testing.T) {
	const option = "\t\tOPTION\tlog-passthrough\n"
	quota := &Command{User: "a\tb", Name: "quota get", Extra: []string{"proxy-ttl=5"}}
	tests := map[string]struct {
		client, server Minor
		want           string
	}{
		"1.3":                   {3, 3, option + "x\tproxy-ttl=5\ta\x01tb\tquota get\n\ta\tmailbox list\n"},
		"1.4":                   {4, 4, option + "x\tproxy-ttl=5\ta\x01tb\tquota get\n\ta\tmailbox list\n"},
		"1.3 and a later one":   {3, 4, option + "x\tproxy-ttl=5\ta\x01tb\tquota get\n\ta\tmailbox list\n"},
		"an older server":       {3, 2, "\ta\x01tb\tquota get\n\ta\tmailbox list\n"},
		"announced as an older": {2, 3, "\ta\x01tb\tquota get\n\ta\tmailbox list\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c, nc := loggedIn(t, ClientOptions{Minor: tc.client}, tc.server, strings.NewReader(""))
			for _, cmd := range []*Command{quota, {User: "a", Name: "mailbox list"}} {
				if err := c.Send(cmd); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tc.want, nc.out.String()); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSendRefuses(t *testing.T) {
	c, nc := loggedIn(t, ClientOptions{Minor: MaxMinor}, MaxMinor, strings.NewReader(""))
	longest := strings.Repeat("x", MaxLine-len("\ta\tfetch\t\n"))
	for name, tc := range map[string]struct {
		cmd  Command
		want error
	}{
		"too long":        {Command{User: "a", Name: "fetch", Args: []string{longest + "x"}}, ErrLineTooLong},
		"too long so far": {Command{User: "a", Name: "fetch", Args: []string{longest[:len(longest)-1] + "\t"}}, ErrLineTooLong},
		"NUL in user":     {Command{User: "alice\x00@example.com", Name: "fetch"}, ErrNUL},
		"NUL in name":     {Command{User: "a", Name: "fetch\x00"}, ErrNUL},
		"NUL in argument": {Command{User: "a", Name: "fetch", Args: []string{"", "\x00"}}, ErrNUL},
		"NUL in extra":    {Command{User: "a", Name: "fetch", Extra: []string{"forward=a=\x00"}}, ErrNUL},
	} {
		if err := c.Send(&tc.cmd); err != tc.want {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
	if nc.out.Len() > 0 {
		t.Fatalf("sent %d bytes of refused commands", nc.out.Len())
	}
	// The refused ones cost neither the connection nor its OPTION.
	if err := c.Send(&Command{User: "a", Name: "fetch", Args: []string{longest}}); err != nil {
		t.Error(err)
	}
	if want := "\t\tOPTION\tlog-passthrough\n\ta\tfetch\t" + longest + "\n"; nc.out.String() != want {
		t.Errorf("sent %.80q (%d bytes), want %d", nc.out.String(), nc.out.Len(), len(want))
	}
	if cap(c.out) > readSize {
		t.Errorf("still holds %d bytes of the last command", cap(c.out))
	}
}

func TestPacketInTheSegmentOfTheGreeting(t *testing.T) {
	nc := &recordedConn{in: strings.NewReader("VERSION\tdoveadm-client\t1\t2\n-\n+\nL\x00\x00\x00\x03\x03x\n")}
	c, err := NewClientConn(nc, ClientOptions{Minor: MaxMinor})
	if err != nil {
		t.Fatal(err)
	}
	if c.Clean() || !c.ChunkReady() {
		t.Errorf("clean %v, chunk ready %v, with a packet received", c.Clean(), c.ChunkReady())
	}
	chunk, err := c.ReadChunk()
	if diff := cmp.Diff(Chunk{Channel: ChannelLog, Data: []byte("\x03x\n")}, chunk); diff != "" || err != nil {
		t.Errorf("%v, chunk (-want +got):\n%s", err, diff)
	}
	if !c.Clean() || c.ChunkReady() {
		t.Errorf("clean %v, chunk ready %v, with nothing left", c.Clean(), c.ChunkReady())
	}
	if _, err := c.ReadChunk(); err != io.EOF {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
}

func TestIdleClientConnIsSmall(t *testing.T) {
	c, _ := loggedIn(t, ClientOptions{Minor: MaxMinor}, MaxMinor, bytes.NewReader(packets("\x00"+strings.Repeat("x", 200_000))))
	if _, err := c.ReadChunk(); err != nil {
		t.Fatal(err)
	}
	c.Shrink()
	if held := len(c.in.buf) + cap(c.out); held > 2*readSize {
		t.Errorf("holds %d bytes", held)
	}
}

func TestChunkReadyInsideALargePacket(t *testing.T) {
	// The first read ends somewhere in the packet: ReadChunk would wait for
	// the rest, and ChunkReady must say so.
	first := AppendPacket(nil, ChannelReply, make([]byte, 10_000))
	c, _ := loggedIn(t, ClientOptions{Minor: MaxMinor}, MaxMinor, io.MultiReader(
		&failingReader{bytes.NewReader(first[:100]), os.ErrDeadlineExceeded}, bytes.NewReader(first[100:])))
	if _, err := c.ReadChunk(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want a timeout", err)
	}
	if c.ChunkReady() || c.Clean() {
		t.Errorf("chunk ready %v, clean %v, in the middle of a packet", c.ChunkReady(), c.Clean())
	}
	if chunk, err := c.ReadChunk(); err != nil || len(chunk.Data) != 10_000 {
		t.Errorf("got %d bytes, %v after the timeout", len(chunk.Data), err)
	}
}

// FuzzClientHandshake lets a server say anything.
func FuzzClientHandshake(f *testing.F) {
	for _, tr := range loadTranscripts(f) {
		handshake, packets, _ := tr.split()
		f.Add(bytes.Join(append(handshake, packets[:min(1, len(packets))]...), nil), uint8(MaxMinor))
	}
	f.Add([]byte("-\nVERSION\tdoveadm-client\t1\t1\n+\n"), uint8(1))
	f.Fuzz(func(t *testing.T, server []byte, announced uint8) {
		type outcome struct {
			Sent, Err, Rest string
			Minor           Minor
			Framed          bool
		}
		run := func(in io.Reader) (o outcome) {
			nc := &recordedConn{in: in}
			c, err := NewClientConn(nc, ClientOptions{Password: "secret", Minor: Minor(announced)})
			o.Sent = nc.out.String()
			if err != nil {
				var herr *HandshakeError
				if c != nil || !errors.As(err, &herr) {
					t.Fatalf("got %v, %v, want a HandshakeError only", c, err)
				}
				o.Err = err.Error()
				return o
			}
			o.Minor, o.Framed = c.ServerMinor(), c.Logs()
			rest, err := io.ReadAll(io.MultiReader(bytes.NewReader(c.in.buffered()), in))
			if err != nil {
				t.Fatal(err)
			}
			o.Rest = string(rest)
			return o
		}
		whole := run(bytes.NewReader(server))
		if got := run(oneByteReader{bytes.NewReader(server)}); got != whole {
			t.Errorf("(-whole +byte by byte):\n%s", cmp.Diff(whole, got))
		}
		if whole.Err != "" {
			return
		}
		// The line before the rest is the "+", and no earlier line is.
		said, ok := strings.CutSuffix(string(server), whole.Rest)
		lines := strings.Split(strings.ReplaceAll(said, "\r\n", "\n"), "\n")
		if !ok || len(lines) < 2 || lines[len(lines)-2] != "+" || lines[len(lines)-1] != "" {
			t.Fatalf("logged in by %q", said)
		}
		asked := false
		for _, line := range lines[:len(lines)-2] {
			asked = asked || line == "-"
			if line == "+" {
				t.Errorf("read on behind %q", line)
			}
		}
		if strings.HasSuffix(whole.Sent, plainSecret) != asked {
			t.Errorf("asked for a login: %v, sent %q", asked, whole.Sent)
		}
		if whole.Framed != (min(whole.Minor, Minor(announced)) >= MinorMultiplex) {
			t.Errorf("framed %v with server %d and client %d", whole.Framed, whole.Minor, announced)
		}
	})
}
