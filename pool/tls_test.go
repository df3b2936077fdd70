package pool

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

// transport is a way to a backend.
type transport struct {
	mode    string
	version uint16 // of TLS
}

// overAll runs test over every transport.
func overAll(t *testing.T, test func(t *testing.T, over transport)) {
	t.Run("clear text", func(t *testing.T) { test(t, transport{mode: config.TLSOff}) })
	for _, mode := range []string{config.TLSImplicit, config.TLSStartTLS} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(mode+" "+tls.VersionName(version), func(t *testing.T) { test(t, transport{mode, version}) })
		}
	}
}

// start returns a pool over the transport.
func (o transport) start(t *testing.T, options doveadmtest.Options, change func(b *config.Backend)) *world {
	t.Helper()
	settings := config.BackendTLS{Mode: o.mode}
	if o.mode != config.TLSOff {
		ca := certtest.NewCA(t, "test")
		settings.CAFile, _ = ca.Write(t, t.TempDir(), "ca")
		options.STARTTLS = o.mode == config.TLSStartTLS
		options.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1").TLS()}, MaxVersion: o.version}
	}
	return onLoopback(t, options, func(b *config.Backend) {
		b.TLS = settings
		if change != nil {
			change(b)
		}
	})
}

func TestDialTLS(t *testing.T) {
	ca, otherCA := certtest.NewCA(t, "test"), certtest.NewCA(t, "other")
	dir := t.TempDir()
	caFile, _ := ca.Write(t, dir, "ca")
	otherFile, _ := otherCA.Write(t, dir, "other")
	certFile, keyFile := ca.Issue(t, "proxy").Write(t, dir, "proxy")
	good, named, expired := ca.Issue(t, "127.0.0.1"), ca.Issue(t, "mail1.example"), ca.IssueExpired(t, "127.0.0.1")
	serve := func(pair *certtest.Pair) doveadmtest.Options {
		return doveadmtest.Options{Minor: 3, Password: "secret", TLS: &tls.Config{Certificates: []tls.Certificate{pair.TLS()}}}
	}
	demanding := serve(good)
	demanding.TLS.ClientAuth, demanding.TLS.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	oldTLS := serve(good)
	oldTLS.TLS.MinVersion, oldTLS.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	off := doveadmtest.Options{Minor: 3, Password: "secret"}
	both := []string{config.TLSImplicit, config.TLSStartTLS}
	implicit, starttls := both[:1], both[1:]

	for name, tc := range map[string]struct {
		modes  []string
		server doveadmtest.Options
		client config.BackendTLS
		text   string // of the error
		want   error
	}{
		"good":               {both, serve(good), config.BackendTLS{CAFile: caFile}, "", nil},
		"other name":         {both, serve(named), config.BackendTLS{CAFile: caFile}, "set server_name", nil},
		"server_name":        {both, serve(named), config.BackendTLS{CAFile: caFile, ServerName: "mail1.example"}, "", nil},
		"other authority":    {both, serve(good), config.BackendTLS{CAFile: otherFile}, "set ca_file", nil},
		"system authorities": {both, serve(good), config.BackendTLS{}, "set ca_file", nil},
		"expired":            {both, serve(expired), config.BackendTLS{CAFile: caFile}, "renew the certificate", nil},
		"pin":                {both, serve(good), config.BackendTLS{CAFile: caFile, Pin: good.Pin()}, "", nil},
		"other pin":          {both, serve(good), config.BackendTLS{CAFile: caFile, Pin: named.Pin()}, "its public key is " + good.Pin(), nil},
		"no verification":    {both, serve(expired), config.BackendTLS{InsecureSkipVerify: true}, "", nil},
		"certificate wanted": {both, demanding, config.BackendTLS{CAFile: caFile}, "cert_file and key_file in the tls block", nil},
		"certificate":        {both, demanding, config.BackendTLS{CAFile: caFile, CertFile: certFile, KeyFile: keyFile}, "", nil},
		"TLS 1.1":            {both, oldTLS, config.BackendTLS{CAFile: caFile}, "protocol version", nil},
		"files are gone":     {both, serve(good), config.BackendTLS{CAFile: filepath.Join(dir, "gone")}, "no such file", nil},
		"wrong password": {both, func() doveadmtest.Options {
			o := serve(good)
			o.Password = "other"
			return o
		}(), config.BackendTLS{CAFile: caFile}, "doveadm_password", ErrBackendLogin},
		"no process": {both, func() doveadmtest.Options {
			o := serve(good)
			o.Connected = (*doveadmtest.Conn).Hang
			return o
		}(), config.BackendTLS{CAFile: caFile}, "process_limit", ErrNoProcess},
		"silent without TLS": {implicit, func() doveadmtest.Options {
			o := off
			o.Connected = (*doveadmtest.Conn).Hang
			return o
		}(), config.BackendTLS{CAFile: caFile}, `needs ssl = yes, or the tls block here mode = "starttls"`, ErrNoProcess},
		"closes without TLS": {implicit, func() doveadmtest.Options {
			o := off
			o.Connected = (*doveadmtest.Conn).Close
			return o
		}(), config.BackendTLS{CAFile: caFile}, "does its listener have ssl = yes?", nil},
		"another protocol": {implicit, func() doveadmtest.Options {
			o := off
			o.Connected = func(c *doveadmtest.Conn) { c.Raw([]byte("* OK IMAP\r\n")); c.Hang() }
			return o
		}(), config.BackendTLS{CAFile: caFile}, "does not speak TLS", nil},
		"closes at STARTTLS": {starttls, off, config.BackendTLS{CAFile: caFile}, "does it have a certificate?", nil},
		"too old":            {starttls, doveadmtest.Options{Minor: 1, Password: "secret"}, config.BackendTLS{CAFile: caFile}, `mode = "implicit"`, doveadm.ErrNoSTARTTLS},
		"wants no login":     {starttls, doveadmtest.Options{Minor: 3}, config.BackendTLS{CAFile: caFile}, `mode = "implicit"`, doveadm.ErrNoSTARTTLS},
		"TLS not expected":   {[]string{config.TLSOff}, serve(good), config.BackendTLS{}, `needs tls { mode = "implicit" }`, nil},
	} {
		for _, mode := range tc.modes {
			t.Run(name+", "+mode, func(t *testing.T) {
				tc.server.STARTTLS = tc.server.TLS != nil && mode == config.TLSStartTLS
				srv := doveadmtest.NewServer(t, tc.server)
				b := defaults()
				b.Address, b.TLS = srv.Addr(), tc.client
				b.TLS.Mode = mode
				b.Timeouts.Handshake = 10 * time.Second
				if tc.want == ErrNoProcess {
					b.Timeouts.Handshake = 200 * time.Millisecond
				}
				c, err := Dial(t.Context(), b)
				if err == nil {
					defer c.Close()
				}
				switch {
				case tc.text == "" && err != nil:
					t.Error(err)
				case tc.text != "" && (err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), b.Address)):
					t.Errorf("got %v, want %q and the address in it", err, tc.text)
				case tc.want != nil && !errors.Is(err, tc.want):
					t.Errorf("got %v, want %v", err, tc.want)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the password shows: %v", err)
				}
			})
		}
	}
}

// Connections after the first take up its TLS session.
func TestResumption(t *testing.T) {
	overAll(t, func(t *testing.T, over transport) {
		w := over.start(t, doveadmtest.Options{}, nil)
		for range 3 {
			c := w.acquire(t, Fresh)
			run(t, c)
			c.Release(Answered)
		}
		want := uint64(0)
		if over.mode != config.TLSOff {
			want = 2
		}
		if s := w.Stat(); s.Dials != 3 || s.Resumed != want {
			t.Errorf("%d dials, %d resumed, want %d", s.Dials, s.Resumed, want)
		}
	})
}

// Cut and the release of what failed do not wait for a backend that reads
// nothing: TLS would, to say good-bye.
func TestCutDoesNotWait(t *testing.T) {
	overAll(t, func(t *testing.T, over transport) {
		busy := doveadmtest.Options{Handler: func(c *doveadmtest.Conn, _ *doveadm.Command) { <-c.Context().Done() }}
		for _, failed := range []bool{true, false} {
			w := over.start(t, busy, nil)
			c := w.acquire(t, Shared)
			if err := c.Client().Send(&quota); err != nil {
				t.Fatal(err)
			}
			nc := c.Client().NetConn()
			nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			for err := error(nil); err == nil; {
				_, err = nc.Write(make([]byte, 1<<20))
			}
			start := time.Now()
			if !failed {
				c.Cut()
			}
			c.Release(Failed)
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("took %s", took)
			}
			if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("still open: %v", err)
			}
		}
	})
}

// opensslServer is the server of openssl, which says what the test writes, and
// does things that package tls never does by itself.
func opensslServer(t *testing.T, pair *certtest.Pair, args ...string) (address string, say func(text string)) {
	t.Helper()
	// There is no other way to a free port: s_server does not tell its own.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	certFile, keyFile := pair.Write(t, t.TempDir(), "server")
	cmd := exec.CommandContext(t.Context(), "openssl", append([]string{"s_server", "-accept", address, "-cert", certFile, "-key", keyFile}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	return address, func(text string) {
		if _, err := io.WriteString(in, text); err != nil {
			t.Error(err)
		}
	}
}

// What TLS 1.3 sends for itself on an idle connection is not taken for a stray
// reply, and is not left to be.
func TestKeyUpdateOfIdle(t *testing.T) {
	ca := certtest.NewCA(t, "test")
	for _, letter := range []string{"k", "K"} { // K asks for one in return
		t.Run(letter, func(t *testing.T) {
			address, say := opensslServer(t, ca.Issue(t, "127.0.0.1"), "-tls1_3")
			b := defaults()
			b.Address = address
			b.TLS = config.BackendTLS{Mode: config.TLSImplicit}
			b.TLS.CAFile, _ = ca.Write(t, t.TempDir(), "ca")
			say("VERSION\tdoveadm-client\t1\t2\n-\n+\n")
			var client *doveadm.ClientConn
			var err error
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				if client, err = Dial(t.Context(), b); err == nil || time.Now().After(end) {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			l := newLink(client, 0, 0)
			if why := l.unusable(time.Now()); why != "" {
				t.Fatalf("fresh, and %s", why)
			}
			for range 3 {
				say(letter + "\n")
				awaitReadable(t, client.NetConn())
				if why := l.unusable(time.Now()); why != "" {
					t.Fatalf("after a key update: %s", why)
				}
			}
			say("\x00\x00\x00\x00\x03\n+\n")
			reply, err := client.Do(t.Context(), &quota)
			if err == nil {
				err = reply.Close()
			}
			if err != nil {
				t.Error(err)
			}
			say("x\n")
			awaitReadable(t, client.NetConn())
			if why := l.unusable(time.Now()); why != closedStray {
				t.Errorf("after a stray line: %q", why)
			}
		})
	}
}

// Half a record is something, too: the rest would be the reply of the next
// command.
func TestHalfARecord(t *testing.T) {
	ca := certtest.NewCA(t, "test")
	server := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "127.0.0.1").TLS()}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	half := make(chan func(int))
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		h := &halving{Conn: nc}
		tc := tls.Server(h, server)
		io.WriteString(tc, "VERSION\tdoveadm-client\t1\t2\n+\n")
		half <- func(n int) {
			h.keep = n
			io.WriteString(tc, "stray")
		}
		io.Copy(io.Discard, nc)
		nc.Close()
	}()
	b := defaults()
	b.Address = l.Addr().String()
	b.TLS = config.BackendTLS{Mode: config.TLSImplicit}
	b.TLS.CAFile, _ = ca.Write(t, t.TempDir(), "ca")
	client, err := Dial(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	send := <-half
	link := newLink(client, 0, 0)
	if why := link.unusable(time.Now()); why != "" {
		t.Fatalf("fresh, and %s", why)
	}
	send(7)
	awaitReadable(t, client.NetConn())
	if why := link.unusable(time.Now()); why != closedStray {
		t.Errorf("with half a record: %q", why)
	}
}

// halving lets only so many bytes of each write through, if keep is not 0.
type halving struct {
	net.Conn
	keep int
}

func (h *halving) Write(p []byte) (int, error) {
	if h.keep == 0 {
		return h.Conn.Write(p)
	}
	_, err := h.Conn.Write(p[:h.keep])
	return len(p), err
}
