package acceptance

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// freshConnections makes every command use a new connection to its backend, and
// the failures of a test count nothing.
const freshConnections = `
backend_defaults {
  pool {
    max_commands = 1
  }
  breaker {
    failures = 1000000
  }
}
`

// TestCertificatesChange: certificates expire and are replaced on both sides of
// a proxy that goes on. What is wrong is in its log and in the answer, with the
// remedy, and what is put right works within seconds.
func TestCertificatesChange(t *testing.T) {
	t.Parallel()
	s := startTLSSite(t)
	s.extra = freshConnections
	p := s.startProxy(t, map[dovecot.Version]string{dovecot.V23: "implicit", dovecot.V24: "starttls"})
	users := []string{"u1-1", "u2-1"}
	others := certtest.NewCA(t, "the new authority")

	// try runs a command for a user of each backend until it does what it
	// should: a reload of Dovecot and a look of the proxy at its files take a
	// moment. The backends are the business of the proxy, whichever version the
	// command is of.
	commands := []dovecot.Version{dovecot.V23}
	try := func(what string, as func(r dovecot.Result) bool) {
		t.Helper()
		for _, version := range commands {
			c := s.client(version, s.implicit, clientPassword, s.options(t, version, "ssl", "ca.crt")...)
			for _, user := range users {
				var r dovecot.Result
				for deadline := time.Now().Add(time.Minute); ; {
					r = dovecottest.Run(t, c, subjects.name, append([]string{"-u", user}, subjects.args...)...)
					if as(r) || time.Now().After(deadline) {
						break
					}
				}
				if !as(r) {
					t.Errorf("%s: command of %s for %s: %+v", what, version, user, r)
				}
			}
		}
	}
	fails := func(texts ...string) func(dovecot.Result) bool {
		return func(r dovecot.Result) bool {
			for _, text := range texts {
				if !strings.Contains(r.Stderr, text) {
					return false
				}
			}
			return r.ExitCode == 75 && r.Stdout == ""
		}
	}
	works := func(r dovecot.Result) bool {
		return r.ExitCode == 0 && r.Stderr == "" && strings.Contains(r.Stdout, "hdr.subject: mail 1 of u")
	}
	backends := func(issue func(version dovecot.Version) *certtest.Pair) {
		t.Helper()
		for _, server := range s.servers {
			issue(server.Version).Write(t, s.dir, "backend-"+string(server.Version))
			if err := server.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}

	try("as it begins", works)
	backends(func(dovecot.Version) *certtest.Pair { return s.ca.IssueExpired(t, "127.0.0.1") })
	try("backends with an expired certificate", fails("doveadm-proxy: ", "has expired", "renew the certificate of the backend"))
	p.waitLog("renew the certificate of the backend")
	backends(func(dovecot.Version) *certtest.Pair { return s.ca.Issue(t, "127.0.0.1") })
	try("backends with a new certificate", works)
	backends(func(dovecot.Version) *certtest.Pair { return s.ca.Issue(t, "mail.example.com") })
	try("backends with a certificate for another name", fails("set server_name in the tls block of the backend"))
	backends(func(dovecot.Version) *certtest.Pair { return others.Issue(t, "127.0.0.1") })
	try("backends of another authority", fails("unknown authority", "set ca_file in the tls block of the backend"))
	others.Write(t, s.dir, "backend-ca")
	try("whose certificate replaces the old one", works)
	p.waitLog("TLS files have changed: new connections use them")

	commands = dovecot.Versions()
	s.ca.IssueExpired(t, "127.0.0.1").Write(t, s.dir, "proxy")
	try("a listener with an expired certificate", fails("certificate has expired"))
	p.waitLog("TLS certificate has expired, the other side will refuse it")
	s.ca.Issue(t, "127.0.0.1").Write(t, s.dir, "proxy")
	try("a listener with a new certificate", works)
	s.copy(t, "localhost.crt", "proxy.crt") // its key is another one
	p.waitTry(func() { try("a listener whose new certificate cannot be used", works) }, "cannot be used: what was read before stays in use")
}

// waitTry does something until the log has the text.
func (p *proxyProcess) waitTry(do func(), text string) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(p.Log(), text); do() {
		if time.Now().After(deadline) {
			p.t.Fatalf("the log does not say %q", text)
		}
	}
}

// relay stands before a backend. The end of the test closes it.
type relay struct {
	Addr string

	running sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

// startRelay passes bytes on between what accept makes of a connection and the
// backend, whose bytes go through answer.
func startRelay(t *testing.T, backend string, accept func(net.Conn) (net.Conn, error), answer func([]byte) []byte) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Addr: l.Addr().String()}
	r.running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			r.running.Go(func() { r.serve(nc, backend, accept, answer) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.mu.Lock()
		for _, nc := range r.conns {
			nc.Close()
		}
		r.mu.Unlock()
		r.running.Wait()
	})
	return r
}

func (r *relay) serve(nc net.Conn, backend string, accept func(net.Conn) (net.Conn, error), answer func([]byte) []byte) {
	defer nc.Close()
	to, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer to.Close()
	r.mu.Lock()
	r.conns = append(r.conns, nc, to)
	r.mu.Unlock()
	from, err := accept(nc)
	if err != nil {
		return
	}
	r.running.Go(func() {
		io.Copy(to, from)
		to.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := to.Read(buf)
		if n > 0 {
			if _, err := from.Write(answer(buf[:n])); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func unchanged(p []byte) []byte { return p }

// TestResumption: the connections to a backend behind what ends TLS for it
// resume the session of the first, as the side that decides it sees.
func TestResumption(t *testing.T) {
	t.Parallel()
	const commands = 5
	c := startCluster(t, 1, 1, dovecot.Options{})
	s := c.servers[0]
	ca := certtest.NewCA(t, "tests")
	caFile, _ := ca.Write(t, t.TempDir(), "ca")
	config := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1").TLS()}}
	var mu sync.Mutex
	var resumed []bool
	r := startRelay(t, s.Addr, func(nc net.Conn) (net.Conn, error) {
		tc := tls.Server(nc, config)
		if err := tc.Handshake(); err != nil {
			return nil, err
		}
		mu.Lock()
		resumed = append(resumed, tc.ConnectionState().DidResume)
		mu.Unlock()
		return tc, nil
	}, unchanged)
	p := startProxy(t, racy, func(addr string) string {
		return fmt.Sprintf("listener \"main\" {\n  address = %q\n}\nclient \"doveadm\" {\n  password = \"{PLAIN}%s\"\n}\n"+
			"shard \"s1\" {\n  backend \"mail1\" {\n    address = %q\n    password = %q\n    tls {\n      mode = \"implicit\"\n      ca_file = %q\n    }\n  }\n}\n",
			addr, clientPassword, r.Addr, s.Password, caFile) + freshConnections
	})
	for range commands {
		if err := mustBeQuota(loginOnce(t.Context(), p.Addr, "u1-1", "quota get")); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]bool{false, true, true, true, true}, resumed); diff != "" {
		t.Errorf("resumed (-want +got):\n%s", diff)
	}
}

// TestSTARTTLSInjection: what somebody on the way adds in clear text before a
// handshake is never taken for what was said behind it, by either side of the
// proxy.
func TestSTARTTLSInjection(t *testing.T) {
	t.Parallel()
	s := startTLSSite(t)
	injected := "" // behind the greeting of a backend
	var mu sync.Mutex
	relays := make(map[dovecot.Version]string)
	for _, server := range s.servers {
		relays[server.Version] = startRelay(t, server.Addr, func(nc net.Conn) (net.Conn, error) { return nc, nil }, func(p []byte) []byte {
			mu.Lock()
			defer mu.Unlock()
			if string(p) == "-\n" || bytes.HasSuffix(p, []byte("\n-\n")) {
				return append(bytes.Clone(p), injected...)
			}
			return p
		}).Addr
	}
	s.extra, s.through = freshConnections, relays
	p := s.startProxy(t, map[dovecot.Version]string{dovecot.V23: "starttls", dovecot.V24: "starttls"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	secure := func(nc net.Conn) (net.Conn, error) {
		tc := tls.Client(nc, &tls.Config{RootCAs: s.ca.Pool(), ServerName: "127.0.0.1"})
		return tc, tc.HandshakeContext(ctx)
	}
	for _, user := range []string{"u1-1", "u2-1"} {
		for _, text := range []string{"", "+\n", "+\n\x00\x00\x00\x00\x0cFORGED\t\n+\n\n", "FORGED\t\n+\n", "-\n", "\n"} {
			mu.Lock()
			injected = text
			mu.Unlock()
			client, err := doveadm.Dial(ctx, s.startTLS, doveadm.ClientOptions{Password: clientPassword, Minor: doveadm.MaxMinor, StartTLS: secure})
			if err != nil {
				t.Fatal(err)
			}
			fields, err := runCommand(ctx, client, user, "fetch", "hdr.subject", "uid", "1", "mailbox", "INBOX")
			client.Close()
			var failure *doveadm.StatusError
			switch {
			case text == "":
				if err != nil || len(fields) != 1 || fields[0] != "mail 1 of "+user {
					t.Errorf("%s: got %q, %v", user, fields, err)
				}
			case !errors.As(err, &failure) || failure.Status.Code != doveadm.CodeTempFail || len(fields) > 0:
				t.Errorf("%s, %q before the handshake with the backend: got %q, %v", user, text, fields, err)
			}
		}
	}
	p.waitLog("data between the greeting and the TLS handshake")

	login := "PLAIN\tAGRvdmVhZG0AY2xpZW50LXNlY3JldA==\n" // of the proxy's client
	for _, text := range []string{login + "\tu1-1\tmailbox create\tINJECTED\n", "\tu1-1\tmailbox create\tINJECTED\n", login, "STARTTLS\n"} {
		nc, err := net.Dial("tcp", s.startTLS)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(nc, "VERSION\tdoveadm-server\t1\t3\nSTARTTLS\n"+text)
		greeting := make([]byte, len("VERSION\tdoveadm-client\t1\t4\n-\n"))
		if _, err := io.ReadFull(nc, greeting); err != nil {
			t.Fatal(err)
		}
		if tc, err := secure(nc); err == nil {
			// It would have to begin anew: nobody is logged in.
			io.WriteString(tc, "\tu1-1\tmailbox create\tINJECTED\n")
			rest, _ := io.ReadAll(tc)
			t.Errorf("%q before the handshake with the client: it succeeded, behind it came %q", text, rest)
		}
		nc.Close()
	}
	if r := dovecottest.Run(t, s.servers[0].Client(), "mailbox list", "-u", "u1-1", "INJECTED*"); r.Stdout != "" || r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
}
