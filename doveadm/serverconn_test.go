package doveadm

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func isSecret(username, password string) (bool, error) {
	return username == "doveadm" && password == "secret", nil
}

func plain(msg string) string {
	return "PLAIN\t" + base64.StdEncoding.EncodeToString([]byte(msg)) + "\n"
}

func TestServerHandshake(t *testing.T) {
	const (
		hello    = "VERSION\tdoveadm-server\t1\t2\n"
		greeting = "VERSION\tdoveadm-client\t1\t4\n-\n"
	)
	tests := map[string]struct {
		client  string
		written string // without RefuseLogin
		minor   Minor
		logs    bool
		err     string // empty: logged in
	}{
		"1.0":                  {client: "VERSION\tdoveadm-server\t1\t0\n" + plainSecret, written: "-\n+\n"},
		"1.1":                  {client: "VERSION\tdoveadm-server\t1\t1\n" + plainSecret, written: greeting + "+\n", minor: 1, logs: true},
		"1.2":                  {client: hello + plainSecret, written: greeting + "+\n", minor: 2, logs: true},
		"1.3":                  {client: "VERSION\tdoveadm-server\t1\t3\n" + plainSecret, written: greeting + "+\n", minor: 3},
		"1.4":                  {client: helloFromClient + plainSecret, written: greeting + "+\n" + StreamHeader, minor: 4},
		"1.9":                  {client: "VERSION\tdoveadm-server\t1\t9\n" + plainSecret, written: greeting + "+\n" + StreamHeader, minor: 9},
		"CRLF":                 {client: strings.ReplaceAll(hello+plainSecret, "\n", "\r\n"), written: greeting + "+\n", minor: 2, logs: true},
		"base64 without =":     {client: hello + strings.ReplaceAll(plain("\x00doveadm\x00secret1"), "=", ""), written: greeting, err: "login failed"},
		"wrong password":       {client: hello + plain("\x00doveadm\x00secrets"), written: greeting, err: "login failed"},
		"wrong name":           {client: hello + plain("\x00doveadmin\x00secret"), written: greeting, err: "login failed"},
		"NUL in password":      {client: hello + plain("\x00doveadm\x00secret\x00x"), written: greeting, err: "login failed"},
		"empty password":       {client: hello + plain("\x00doveadm\x00"), written: greeting, err: "login failed"},
		"authorization id":     {client: hello + plain("root\x00doveadm\x00secret"), written: greeting, err: "protocol error: login with an authorization id"},
		"no NUL":               {client: hello + plain("secret"), written: greeting, err: "protocol error: login is not of the form PLAIN asks for"},
		"one NUL":              {client: hello + plain("\x00secret"), written: greeting, err: "protocol error: login is not of the form PLAIN asks for"},
		"no base64":            {client: hello + "PLAIN\tsecret!\n", written: greeting, err: "protocol error: login is not valid base64"},
		"nothing to decode":    {client: hello + "PLAIN\t\n", written: greeting, err: "protocol error: login is not of the form PLAIN asks for"},
		"other mechanism":      {client: hello + "LOGIN\tsecret\n", written: greeting, err: "protocol error: login by another mechanism than PLAIN"},
		"a command":            {client: hello + "\tsecret\tquota get\n", written: greeting, err: "protocol error: login by another mechanism than PLAIN"},
		"STARTTLS":             {client: hello + "STARTTLS\n", written: greeting, err: "protocol error: STARTTLS where it is not offered"},
		"a TLS ClientHello":    {client: "\x16\x03\x01\x02\x00\x01\x00", err: "protocol error: TLS handshake on a listener without TLS"},
		"an HTTP request":      {client: "GET / HTTP/1.1\r\n\r\n", err: `protocol error: not a doveadm client: "GET / HTTP/1.1"`},
		"login before VERSION": {client: plainSecret + hello, err: "protocol error: login without a VERSION line before it"},
		"other major":          {client: "VERSION\tdoveadm-server\t2\t0\n", err: `protocol error: not a doveadm client: "VERSION\tdoveadm-server\t2\t0"`},
		"names as elsewhere":   {client: "VERSION\tdoveadm-client\t1\t0\n", err: `protocol error: not a doveadm client: "VERSION\tdoveadm-client\t1\t0"`},
		"nothing":              {client: "", err: "client disconnected before its VERSION line: EOF"},
		"half a VERSION":       {client: "VERS", err: "client disconnected before its VERSION line: unexpected EOF"},
		"no login":             {client: hello, written: greeting, err: "client disconnected before its login: EOF"},
		"half a login":         {client: hello + "PLAIN\tsec", written: greeting, err: "client disconnected before its login: unexpected EOF"},
		"endless VERSION line": {client: strings.Repeat("V", 3*maxHandshakeLine), err: "protocol error: handshake line longer than 8192 bytes"},
		"endless login":        {client: hello + "PLAIN\t" + strings.Repeat("V", 3*maxHandshakeLine), written: greeting, err: "protocol error: handshake line longer than 8192 bytes"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for kind, in := range map[string]io.Reader{
				"whole": strings.NewReader(tc.client),
				"bytes": oneByteReader{strings.NewReader(tc.client)},
			} {
				nc := &recordedConn{in: in}
				s := NewServerConn(nc, 0)
				err := s.Handshake(isSecret)
				if diff := cmp.Diff(tc.written, nc.out.String()); diff != "" {
					t.Errorf("%s: written (-want +got):\n%s", kind, diff)
				}
				if tc.err == "" {
					if err != nil || s.ClientMinor() != tc.minor || s.Logs() != tc.logs {
						t.Errorf("%s: minor %d, logs %v, %v, want %d, %v", kind, s.ClientMinor(), s.Logs(), err, tc.minor, tc.logs)
					}
					continue
				}
				if err == nil || err.Error() != tc.err {
					t.Fatalf("%s: got %v, want %s", kind, err, tc.err)
				}
				if tc.written != "" && strings.Contains(err.Error(), "secret") {
					t.Errorf("%s: the error tells what may be a password: %v", kind, err)
				}
				// Dovecot says "-" to whoever has sent a VERSION line.
				nc.out.Reset()
				if err := s.RefuseLogin(); err != nil {
					t.Fatal(err)
				}
				if said := nc.out.String() == "-\n"; said != (tc.written != "") {
					t.Errorf("%s: refused with %q", kind, nc.out.String())
				}
			}
		})
	}
}

func TestServerHandshakeErrors(t *testing.T) {
	in := helloFromClient + plainSecret
	s := NewServerConn(&recordedConn{in: strings.NewReader(in)}, 0)
	if err := s.Handshake(func(string, string) (bool, error) { return false, nil }); err != ErrLoginFailed {
		t.Errorf("got %v, want %v", err, ErrLoginFailed)
	}
	// Its own error goes before its answer.
	nc := &recordedConn{in: strings.NewReader(in)}
	s = NewServerConn(nc, 0)
	if err := s.Handshake(func(string, string) (bool, error) { return true, io.ErrClosedPipe }); err != io.ErrClosedPipe {
		t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
	}
	if strings.Contains(nc.out.String(), "+") {
		t.Errorf("said %q", nc.out.String())
	}
}

func TestTrustedClient(t *testing.T) {
	for minor, want := range map[Minor]string{
		0: "+\n",
		3: "VERSION\tdoveadm-client\t1\t4\n+\n",
		4: "VERSION\tdoveadm-client\t1\t4\n+\n" + StreamHeader,
	} {
		nc := &recordedConn{in: bytes.NewReader(appendVersion(nil, serviceWantedByClient, minor))}
		if err := NewServerConn(nc, 0).Handshake(nil); err != nil {
			t.Errorf("minor %d: %v", minor, err)
		}
		if diff := cmp.Diff(want, nc.out.String()); diff != "" {
			t.Errorf("minor %d: written (-want +got):\n%s", minor, diff)
		}
	}
}

// trusted returns a server's side whose client sends stream.
func trusted(t testing.TB, m Minor, maxLine int, stream string) *ServerConn {
	t.Helper()
	in := strings.NewReader(string(appendVersion(nil, serviceWantedByClient, m)) + stream)
	s := NewServerConn(&recordedConn{in: in}, maxLine)
	if err := s.Handshake(nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReadCommand(t *testing.T) {
	const limit = 5000
	longest := strings.Repeat("x", limit-len("\ta\tn\t\n"))
	who := Command{Name: "who"}
	tests := map[string]struct {
		stream string
		want   []Command
		err    error
	}{
		"nothing":        {"", nil, io.EOF},
		"several":        {"\t\twho\n\t\twho\r\n\ta\tn\tb\n", []Command{who, who, {User: "a", Name: "n", Args: []string{"b"}}}, io.EOF},
		"cut":            {"\t\twho\n\t\twho", []Command{who}, io.ErrUnexpectedEOF},
		"empty line":     {"\t\twho\n\n\t\twho\n", []Command{who}, ErrNoCommand},
		"unknown flag":   {"V\t\twho\n", nil, UnknownFlagError('V')},
		"NUL":            {"\ta\x00\twho\n", nil, ErrNUL},
		"OPTION":         {"\t\tOPTION\tlog-passthrough\n\t\tOPTION\n\t\twho\n\t\tOPTION\tother\tone\n", []Command{who}, io.EOF},
		"at the limit":   {"\ta\tn\t" + longest + "\n\t\twho\n", []Command{{User: "a", Name: "n", Args: []string{longest}}, who}, io.EOF},
		"over the limit": {"\ta\tn\tx" + longest + "\n\t\twho\n", nil, ErrLineTooLong},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := trusted(t, 3, limit, tc.stream)
			var got []Command
			var err error
			for {
				var cmd Command
				if err = s.ReadCommand(&cmd); err != nil {
					break
				}
				got = append(got, cmd)
			}
			if !errors.Is(err, tc.err) {
				t.Errorf("ended with %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadLongestCommand(t *testing.T) {
	longest := strings.Repeat("x", MaxLine-len("\ta\tn\t\n"))
	s := trusted(t, 3, 0, "\ta\tn\t"+longest+"\n\ta\tn\tx"+longest+"\n")
	var cmd Command
	if err := s.ReadCommand(&cmd); err != nil || cmd.Args[0] != longest {
		t.Fatalf("the longest line: %v", err)
	}
	if err := s.ReadCommand(&cmd); err != ErrLineTooLong {
		t.Errorf("a longer line: %v", err)
	}
}

func TestPipelined(t *testing.T) {
	s := trusted(t, 3, 0, "\t\twho\n\t\twho\n")
	for _, want := range []bool{true, false} {
		var cmd Command
		if err := s.ReadCommand(&cmd); err != nil {
			t.Fatal(err)
		}
		if s.Pipelined() != want {
			t.Errorf("pipelined %v, want %v", s.Pipelined(), want)
		}
	}
}

func TestIdleServerConnIsSmall(t *testing.T) {
	s := trusted(t, 3, 0, "\ta\tn\t"+strings.Repeat("x", 900_000)+"\n")
	var cmd Command
	if err := s.ReadCommand(&cmd); err != nil {
		t.Fatal(err)
	}
	if s.Shrink(); len(s.in.buf) != readSize || s.Pipelined() {
		t.Errorf("holds %d bytes, pipelined %v", len(s.in.buf), s.Pipelined())
	}
}

func TestLogsAreForWhoAsked(t *testing.T) {
	const option = "\t\tOPTION\tlog-passthrough\n"
	for minor := MinorBase; minor <= MaxMinor+1; minor++ {
		for _, stream := range []string{"\t\twho\n", "\t\tOPTION\tother\n\t\twho\n", option + "\t\twho\n"} {
			s := trusted(t, minor, 0, stream)
			var cmd Command
			if err := s.ReadCommand(&cmd); err != nil {
				t.Fatal(err)
			}
			want := minor == 1 || minor == 2 || minor >= 3 && strings.HasPrefix(stream, option)
			if s.Logs() != want {
				t.Errorf("minor %d after %q: logs %v, want %v", minor, stream, s.Logs(), want)
			}
		}
	}
}

func TestAppend(t *testing.T) {
	write := func(s *ServerConn) (out []byte) {
		out = s.AppendReply(out, []byte("a\t"))
		out = s.AppendReply(out, nil)
		out = s.AppendLog(out, LogError, "first\nsecond")
		out = s.AppendLogs(out, []byte("\x02more\n"))
		out = s.AppendLogs(out, nil)
		return s.AppendEnd(out, Failure(CodeNoUser))
	}
	const option = "\t\tOPTION\tlog-passthrough\n"
	tests := map[string]struct {
		minor  Minor
		stream string
		want   string
	}{
		"1.0":            {0, "\t\twho\n", "a\t\n-NOUSER\n"},
		"1.0, asking":    {0, option + "\t\twho\n", "a\t\n-NOUSER\n"},
		"1.2":            {2, "\t\twho\n", string(packets("\x00a\t", "L\x04first second\n", "L\x02more\n", "\x00\n-NOUSER\n"))},
		"1.3":            {3, option + "\t\twho\n", string(packets("\x00a\t", "L\x04first second\n", "L\x02more\n", "\x00\n-NOUSER\n"))},
		"1.3, no OPTION": {3, "\t\twho\n", string(packets("\x00a\t", "\x00\n-NOUSER\n"))},
		"1.4":            {4, option + "\t\twho\n", "a\t\x03\xfe\x00L\x04first second\n\x03\xfe\x00\x00\x03\xfe\x00L\x02more\n\x03\xfe\x00\x00\n-NOUSER\n"},
		"1.4, no OPTION": {4, "\t\twho\n", "a\t\n-NOUSER\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := trusted(t, tc.minor, 0, tc.stream)
			var cmd Command
			if err := s.ReadCommand(&cmd); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, string(write(s))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzServerHandshake lets a client say anything.
func FuzzServerHandshake(f *testing.F) {
	for _, tr := range loadTranscripts(f) {
		if len(tr.client) < 2000 {
			f.Add(tr.client)
		}
	}
	f.Add([]byte("VERSION\tdoveadm-server\t1\t0\r\n" + plain("\x00doveadm\x00secret") + "\t\twho\n"))
	f.Fuzz(func(t *testing.T, client []byte) {
		type outcome struct {
			Written, Err, End, Login string
			Commands                 []Command
			Logs                     bool
		}
		run := func(in io.Reader) (o outcome) {
			nc := &recordedConn{in: in}
			s := NewServerConn(nc, 2000)
			err := s.Handshake(func(username, password string) (bool, error) {
				o.Login = fmt.Sprintf("\x00%s\x00%s", username, password)
				return isSecret(username, password)
			})
			o.Written = nc.out.String()
			if err != nil {
				o.Err = err.Error()
				return o
			}
			for {
				var cmd Command
				if err := s.ReadCommand(&cmd); err != nil {
					o.End, o.Logs = err.Error(), s.Logs()
					return o
				}
				o.Commands = append(o.Commands, cmd)
			}
		}
		whole := run(bytes.NewReader(client))
		if diff := cmp.Diff(whole, run(oneByteReader{bytes.NewReader(client)})); diff != "" {
			t.Errorf("(-whole +byte by byte):\n%s", diff)
		}
		if logged := whole.Err == ""; logged != (whole.Login == "\x00doveadm\x00secret") || logged != strings.HasSuffix(strings.TrimSuffix(whole.Written, StreamHeader), "-\n+\n") {
			t.Errorf("login %q gave %q and wrote %q", whole.Login, whole.Err, whole.Written)
		}
		lines := bytes.SplitN(client, []byte{'\n'}, 3)
		if !bytes.HasPrefix(lines[0], []byte("VERSION\tdoveadm-server\t1\t")) && whole.Written != "" {
			t.Errorf("answered %q to %.100q", whole.Written, lines[0])
		}
		if whole.Login != "" && (len(lines) < 3 || !bytes.HasPrefix(lines[1], plainPrefix)) {
			t.Errorf("took %q for a login from %.100q", whole.Login, client)
		}
	})
}
