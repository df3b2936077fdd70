package tlsfiles_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

// logLines keeps a log.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// take returns what was logged since the last call.
func (l *logLines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.buf.String()
	l.buf.Reset()
	return s
}

func (l *logLines) logger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: l, DisableTime: true})
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func write(t *testing.T, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// meet connects the two sides and returns the states of both after a byte has
// gone each way, and their errors.
func meet(t *testing.T, client, server *tls.Config) (c, s tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer nc.Close()
		tc := tls.Server(nc, server)
		b := make([]byte, 1)
		if _, err = tc.Read(b); err == nil {
			_, err = tc.Write(b)
		}
		s = tc.ConnectionState()
		done <- err
	}()
	nc := must[net.Conn](t)(net.Dial("tcp", l.Addr().String()))
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(nc, client)
	b := []byte{1}
	if _, clientErr = tc.Write(b); clientErr == nil {
		_, clientErr = tc.Read(b)
	}
	c = tc.ConnectionState()
	nc.Close()
	return c, s, clientErr, <-done
}

func serial(s tls.ConnectionState) string { return s.PeerCertificates[0].SerialNumber.String() }

// A certificate is replaced while it is in use: the new one is served within a
// second, one that cannot be used never, and the log has each once.
func TestServerFilesChange(t *testing.T) {
	ca := certtest.NewCA(t, "ca")
	dir := t.TempDir()
	first, second := ca.Issue(t, "localhost"), ca.Issue(t, "localhost")
	certFile, keyFile := first.Write(t, dir, "server")
	log := &logLines{}

	synctest.Test(t, func(t *testing.T) {
		files := tlsfiles.NewServer(tlsfiles.Server{CertFile: certFile, KeyFile: keyFile}, log.logger())
		served := func() *x509.Certificate {
			t.Helper()
			return must[*tls.Config](t)(files.Config()).Certificates[0].Leaf
		}
		// expect looks twice: what is found is logged by the first look.
		expect := func(what string, want *certtest.Pair, logged ...string) {
			t.Helper()
			for i := range 2 {
				time.Sleep(time.Second)
				if !served().Equal(want.Leaf) {
					t.Errorf("%s: another certificate is served", what)
				}
				got := log.take()
				if i > 0 {
					logged = nil
				}
				if strings.Count(got, "\n") != min(len(logged), 1) {
					t.Errorf("%s, look %d: logged %q", what, i+1, got)
				}
				for _, text := range logged {
					if !strings.Contains(got, text) {
						t.Errorf("%s: logged %q, want %q", what, got, text)
					}
				}
			}
		}
		expect("unchanged", first)
		unchanged := must[*tls.Config](t)(files.Config())

		second.Write(t, dir, "server")
		if !served().Equal(first.Leaf) {
			t.Error("looked twice within a second")
		}
		expect("replaced", second, "[INFO]", "have changed", certFile, "localhost", "not_after=\"2100-01-01")
		if must[*tls.Config](t)(files.Config()) == unchanged {
			t.Error("the same configuration")
		}

		write(t, keyFile, first.KeyPEM)
		expect("key of another one", second, "[ERROR]", "stays in use", "does not match", keyFile)
		write(t, certFile, []byte("-----BEGIN CERTIFICATE-----\nrubbish\n"))
		expect("rubbish", second, "[ERROR]", "no PEM block")
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		expect("removed", second, "[ERROR]", "no such file")
		if err := os.Mkdir(certFile, 0o700); err != nil {
			t.Fatal(err)
		}
		expect("a directory", second, "[ERROR]", "not a regular file")
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		second.Write(t, dir, "server")
		kept := must[*tls.Config](t)(files.Config())
		expect("back", second, "[INFO]", "as they were")
		if must[*tls.Config](t)(files.Config()) != kept {
			t.Error("another configuration of the same files: sessions cannot be resumed")
		}
		first.Write(t, dir, "server")
		expect("replaced again", first, "[INFO]", "have changed")
	})
}

// A certificate that has expired is named once, and is served all the same.
func TestExpiredCertificate(t *testing.T) {
	ca := certtest.NewCA(t, "ca")
	dir := t.TempDir()
	certFile, keyFile := ca.IssueExpired(t, "localhost").Write(t, dir, "server")
	log := &logLines{}
	synctest.Test(t, func(t *testing.T) {
		files := tlsfiles.NewServer(tlsfiles.Server{CertFile: certFile, KeyFile: keyFile}, log.logger())
		for i, want := range []int{1, 0, 0} {
			time.Sleep(time.Second)
			must[*tls.Config](t)(files.Config())
			if got := log.take(); strings.Count(got, "\n") != want || want > 0 && (!strings.Contains(got, "[WARN]") || !strings.Contains(got, "has expired") || !strings.Contains(got, "certificate=localhost")) {
				t.Errorf("look %d: logged %q", i+1, got)
			}
		}
		ca.Issue(t, "localhost").Write(t, dir, "server")
		time.Sleep(time.Second)
		must[*tls.Config](t)(files.Config())
		if got := log.take(); strings.Contains(got, "expired") {
			t.Errorf("after its renewal: logged %q", got)
		}
	})
}

// Without any that could be used, the error is that of the files, and it ends.
func TestFilesThatComeLater(t *testing.T) {
	pair := certtest.NewCA(t, "ca").Issue(t, "localhost")
	dir := t.TempDir()
	log := &logLines{}
	synctest.Test(t, func(t *testing.T) {
		files := tlsfiles.NewServer(tlsfiles.Server{CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key")}, log.logger())
		for range 2 {
			if _, err := files.Config(); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("got %v", err)
			}
			time.Sleep(time.Second)
		}
		if got := log.take(); got != "" {
			t.Errorf("logged %q: who asks for the configuration does", got)
		}
		pair.Write(t, dir, "server")
		if _, err := files.Config(); err != nil {
			t.Error(err)
		}
	})
}

// Sessions are resumed, but not across a change of what they rest on.
func TestResumption(t *testing.T) {
	ca, otherCA := certtest.NewCA(t, "ca"), certtest.NewCA(t, "other")
	dir := t.TempDir()
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.CertPEM)
	pair := ca.Issue(t, "localhost")
	certFile, keyFile := pair.Write(t, dir, "server")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			write(t, caFile, ca.CertPEM)
			server := must[*tls.Config](t)(tlsfiles.NewServer(tlsfiles.Server{CertFile: certFile, KeyFile: keyFile}, hclog.NewNullLogger()).Config())
			server = server.Clone()
			server.MaxVersion = version
			server.GetConfigForClient = nil
			for name, c := range map[string]tlsfiles.Client{
				"verified": {ServerName: "localhost", CAFile: caFile},
				"pinned":   {ServerName: "localhost", CAFile: caFile, Pin: pair.Pin()},
			} {
				files := tlsfiles.NewClient(c, hclog.NewNullLogger())
				for i := range 3 {
					state, _, err, serverErr := meet(t, must[*tls.Config](t)(files.Config()), server)
					if err != nil || serverErr != nil {
						t.Fatal(err, serverErr)
					}
					if state.DidResume != (i > 0) || state.Version != version {
						t.Errorf("%s, connection %d: resumed %v, %s", name, i+1, state.DidResume, tls.VersionName(state.Version))
					}
				}
				write(t, caFile, otherCA.CertPEM)
				eventually(t, func() bool {
					_, _, err, _ := meet(t, must[*tls.Config](t)(files.Config()), server)
					var unknown x509.UnknownAuthorityError
					return errors.As(err, &unknown)
				})
				write(t, caFile, ca.CertPEM)
			}
		})
	}
}

// eventually waits for a look at the files.
func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the changed file is not used")
		}
	}
}

func TestClientVerifies(t *testing.T) {
	ca, otherCA := certtest.NewCA(t, "ca"), certtest.NewCA(t, "other")
	dir := t.TempDir()
	caFile, otherFile := write(t, filepath.Join(dir, "ca.pem"), ca.CertPEM), write(t, filepath.Join(dir, "other.pem"), otherCA.CertPEM)
	good, expired := ca.Issue(t, "mail1.example", "10.0.0.1"), ca.IssueExpired(t, "mail1.example")
	pin, otherPin := good.Pin(), expired.Pin()

	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var pinned *tlsfiles.PinError
	tests := map[string]struct {
		server *certtest.Pair
		client tlsfiles.Client
		want   any // what errors.As finds; nil: no error
	}{
		"name":                  {good, tlsfiles.Client{ServerName: "mail1.example", CAFile: caFile}, nil},
		"address":               {good, tlsfiles.Client{ServerName: "10.0.0.1", CAFile: caFile}, nil},
		"another name":          {good, tlsfiles.Client{ServerName: "mail2.example", CAFile: caFile}, &hostname},
		"another address":       {good, tlsfiles.Client{ServerName: "10.0.0.2", CAFile: caFile}, &hostname},
		"another authority":     {good, tlsfiles.Client{ServerName: "mail1.example", CAFile: otherFile}, &unknown},
		"the system's":          {good, tlsfiles.Client{ServerName: "mail1.example"}, &unknown},
		"expired":               {expired, tlsfiles.Client{ServerName: "mail1.example", CAFile: caFile}, &invalid},
		"pin":                   {good, tlsfiles.Client{ServerName: "mail1.example", CAFile: caFile, Pin: pin}, nil},
		"another pin":           {good, tlsfiles.Client{ServerName: "mail1.example", CAFile: caFile, Pin: otherPin}, &pinned},
		"pin, another name":     {good, tlsfiles.Client{ServerName: "mail2.example", CAFile: caFile, Pin: pin}, &hostname},
		"anything":              {expired, tlsfiles.Client{ServerName: "x", CAFile: otherFile, InsecureSkipVerify: true}, nil},
		"pin alone":             {good, tlsfiles.Client{ServerName: "x", Pin: pin, InsecureSkipVerify: true}, nil},
		"another pin, and only": {good, tlsfiles.Client{ServerName: "x", Pin: otherPin, InsecureSkipVerify: true}, &pinned},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			certFile, keyFile := tc.server.Write(t, t.TempDir(), "server")
			server := must[*tls.Config](t)(tlsfiles.NewServer(tlsfiles.Server{CertFile: certFile, KeyFile: keyFile}, hclog.NewNullLogger()).Config())
			client := must[*tls.Config](t)(tlsfiles.NewClient(tc.client, hclog.NewNullLogger()).Config())
			_, _, err, _ := meet(t, client, server)
			if (err == nil) != (tc.want == nil) || err != nil && !errors.As(err, tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	ca, otherCA := certtest.NewCA(t, "ca"), certtest.NewCA(t, "other")
	dir := t.TempDir()
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.CertPEM)
	certFile, keyFile := ca.Issue(t, "localhost").Write(t, dir, "server")
	server := must[*tls.Config](t)(tlsfiles.NewServer(tlsfiles.Server{CertFile: certFile, KeyFile: keyFile, ClientCAFile: caFile}, hclog.NewNullLogger()).Config())
	for name, tc := range map[string]struct {
		pair *certtest.Pair
		want string // of the server's error
	}{
		"good":              {ca.Issue(t, "proxy1"), ""},
		"none":              {nil, "client didn't provide a certificate"},
		"another authority": {otherCA.Issue(t, "proxy1"), "unknown authority"},
		"expired":           {ca.IssueExpired(t, "proxy1"), "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tlsfiles.Client{ServerName: "localhost", CAFile: caFile}
			if tc.pair != nil {
				c.CertFile, c.KeyFile = tc.pair.Write(t, t.TempDir(), "client")
			}
			_, state, clientErr, err := meet(t, must[*tls.Config](t)(tlsfiles.NewClient(c, hclog.NewNullLogger()).Config()), server)
			switch {
			case tc.want == "" && (err != nil || clientErr != nil || serial(state) != tc.pair.Leaf.SerialNumber.String()):
				t.Errorf("got %v, %v", err, clientErr)
			case tc.want != "" && (err == nil || clientErr == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, %v", err, clientErr)
			}
		})
	}
}

// ALPN is offered and known, and nobody has to know it. TLS 1.1 is refused.
func TestProtocols(t *testing.T) {
	ca := certtest.NewCA(t, "ca")
	dir := t.TempDir()
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.CertPEM)
	certFile, keyFile := ca.Issue(t, "localhost").Write(t, dir, "server")
	server := must[*tls.Config](t)(tlsfiles.NewServer(tlsfiles.Server{CertFile: certFile, KeyFile: keyFile}, hclog.NewNullLogger()).Config())
	client := must[*tls.Config](t)(tlsfiles.NewClient(tlsfiles.Client{ServerName: "localhost", CAFile: caFile}, hclog.NewNullLogger()).Config())
	for name, tc := range map[string]struct {
		client, server func(c *tls.Config)
		want           string
		fails          bool
	}{
		"both":                  {want: tlsfiles.ALPN},
		"client without":        {client: func(c *tls.Config) { c.NextProtos = nil }},
		"client with others":    {client: func(c *tls.Config) { c.NextProtos = []string{"imap", "h2"} }},
		"client with ours, too": {client: func(c *tls.Config) { c.NextProtos = []string{"imap", tlsfiles.ALPN} }, want: tlsfiles.ALPN},
		"server without":        {server: func(c *tls.Config) { c.GetConfigForClient = nil }},
		"client of TLS 1.1":     {client: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, fails: true},
		"server of TLS 1.1": {server: func(c *tls.Config) {
			c.GetConfigForClient = nil
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := client.Clone(), server.Clone()
			if tc.client != nil {
				tc.client(c)
			}
			if tc.server != nil {
				tc.server(s)
			}
			state, _, err, _ := meet(t, c, s)
			if (err != nil) != tc.fails || state.NegotiatedProtocol != tc.want {
				t.Errorf("protocol %q, %v", state.NegotiatedProtocol, err)
			}
		})
	}
}
