package doveadm_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

const (
	clientHello   = "VERSION\tdoveadm-server\t1\t2\n"
	serverVersion = "VERSION\tdoveadm-client\t1\t2\n"
	loginSecret   = "PLAIN\tAGRvdmVhZG0Ac2VjcmV0\n"
)

// serverHello is what a ServerConn says before it waits for the login.
var serverHello = fmt.Sprintf("VERSION\tdoveadm-client\t1\t%d\n-\n", doveadm.MaxMinor)

// sides are two TLS configurations that trust each other.
func sides(t *testing.T) (client, server *tls.Config) {
	ca := certtest.NewCA(t, "test")
	pair := ca.Issue(t, "localhost")
	client = &tls.Config{ServerName: "localhost", RootCAs: ca.Pool()}
	return client, &tls.Config{Certificates: []tls.Certificate{pair.TLS()}}
}

// handshake returns a hook for one side.
func handshake(side func(net.Conn, *tls.Config) *tls.Conn, c *tls.Config) func(net.Conn) (net.Conn, error) {
	return func(nc net.Conn) (net.Conn, error) {
		tc := side(nc, c)
		return tc, tc.Handshake()
	}
}

// connected returns the two ends of a TCP connection.
func connected(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, nc := range []net.Conn{c, s} {
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// The two halves of this package, over real TLS: the client logs in and runs a
// command, and neither the login nor the command crosses in clear text.
func TestSTARTTLS(t *testing.T) {
	clientTLS, serverTLS := sides(t)
	cnc, snc := connected(t)
	served := make(chan error, 1)
	go func() {
		s := doveadm.NewServerConn(snc, 0)
		s.StartTLS = handshake(tls.Server, serverTLS)
		served <- func() error {
			err := s.Handshake(func(username, password string) (bool, error) {
				if _, ok := s.NetConn().(*tls.Conn); !ok {
					return false, errors.New("the login came in clear text")
				}
				return username == "doveadm" && password == "secret", nil
			})
			if err != nil {
				return err
			}
			var cmd doveadm.Command
			if err := s.ReadCommand(&cmd); err != nil {
				return err
			}
			out := s.AppendReply(nil, []byte(cmd.Name+"\t"))
			_, err = s.NetConn().Write(s.AppendEnd(out, doveadm.Status{OK: true}))
			return err
		}()
	}()
	c, err := doveadm.NewClientConn(cnc, doveadm.ClientOptions{
		Password: "secret", Minor: doveadm.MaxMinor, StartTLS: handshake(tls.Client, clientTLS),
	})
	if err != nil {
		t.Fatal(err)
	}
	if state, ok := c.NetConn().(*tls.Conn); !ok || !state.ConnectionState().HandshakeComplete {
		t.Errorf("logged in over %T", c.NetConn())
	}
	reply, err := c.Do(t.Context(), &doveadm.Command{Name: "who"})
	if err != nil {
		t.Fatal(err)
	}
	if !reply.Next() {
		t.Fatal(reply.Err())
	}
	if text, err := reply.Text(); text != "who" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if err := reply.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A client does not go on in clear text, or believe what was said in it.
func TestSTARTTLSRefusedByClient(t *testing.T) {
	tests := map[string]struct {
		server string
		want   error // nil: a ProtocolError
		text   string
		phase  doveadm.Phase
	}{
		"2.3.8 and older":       {"VERSION\tdoveadm-client\t1\t1\n-\n", doveadm.ErrNoSTARTTLS, "its version is 1.1", doveadm.PhaseSTARTTLS},
		"2.2.32 and older":      {"-\n", doveadm.ErrNoSTARTTLS, "its version is 1.0", doveadm.PhaseSTARTTLS},
		"trusted":               {serverVersion + "+\n", doveadm.ErrNoSTARTTLS, "it asks for no login", doveadm.PhaseLogin},
		"login granted early":   {serverVersion + "-\n+\n", nil, "between the greeting and the TLS handshake", doveadm.PhaseSTARTTLS},
		"reply sent early":      {serverVersion + "-\n\x00\x00\x00\x00\x03\n+\n", nil, "between the greeting and the TLS handshake", doveadm.PhaseSTARTTLS},
		"half a line is enough": {serverVersion + "-\nV", nil, "between the greeting and the TLS handshake", doveadm.PhaseSTARTTLS},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cnc, snc := connected(t)
			if _, err := io.WriteString(snc, tc.server); err != nil {
				t.Fatal(err)
			}
			// All of it has arrived before the client looks.
			sent := make(chan string, 1)
			go func() {
				b, _ := io.ReadAll(snc)
				sent <- string(b)
			}()
			c, err := doveadm.NewClientConn(newPeeked(t, cnc, len(tc.server)), doveadm.ClientOptions{
				Password: "secret", Minor: doveadm.MinorSTARTTLS,
				StartTLS: func(net.Conn) (net.Conn, error) { return nil, errors.New("the TLS handshake began") },
			})
			cnc.CloseWrite()
			if err == nil {
				t.Fatalf("logged in, version 1.%d", c.ServerMinor())
			}
			var herr *doveadm.HandshakeError
			var perr *doveadm.ProtocolError
			if !errors.As(err, &herr) || herr.Phase != tc.phase || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v, want %q in phase %v", err, tc.text, tc.phase)
			}
			if tc.want != nil && !errors.Is(err, tc.want) || tc.want == nil && !errors.As(err, &perr) {
				t.Errorf("got %v", err)
			}
			if got := <-sent; got != clientHello {
				t.Errorf("sent %q", got)
			}
		})
	}
}

// newPeeked returns nc once so many bytes have arrived, which one read returns.
func newPeeked(t *testing.T, nc net.Conn, n int) net.Conn {
	t.Helper()
	r := bufio.NewReader(nc)
	if _, err := r.Peek(n); err != nil {
		t.Fatal(err)
	}
	return &peeked{nc, r}
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// Data that comes between the greeting and the TLS handshake, but is not there
// yet when the client sends STARTTLS, breaks the handshake.
func TestInjectionIntoClientHandshake(t *testing.T) {
	clientTLS, serverTLS := sides(t)
	cnc, snc := connected(t)
	go func() {
		r := bufio.NewReader(snc)
		r.ReadString('\n')
		io.WriteString(snc, serverHello)
		if line, _ := r.ReadString('\n'); line != "STARTTLS\n" {
			t.Errorf("the client said %q", line)
		}
		io.WriteString(snc, "+\n\x00\x00\x00\x00\x03\n+\n")
		handshake(tls.Server, serverTLS)(&peeked{snc, r})
	}()
	c, err := doveadm.NewClientConn(cnc, doveadm.ClientOptions{
		Password: "secret", Minor: doveadm.MaxMinor, StartTLS: handshake(tls.Client, clientTLS),
	})
	var record tls.RecordHeaderError
	if !errors.As(err, &record) {
		t.Errorf("got %v, %v", c, err)
	}
}

// What a client sends in clear text behind STARTTLS is not read after the
// handshake, whether it comes with the line or behind it.
func TestInjectionIntoServerHandshake(t *testing.T) {
	_, serverTLS := sides(t)
	for _, injected := range []string{loginSecret, loginSecret + "\t\tstop\n", "x", "\n", "STARTTLS\n"} {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("%.5q, in one packet %v", injected, together), func(t *testing.T) {
				cnc, snc := connected(t)
				s := doveadm.NewServerConn(snc, 0)
				s.StartTLS = handshake(tls.Server, serverTLS)
				result := make(chan error, 1)
				go func() {
					result <- s.Handshake(func(string, string) (bool, error) { return true, nil })
					snc.Close()
				}()
				r := bufio.NewReader(cnc)
				if together {
					io.WriteString(cnc, clientHello+"STARTTLS\n"+injected)
				} else {
					io.WriteString(cnc, clientHello)
					r.ReadString('-')
					r.ReadString('\n')
					io.WriteString(cnc, "STARTTLS\n")
					io.WriteString(cnc, injected)
				}
				cnc.CloseWrite()
				if err := <-result; err == nil {
					t.Fatal("the handshake succeeded")
				}
				rest, _ := io.ReadAll(r)
				if strings.Contains(string(rest), "+\n") {
					t.Errorf("answered %q", rest)
				}
				// RefuseLogin would write into the TLS stream.
				if err := s.RefuseLogin(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The first bytes of the TLS handshake may arrive with the STARTTLS line.
func TestTLSWithTheLine(t *testing.T) {
	clientTLS, serverTLS := sides(t)
	cnc, snc := connected(t)
	s := doveadm.NewServerConn(snc, 0)
	s.StartTLS = handshake(tls.Server, serverTLS)
	result := make(chan error, 1)
	go func() {
		result <- s.Handshake(func(_, password string) (bool, error) { return password == "secret", nil })
	}()
	tc := tls.Client(&glued{Conn: cnc, before: clientHello + "STARTTLS\n", skip: len(serverHello)}, clientTLS)
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(tc, loginSecret)
	if err := <-result; err != nil {
		t.Error(err)
	}
	got := make([]byte, 2)
	if _, err := io.ReadFull(tc, got); err != nil || string(got) != "+\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

// glued writes something in the same packet before the first write, and skips
// what is read first.
type glued struct {
	net.Conn
	before string
	skip   int
}

func (g *glued) Write(p []byte) (int, error) {
	_, err := g.Conn.Write(append([]byte(g.before), p...))
	g.before = ""
	return len(p), err
}

func (g *glued) Read(p []byte) (int, error) {
	if g.skip > 0 {
		if _, err := io.CopyN(io.Discard, g.Conn, int64(g.skip)); err != nil {
			return 0, err
		}
		g.skip = 0
	}
	return g.Conn.Read(p)
}

// Inside TLS, STARTTLS is one line too many.
func TestSTARTTLSTwice(t *testing.T) {
	clientTLS, serverTLS := sides(t)
	cnc, snc := connected(t)
	s := doveadm.NewServerConn(snc, 0)
	s.StartTLS = handshake(tls.Server, serverTLS)
	result := make(chan error, 1)
	go func() { result <- s.Handshake(func(string, string) (bool, error) { return true, nil }) }()
	io.WriteString(cnc, clientHello)
	if _, err := io.ReadFull(cnc, make([]byte, len(serverHello))); err != nil {
		t.Fatal(err)
	}
	io.WriteString(cnc, "STARTTLS\n")
	tc := tls.Client(cnc, clientTLS)
	io.WriteString(tc, "STARTTLS\n")
	var perr *doveadm.ProtocolError
	if err := <-result; !errors.As(err, &perr) || perr.What != "STARTTLS where it is not offered" {
		t.Errorf("got %v", err)
	}
}

func TestTLSBeforeSTARTTLS(t *testing.T) {
	clientTLS, serverTLS := sides(t)
	cnc, snc := connected(t)
	s := doveadm.NewServerConn(snc, 0)
	s.StartTLS = handshake(tls.Server, serverTLS)
	go tls.Client(cnc, clientTLS).Handshake()
	var perr *doveadm.ProtocolError
	if err := s.Handshake(func(string, string) (bool, error) { return true, nil }); !errors.As(err, &perr) || !strings.Contains(perr.What, "expects STARTTLS first") {
		t.Errorf("got %v", err)
	}
}

// The context of Dial bounds the TLS handshake, too.
func TestDialInterruptsSTARTTLS(t *testing.T) {
	clientTLS, _ := sides(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan struct{})
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		r := bufio.NewReader(nc)
		r.ReadString('\n')
		io.WriteString(nc, serverHello)
		r.ReadString('\n')
		close(asked)
		io.Copy(io.Discard, r)
	}()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(cause)
	}()
	_, err = doveadm.Dial(ctx, l.Addr().String(), doveadm.ClientOptions{
		Password: "secret", Minor: doveadm.MaxMinor, StartTLS: handshake(tls.Client, clientTLS),
	})
	var herr *doveadm.HandshakeError
	if !errors.Is(err, cause) || !errors.As(err, &herr) || herr.Phase != doveadm.PhaseSTARTTLS {
		t.Errorf("got %v", err)
	}
}
