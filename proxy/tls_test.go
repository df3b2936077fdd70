package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// authority is what the two sides of a test agree on.
type authority struct {
	*certtest.CA
	dir string
}

func newAuthority(t testing.TB) *authority {
	a := &authority{CA: certtest.NewCA(t, "test"), dir: t.TempDir()}
	a.Write(t, a.dir, "ca")
	a.Issue(t, "127.0.0.1").Write(t, a.dir, "proxy")
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// listener is a tls block.
func (a *authority) listener(mode string) config.ListenerTLS {
	if mode == "" {
		return config.ListenerTLS{}
	}
	return config.ListenerTLS{Mode: mode, CertFile: a.path("proxy.crt"), KeyFile: a.path("proxy.key")}
}

// on makes a change of the configuration that gives its first listener TLS.
func (a *authority) on(mode string) func(c *config.Config) {
	return func(c *config.Config) { c.Listeners[0].TLS = a.listener(mode) }
}

// backend is a scripted backend with TLS, and the change that lets the proxy
// use it so.
func (a *authority) backend(t testing.TB, mode string, h handler) (*doveadmtest.Server, func(c *config.Config)) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{
		Minor: 3, Password: backendPassword, Handler: h,
		TLS:      &tls.Config{Certificates: []tls.Certificate{a.Issue(t, "127.0.0.1").TLS()}},
		STARTTLS: mode == config.TLSStartTLS,
	})
	return srv, func(c *config.Config) { first(c).TLS = config.BackendTLS{Mode: mode, CAFile: a.path("ca.crt")} }
}

func (a *authority) client() *tls.Config {
	return &tls.Config{ServerName: "127.0.0.1", RootCAs: a.Pool()}
}

// secure goes on in TLS.
func (c *client) secure(config *tls.Config) error {
	tc := tls.Client(c.tcp, config)
	c.nc, c.in = tc, bufio.NewReader(tc)
	return tc.Handshake()
}

// startTLS goes on in TLS after STARTTLS.
func (c *client) startTLS(minor int, config *tls.Config) error {
	greeting := "-\n"
	if minor > 0 {
		greeting = fmt.Sprintf("VERSION\tdoveadm-client\t1\t%d\n-\n", doveadm.MaxMinor)
	}
	if err := c.send(fmt.Sprintf("VERSION\tdoveadm-server\t1\t%d\n", minor)); err != nil {
		return err
	}
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(c.in, got); err != nil || string(got) != greeting {
		return fmt.Errorf("greeted with %q, %w", got, err)
	}
	if err := c.send("STARTTLS\n"); err != nil {
		return err
	}
	return c.secure(config)
}

// loginAfterSTARTTLS is what is left of the login then.
func (c *client) loginAfterSTARTTLS(k clientKind, password string) (string, error) {
	c.clientKind = k
	if err := c.send(plain(clientName, password)); err != nil {
		return "", err
	}
	return c.in.ReadString('\n')
}

// TestTLS runs a command over TLS on both sides, in every combination.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	for _, mode := range []string{config.TLSImplicit, config.TLSStartTLS, config.TLSStartTLSRequired} {
		for _, backendMode := range []string{config.TLSImplicit, config.TLSStartTLS} {
			srv, toBackend := a.backend(t, backendMode, answer)
			s := start(t, configure(t, both(a.on(mode), toBackend), srv.Addr()))
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				for _, k := range []clientKind{client10, client13} {
					c := s.connect(t)
					config12 := a.client()
					config12.MaxVersion = version
					if mode == config.TLSImplicit {
						must(t, c.secure(config12), c.login(k))
					} else {
						must(t, c.startTLS(k.minor, config12))
						got, err := c.loginAfterSTARTTLS(k, clientPassword)
						must(t, err)
						if got != "+\n" {
							t.Fatalf("%s: login answered with %q", mode, got)
						}
						if k.option {
							must(t, c.send("\t\tOPTION\tlog-passthrough\n"))
						}
					}
					c.works(t)
					c.refused(t, "\tnobody@nowhere\tquota get\n", "-NOUSER", "no route")
					s.log.wait(t, "peer="+c.nc.LocalAddr().String()+" ", "tls="+strings.TrimPrefix(tls.VersionName(version), "TLS ")+" ", "outcome=answered")
					must(t, c.nc.CloseWrite())
					if got := c.ended(t); got != "" {
						t.Errorf("%s: %q at the end", mode, got)
					}
				}
			}
		}
	}
}

// TestTLSHandshakeFails: the log says what the client did, and what to do. The
// client sees the end of the connection, or an alert that names the cause.
func TestTLSHandshakeFails(t *testing.T) {
	a, other := newAuthority(t), certtest.NewCA(t, "other")
	other.Write(t, a.dir, "other")
	srv := newBackend(t, 3, answer)
	s := start(t, configure(t, func(c *config.Config) {
		c.Listeners[0].TLS = a.listener(config.TLSImplicit)
		c.Listeners = append(c.Listeners,
			config.Listener{Name: "demanding", Network: "tcp", Address: "127.0.0.2:0", TLS: a.listener(config.TLSImplicit)},
			config.Listener{Name: "starttls", Network: "tcp", Address: "127.0.0.3:0", TLS: a.listener(config.TLSStartTLS)},
			config.Listener{Name: "clear", Network: "tcp", Address: "127.0.0.4:0"})
		c.Listeners[1].TLS.ClientCAFile = a.path("ca.crt")
	}, srv.Addr()))

	clientWith := func(pair *certtest.Pair) *tls.Config {
		c := &tls.Config{InsecureSkipVerify: true}
		if pair != nil {
			certificate := pair.TLS()
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
		}
		return c
	}
	inTLS := func(config *tls.Config) func(c *client) error {
		return func(c *client) error {
			if err := c.secure(config); err != nil {
				return err
			}
			return c.login(client13)
		}
	}
	says := func(text string) func(c *client) error {
		return func(c *client) error {
			if err := c.send(text); err != nil {
				return err
			}
			_, err := c.in.ReadByte()
			return err
		}
	}
	old := clientWith(nil)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	for name, tc := range map[string]struct {
		listener string
		do       func(c *client) error
		alert    string // what the client is told; empty: the connection ends
		logged   []string
	}{
		"clear text":                       {"main", says("VERSION\tdoveadm-server\t1\t2\n"), "", []string{"[WARN]", "does not begin with TLS", "doveadm_ssl=ssl", "doveadm_port"}},
		"HTTP":                             {"main", says("GET / HTTP/1.1\r\n\r\n"), "", []string{"[WARN]", "is not TLS"}},
		"the wrong authority":              {"main", inTLS(&tls.Config{ServerName: "127.0.0.1", RootCAs: other.Pool()}), "unknown authority", []string{"[WARN]", "the client refuses our certificate", "ssl_client_ca_file"}},
		"the wrong name":                   {"main", inTLS(&tls.Config{ServerName: "localhost", RootCAs: a.Pool()}), "wanted to match localhost", []string{"[WARN]", "the client refuses our certificate"}},
		"TLS 1.1":                          {"main", inTLS(old), "protocol version", []string{"[WARN]", "unsupported versions"}},
		"no certificate":                   {"demanding", inTLS(clientWith(nil)), "certificate required", []string{"[WARN]", "client_ca_file"}},
		"foreign certificate":              {"demanding", inTLS(clientWith(other.Issue(t, "x"))), "unknown certificate authority", []string{"[WARN]", "client_ca_file", "unknown authority"}},
		"expired certificate":              {"demanding", inTLS(clientWith(a.IssueExpired(t, "x"))), "expired certificate", []string{"[WARN]", "has expired", "renewed"}},
		"STARTTLS, then none":              {"starttls", says("VERSION\tdoveadm-server\t1\t0\nSTARTTLS\nxxxxxxxxxxxxxxxx"), "", []string{"[WARN]", "is not TLS"}},
		"TLS without STARTTLS":             {"starttls", inTLS(clientWith(nil)), "", []string{"[WARN]", "expects STARTTLS first"}},
		"TLS where there is no":            {"clear", inTLS(clientWith(nil)), "", []string{"[WARN]", "listener without TLS"}},
		"STARTTLS where it is not offered": {"clear", func(c *client) error { return c.startTLS(2, clientWith(nil)) }, "", []string{"[WARN]", "STARTTLS where it is not offered"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.connectTo(t, tc.listener, 0)
			err := tc.do(c)
			for ; err == nil; _, err = c.in.ReadByte() {
			}
			var record tls.RecordHeaderError
			if tc.alert != "" && !strings.Contains(err.Error(), tc.alert) || tc.alert == "" && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.As(err, &record) {
				t.Errorf("the client got %v, want %q", err, tc.alert)
			}
			s.log.wait(t, append([]string{"peer=" + c.tcp.LocalAddr().String() + " "}, tc.logged...)...)
		})
	}

	// A certificate that is right.
	c := s.connectTo(t, "demanding", 0)
	must(t, c.secure(clientWith(a.Issue(t, "panel.example"))), c.login(client13))
	c.works(t)
	s.log.wait(t, "peer="+c.tcp.LocalAddr().String()+" ", "client certificate", "CN=panel.example")
}

// TestSTARTTLSInjection: what is sent in clear text behind STARTTLS is never
// read as if it had come encrypted.
func TestSTARTTLSInjection(t *testing.T) {
	a := newAuthority(t)
	s, srv := startWith(t, 3, answer, a.on(config.TLSStartTLSRequired))
	for _, injected := range []string{
		plain(clientName, clientPassword) + "\talice\tmailbox delete\tINBOX\n",
		"\talice\tmailbox delete\tINBOX\n", "STARTTLS\n",
	} {
		c := s.connect(t)
		must(t, c.send("VERSION\tdoveadm-server\t1\t3\nSTARTTLS\n"+injected))
		got, _ := io.ReadAll(c.in)
		if strings.Contains(string(got), "+\n") {
			t.Errorf("%q is answered with %q", injected, got)
		}
	}
	if cmds := srv.Commands(); len(cmds) > 0 {
		t.Errorf("a backend got %+v", cmds)
	}
}

// TestTLSTimeout: the TLS handshake is within handshake_timeout, too.
func TestTLSTimeout(t *testing.T) {
	a := newAuthority(t)
	s, _ := startWith(t, 3, answer, both(a.on(config.TLSImplicit), func(c *config.Config) {
		c.Limits.HandshakeTimeout = 100 * time.Millisecond
		c.Listeners = append(c.Listeners, config.Listener{Name: "starttls", Network: "tcp", Address: "127.0.0.2:0", TLS: a.listener(config.TLSStartTLS)})
	}))
	c := s.connect(t)
	c.ended(t)
	s.log.wait(t, "TLS handshake not finished within handshake_timeout")
	c = s.connectTo(t, "starttls", 0)
	must(t, c.send("VERSION\tdoveadm-server\t1\t0\nSTARTTLS\n"))
	c.ended(t)
	s.log.wait(t, "session=2 ", "TLS handshake not finished within handshake_timeout")
	c = s.connect(t)
	must(t, c.secure(a.client()))
	c.ended(t)
	s.log.wait(t, "session=3 ", "not logged in within handshake_timeout")
}

// elsewhere is a listener whose clients are on another host, as far as their
// address tells.
type elsewhere struct {
	net.Listener
	ip string
}

type remoteConn struct {
	*net.TCPConn
	addr net.Addr
}

func (c remoteConn) RemoteAddr() net.Addr { return c.addr }

func (l elsewhere) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	port := nc.RemoteAddr().(*net.TCPAddr).Port
	return remoteConn{nc.(*net.TCPConn), &net.TCPAddr{IP: net.ParseIP(l.ip), Port: port}}, nil
}

// TestClearText: a login in clear text is for clients on this host, or where
// the listener allows it by name.
func TestClearText(t *testing.T) {
	a := newAuthority(t)
	srv := newBackend(t, 3, answer)
	for _, tc := range []struct {
		mode     string
		insecure bool
		ip       string
		inClear  bool // is allowed
	}{
		{"", false, "127.0.0.1", true},
		{"", false, "127.255.0.9", true},
		{"", false, "::1", true},
		{"", false, "::ffff:127.0.0.1", true},
		{"", false, "192.0.2.1", false},
		{"", false, "10.0.0.1", false},
		{"", false, "fe80::1", false},
		{"", false, "2001:db8::1", false},
		{"", true, "192.0.2.1", true},
		{config.TLSStartTLS, false, "127.0.0.1", true},
		{config.TLSStartTLS, false, "192.0.2.1", false},
		{config.TLSStartTLS, true, "192.0.2.1", true},
		{config.TLSStartTLSRequired, false, "127.0.0.1", false},
		{config.TLSStartTLSRequired, false, "192.0.2.1", false},
	} {
		t.Run(fmt.Sprintf("mode %q, insecure %v, from %s", tc.mode, tc.insecure, tc.ip), func(t *testing.T) {
			t.Parallel()
			cfg := configure(t, func(c *config.Config) {
				c.Listeners[0].TLS = a.listener(tc.mode)
				c.Listeners[0].InsecureClearText = tc.insecure
			}, srv.Addr())
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			s := startOn(t, cfg, map[string]net.Listener{"main": elsewhere{l, tc.ip}})
			c := s.connect(t)
			err = c.login(client13)
			if tc.inClear {
				must(t, err)
				c.works(t)
			} else {
				// As after a wrong password, which this was not.
				if err == nil || !strings.Contains(err.Error(), `\n-\n-\n", want`) {
					t.Errorf("login: %v", err)
				}
				c.ended(t)
				s.log.wait(t, "[WARN]", "login refused", "client="+clientName, tc.ip, "main")
			}
			if tc.mode == "" {
				return
			}
			c = s.connect(t)
			must(t, c.startTLS(3, a.client()))
			if got, err := c.loginAfterSTARTTLS(client13mute, clientPassword); got != "+\n" || err != nil {
				t.Errorf("over TLS: %q, %v", got, err)
			}
			c.works(t)
			c = s.connect(t)
			must(t, c.startTLS(3, a.client()))
			if got, err := c.loginAfterSTARTTLS(client13mute, "wrong"); got != "-\n" || err != nil {
				t.Errorf("over TLS, wrong password: %q, %v", got, err)
			}
		})
	}
}

// startOn is start with sockets that are open already.
func startOn(t *testing.T, cfg *config.Config, sockets map[string]net.Listener) *site {
	t.Helper()
	s := &site{log: newLogLines(), cfg: cfg}
	p, err := proxy.New(cfg, proxy.Options{Log: s.log.logger(), Sockets: sockets})
	must(t, err)
	s.Proxy = p
	t.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of the proxy:\n%s", s.log)
		}
	})
	p.Serve()
	return s
}

// TestReloadOfTLS: what a reload changes of TLS holds for new sessions, and the
// old ones go on.
func TestReloadOfTLS(t *testing.T) {
	a := newAuthority(t)
	s, _ := startWith(t, 3, answer, a.on(config.TLSImplicit))
	address := s.Addr("main")
	c := s.connect(t)
	cache := tls.NewLRUClientSessionCache(1)
	resuming := a.client()
	resuming.ClientSessionCache = cache
	must(t, c.secure(resuming), c.login(client13))
	c.works(t)

	reload := func(set config.ListenerTLS) {
		t.Helper()
		next := *s.cfg
		next.Listeners = []config.Listener{next.Listeners[0]}
		next.Listeners[0].TLS = set
		must(t, s.Reload(&next))
	}
	reload(a.listener(config.TLSImplicit))
	d := s.connect(t)
	must(t, d.secure(resuming), d.login(client13))
	if !d.nc.(*tls.Conn).ConnectionState().DidResume {
		t.Error("a reload that changes nothing keeps clients from resuming their sessions")
	}
	reload(a.listener(config.TLSStartTLS))
	e := s.connect(t)
	must(t, e.login(client13))
	e.works(t)
	reload(config.ListenerTLS{})
	f := s.connect(t)
	must(t, f.login(client13))
	f.works(t)
	g := s.connect(t)
	if err := g.startTLS(3, a.client()); err == nil {
		t.Error("STARTTLS without a tls block")
	}
	c.works(t)
	d.works(t)
	if s.Addr("main") != address {
		t.Error("another socket")
	}

	// New files of the same names are for those who come later, too.
	reload(a.listener(config.TLSImplicit))
	second := a.Issue(t, "127.0.0.1")
	second.Write(t, a.dir, "proxy")
	eventually(t, "the new certificate is served", func() bool {
		h := s.connect(t)
		must(t, h.secure(a.client()), h.login(client13))
		return h.nc.(*tls.Conn).ConnectionState().PeerCertificates[0].Equal(second.Leaf)
	})
	s.log.wait(t, "[INFO]", "TLS files have changed", "listener=main", a.path("proxy.crt"))
	c.works(t)
}

// TestPipelineOverTLS: commands that are sent ahead, each in a record of its
// own, run side by side as they do without TLS.
func TestPipelineOverTLS(t *testing.T) {
	const commands = 16
	a := newAuthority(t)
	together := make(chan struct{})
	arrived := make(chan struct{}, commands)
	srv, toBackend := a.backend(t, config.TLSImplicit, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		arrived <- struct{}{}
		select {
		case <-together: // once all of them run
		case <-c.Context().Done():
		}
		answer(c, cmd)
	})
	s := start(t, configure(t, both(a.on(config.TLSImplicit), toBackend, func(c *config.Config) {
		c.Clients[0].PipelineDepth = commands
		first(c).Pool.MaxOpen = commands
	}), srv.Addr()))
	c := s.connect(t)
	corked := &corkedConn{TCPConn: c.tcp}
	tc := tls.Client(corked, a.client())
	c.nc, c.in = tc, bufio.NewReader(tc)
	must(t, c.login(client13))
	corked.in = new(bytes.Buffer)
	for i := range commands {
		must(t, c.send(fmt.Sprintf("\tu%d@s1\tquota get\n", i)))
	}
	_, err := c.tcp.Write(corked.in.Bytes())
	must(t, err)
	corked.in = nil
	for n := range commands {
		select {
		case <-arrived:
		case <-time.After(patience):
			t.Fatalf("%d commands run at once, want %d", n, commands)
		}
	}
	close(together)
	for i := range commands {
		r, err := c.reply()
		must(t, err)
		if user := r.fields()[0]; user != fmt.Sprintf("u%d@s1", i) || r.status != "+" {
			t.Errorf("reply %d is for %s, status %s", i, user, r.status)
		}
	}
	c.works(t)
}

// corkedConn gathers what is written, once in is set.
type corkedConn struct {
	*net.TCPConn
	in *bytes.Buffer
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if c.in != nil {
		return c.in.Write(p)
	}
	return c.TCPConn.Write(p)
}

// TestSlowClientOverTLS: nothing is written around TLS, whether the client
// takes it at once or not, and the end of the connection arrives.
func TestSlowClientOverTLS(t *testing.T) {
	a := newAuthority(t)
	sent := make(chan struct{}, 1)
	srv, toBackend := a.backend(t, config.TLSStartTLS, large(sent))
	s := start(t, configure(t, both(a.on(config.TLSImplicit), toBackend), srv.Addr()))
	want := strings.Repeat("1\t"+largeRow+"\t", largeRows)
	for _, slow := range []bool{true, false} {
		c := s.connectTo(t, "main", 4<<10)
		must(t, c.secure(a.client()), c.login(client13), c.send(fetchLarge))
		if slow {
			<-sent // all of it, before the client has read anything
		}
		r, err := c.reply()
		must(t, err)
		if r.output != want || r.status != "+" {
			t.Errorf("got %d bytes, want %d; status %s", len(r.output), len(want), r.status)
		}
		if !slow {
			<-sent
		}
		c.works(t)
		must(t, c.nc.CloseWrite())
		if got := c.ended(t); got != "" {
			t.Errorf("%q at the end", got)
		}
	}
}

// TestCutOfTLS: at the end of the drain timeout nothing waits for a client or
// backend that does not read.
func TestCutOfTLS(t *testing.T) {
	a := newAuthority(t)
	srv, toBackend := a.backend(t, config.TLSImplicit, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "fetch" {
			for range largeRows {
				c.Fields("1", largeRow)
			}
			c.Status("+")
			return
		}
		<-c.Context().Done() // neither reads nor answers
	})
	cfg := configure(t, both(a.on(config.TLSImplicit), toBackend), srv.Addr())
	log := newLogLines()
	p, err := proxy.New(cfg, proxy.Options{Log: log.logger()})
	must(t, err)
	p.Serve()
	s := &site{Proxy: p, log: log, cfg: cfg}

	mute := s.connectTo(t, "main", 4<<10)
	must(t, mute.secure(a.client()), mute.login(client13), mute.send(fetchLarge))
	big := s.connect(t)
	must(t, big.secure(a.client()), big.login(client13), big.send("\tbob@s1\tsave\n"+strings.Repeat("x", 16<<20)+"\r\n.\r\n"))
	eventually(t, "both commands run", func() bool { return len(srv.Commands()) == 2 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	begin := time.Now()
	if err := p.Shutdown(ctx); !errors.Is(err, proxy.ErrDrainTimeout) {
		t.Errorf("shutdown: %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the shutdown took %s", took)
	}
}

// fillTime is enough for the proxy to fill the buffers of a connection. If it
// is not, the test finds less and still passes.
const fillTime = 300 * time.Millisecond

// TestEarlyAnswerOverTLS: a backend that refuses an input without reading it
// does not delay its answer.
func TestEarlyAnswerOverTLS(t *testing.T) {
	a := newAuthority(t)
	srv, toBackend := a.backend(t, config.TLSImplicit, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name != "save" {
			answer(c, cmd)
			return
		}
		// When the buffers are full, nothing can be said in TLS either.
		time.Sleep(fillTime)
		c.Status("-NOUSER")
		<-c.Context().Done()
	})
	s := start(t, configure(t, both(a.on(config.TLSImplicit), toBackend), srv.Addr()))
	c := s.connect(t)
	must(t, c.secure(a.client()), c.login(client13))
	begin := time.Now()
	if r := c.run(t, "\talice\tsave\n"+strings.Repeat("x", 40<<20)+"\r\n.\r\n"); r.status != "-NOUSER" {
		t.Errorf("status %s", r.status)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("took %s", took)
	}
	if got := c.works(t); got.fields()[1] != "2" {
		t.Errorf("the next command ran on connection %s", got.fields()[1])
	}
}

// TestTunnelOverTLS: both directions, each with an end of its own.
func TestTunnelOverTLS(t *testing.T) {
	a := newAuthority(t)
	text := "raw\x00\x03\n.\n\talice\tstop\n" + strings.Repeat("y", 3_000_000)
	for _, mode := range []string{config.TLSImplicit, config.TLSStartTLS} {
		srv, toBackend := a.backend(t, mode, echo)
		s := start(t, configure(t, both(a.on(config.TLSImplicit), toBackend), srv.Addr()))
		c := s.connect(t)
		must(t, c.secure(a.client()), c.login(client13))
		go func() {
			io.WriteString(c.nc, "\talice\tdsync-server\t-ualice\n"+text)
			c.nc.CloseWrite()
		}()
		var got strings.Builder
		for {
			c.nc.SetDeadline(time.Now().Add(patience))
			p, err := c.next()
			if err == io.EOF {
				break
			}
			must(t, err)
			if p.channel == 0 {
				got.WriteString(p.data)
			}
		}
		if want := "\n+\nhello\n" + text + "bye\n"; got.String() != want {
			t.Errorf("%s: got %d bytes, want %d: %.100q", mode, got.Len(), len(want), got.String())
		}
	}
}

// TestBackendTLSRefused: what is wrong with a backend's certificate is told to
// the client, in the log, and to the breaker; nothing is sent.
func TestBackendTLSRefused(t *testing.T) {
	a, other := newAuthority(t), certtest.NewCA(t, "other")
	other.Write(t, a.dir, "other")
	srv, toBackend := a.backend(t, config.TLSImplicit, answer)
	s := start(t, configure(t, both(toBackend, oneFailureOpens, func(c *config.Config) { first(c).TLS.CAFile = a.path("other.crt") }), srv.Addr()))
	c := s.login(t, client13)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1", x509.UnknownAuthorityError{}.Error(), "set ca_file")
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "circuit breaker is open")
	s.log.wait(t, "[WARN]", "cannot connect to backend", "set ca_file")
	if n := len(srv.Commands()); n > 0 {
		t.Errorf("%d commands arrived", n)
	}
}

// TestCheckOverTLS: the self-check leaves no complaint in the log.
func TestCheckOverTLS(t *testing.T) {
	a := newAuthority(t)
	for _, mode := range []string{"", config.TLSImplicit, config.TLSStartTLSRequired} {
		s, _ := startWith(t, 3, answer, both(a.on(mode), func(c *config.Config) { c.Listeners[0].TLS.ClientCAFile = "" }))
		must(t, s.Check(t.Context()))
		s.log.wait(t, "[DEBUG]", "handshake failed")
		if lines := s.log.lines("[WARN]"); len(lines) > 0 {
			t.Errorf("%s: logged %q", mode, lines)
		}
	}
}
