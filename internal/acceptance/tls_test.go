package acceptance

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// tlsSite is a mixed cluster whose backends have a listener with TLS from the
// first byte on beside the one that takes STARTTLS, and a proxy with two such
// listeners.
type tlsSite struct {
	*cluster
	ca  *certtest.CA
	dir string                     // of all certificates; the programs of both versions see it
	tls map[dovecot.Version]string // address of the backend's second listener

	extra   string                     // of the configuration of the proxy
	through map[dovecot.Version]string // what stands before a backend, if not nil

	// Listeners of the proxy. The certificate of the last is for "localhost".
	implicit, startTLS, misnamed string
}

func startTLSSite(t *testing.T) *tlsSite {
	t.Helper()
	s := &tlsSite{ca: certtest.NewCA(t, "tests"), dir: dovecottest.TempDir(t, dovecot.V24), tls: make(map[dovecot.Version]string)}
	s.ca.Write(t, s.dir, "ca")
	certtest.NewCA(t, "others").Write(t, s.dir, "other")
	s.ca.Issue(t, "127.0.0.1").Write(t, s.dir, "proxy")
	s.ca.Issue(t, "localhost").Write(t, s.dir, "localhost")
	s.cluster = startMixed(t, func(version dovecot.Version) string {
		s.ca.Issue(t, "127.0.0.1").Write(t, s.dir, "backend-"+string(version))
		cert := s.inside(t, version, "backend-"+string(version)+".crt")
		key := s.inside(t, version, "backend-"+string(version)+".key")
		s.tls[version] = reserve(t)
		_, port, _ := net.SplitHostPort(s.tls[version])
		if version == dovecot.V23 {
			return fmt.Sprintf("ssl = yes\nssl_cert = <%s\nssl_key = <%s\nservice doveadm {\n  inet_listener tls {\n    address = 127.0.0.1\n    port = %s\n    ssl = yes\n  }\n}\n", cert, key, port)
		}
		return fmt.Sprintf("ssl = yes\nssl_server_cert_file = %s\nssl_server_key_file = %s\nservice doveadm {\n  inet_listener tls {\n    listen = 127.0.0.1\n    port = %s\n    ssl = yes\n  }\n}\n", cert, key, port)
	})
	s.seedMixed()
	return s
}

// reserve returns an address that nobody else uses.
func reserve(t *testing.T) string {
	t.Helper()
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	return port.Addr
}

// inside is the name of a file in dir for programs of the version.
func (s *tlsSite) inside(t *testing.T, version dovecot.Version, name string) string {
	t.Helper()
	path, err := version.Inside(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// startProxy starts a proxy that reaches the backends in the given modes.
func (s *tlsSite) startProxy(t *testing.T, modes map[dovecot.Version]string) *proxyProcess {
	t.Helper()
	return startProxy(t, racy, func(addr string) string {
		s.implicit, s.startTLS, s.misnamed = addr, reserve(t), reserve(t)
		var b strings.Builder
		for _, l := range []struct{ name, addr, mode, cert string }{
			{"implicit", s.implicit, "implicit", "proxy"},
			{"starttls", s.startTLS, "starttls-required", "proxy"},
			{"misnamed", s.misnamed, "implicit", "localhost"},
		} {
			fmt.Fprintf(&b, "listener %q {\n  address = %q\n  tls {\n    mode = %q\n    cert_file = %q\n    key_file = %q\n  }\n}\n",
				l.name, l.addr, l.mode, filepath.Join(s.dir, l.cert+".crt"), filepath.Join(s.dir, l.cert+".key"))
		}
		fmt.Fprintf(&b, "client \"doveadm\" {\n  password = \"{PLAIN}%s\"\n}\n", clientPassword)
		for i, server := range s.servers {
			address := server.Addr
			if modes[server.Version] == "implicit" {
				address = s.tls[server.Version]
			}
			if s.through != nil {
				address = s.through[server.Version]
			}
			fmt.Fprintf(&b, "shard \"s%d\" {\n  backend %q {\n    address = %q\n    password = %q\n    tls {\n      mode = %q\n      ca_file = %q\n    }\n  }\n}\n",
				i+1, server.Name, address, server.Password, modes[server.Version], filepath.Join(s.dir, "backend-ca.crt"))
			fmt.Fprintf(&b, "route \"match\" {\n  users = [\"u%d-*\"]\n  shard = \"s%d\"\n}\n", i+1, i+1)
		}
		if _, err := os.Stat(filepath.Join(s.dir, "backend-ca.crt")); err != nil {
			s.copy(t, "ca.crt", "backend-ca.crt")
		}
		return b.String() + s.extra
	})
}

// copy replaces a certificate by another one.
func (s *tlsSite) copy(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, from))
	if err != nil {
		t.Fatal(err)
	}
	// By renaming, so that nobody reads half of it.
	tmp := filepath.Join(s.dir, to+".new")
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, to)); err != nil {
		t.Fatal(err)
	}
}

// options make a command of the version speak TLS: doveadm_ssl has an effect
// only if doveadm_port is set.
func (s *tlsSite) options(t *testing.T, version dovecot.Version, mode, ca string) []string {
	t.Helper()
	return []string{
		"-o", "doveadm_ssl=" + mode, "-o", "doveadm_port=24245",
		"-o", "ssl_client_ca_file=" + s.inside(t, version, ca),
	}
}

// subjects is the pairCase that the tests of TLS run.
var subjects = pairCases[3]

// run runs the command of a version and compares its rows.
func (s *tlsSite) run(t *testing.T, c dovecot.Client, users []string, args ...string) {
	t.Helper()
	r := dovecottest.Run(t, c, subjects.name, append(args, subjects.args...)...)
	if diff := cmp.Diff(subjects.want(users, len(users) > 1), subjects.got(r.Stdout)); diff != "" || r.ExitCode != 0 || r.Stderr != "" {
		t.Errorf("command of %s, %q (-want +got):\n%sexit code %d\n%s", c.Version, args, diff, r.ExitCode, r.Stderr)
	}
}

// TestTLS: the command of each version gets its rows over TLS from the first
// byte on and by STARTTLS, as its own settings and the passdb ask for it, from
// backends of each version that the proxy reaches in the same two ways.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := startTLSSite(t)
	ways := []map[dovecot.Version]string{
		{dovecot.V23: "implicit", dovecot.V24: "starttls"},
		{dovecot.V23: "starttls", dovecot.V24: "implicit"},
	}
	for _, modes := range ways {
		p := s.startProxy(t, modes)
		for _, version := range dovecot.Versions() {
			all := s.servers[0].Users
			s.run(t, s.client(version, s.implicit, clientPassword, s.options(t, version, "ssl", "ca.crt")...), all, "-A")
			s.run(t, s.client(version, s.startTLS, clientPassword, s.options(t, version, "starttls", "ca.crt")...), all, "-A")
		}
		const commands = 2 * 2 * 4
		p.waitLogs(" command: ", commands)
		encrypted := 0
		for line := range strings.Lines(p.Log()) {
			if strings.Contains(line, " command: ") {
				encrypted++
				if !strings.Contains(line, "tls=1.3") || !strings.Contains(line, "outcome=answered") {
					t.Errorf("logged %s", line)
				}
			}
		}
		if encrypted != commands {
			t.Errorf("%d commands in the log, want %d", encrypted, commands)
		}
	}
	t.Run("refused", func(t *testing.T) { s.refusals(t) })
	t.Run("passdb", func(t *testing.T) { s.passdb(t) })
	t.Run("dsync", func(t *testing.T) { s.dsync(t) })
}

// refusals: neither side takes what it cannot verify, and the log of the proxy
// says what to do about it.
func (s *tlsSite) refusals(t *testing.T) {
	p := s.startProxy(t, map[dovecot.Version]string{dovecot.V23: "implicit", dovecot.V24: "starttls"})
	for _, version := range dovecot.Versions() {
		for _, tt := range []struct {
			name, addr, mode, ca string
			stderr, logged       string
		}{
			{"unknown authority", s.implicit, "ssl", "other.crt", "certificate", "as a doveadm does that refuses our certificate"},
			{"unknown authority, STARTTLS", s.startTLS, "starttls", "other.crt", "certificate", "as a doveadm does that refuses our certificate"},
			{"another name", s.misnamed, "ssl", "ca.crt", "", "as a doveadm does that refuses our certificate"},
			{"clear text to TLS", s.implicit, "no", "ca.crt", "disconnected", "the client does not begin with TLS"},
			{"clear text where STARTTLS is required", s.startTLS, "no", "ca.crt", "authentication failed", "login before STARTTLS"},
			{"TLS to STARTTLS", s.startTLS, "ssl", "ca.crt", "", "expects STARTTLS first"},
		} {
			before := strings.Count(p.Log(), tt.logged)
			c := s.client(version, tt.addr, clientPassword, s.options(t, version, tt.mode, tt.ca)...)
			r := dovecottest.Run(t, c, "mailbox list", "-u", "u1-1")
			if r.ExitCode == 0 || r.ExitCode > 128 || r.Stdout != "" || !strings.Contains(r.Stderr, tt.stderr) {
				t.Errorf("command of %s, %s: %+v", version, tt.name, r)
			}
			p.waitLogs(tt.logged, before+1)
		}
	}
	if strings.Contains(p.Log(), " command: ") {
		t.Error("a command ran")
	}
}

// waitLogs waits until the log has the text n times.
func (p *proxyProcess) waitLogs(text string, n int) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); strings.Count(p.Log(), text) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the log does not say %q %d times:\n%s", text, n, p.Log())
		}
	}
}

// passdb: a command without an address goes where the passdb of its own
// configuration sends the user, in the way that it says.
func (s *tlsSite) passdb(t *testing.T) {
	p := s.startProxy(t, map[dovecot.Version]string{dovecot.V23: "implicit", dovecot.V24: "starttls"})
	_, implicit, _ := net.SplitHostPort(s.implicit)
	_, startTLS, _ := net.SplitHostPort(s.startTLS)
	for _, server := range s.servers {
		users := fmt.Sprintf(`u1-1:{PLAIN}unused::::::proxy=y host=127.0.0.1 port=%s ssl=yes
u1-2:{PLAIN}unused::::::proxy=y host=127.0.0.1 port=%s starttls=yes
u2-1:{PLAIN}unused::::::proxy=y host=127.0.0.1 port=%s ssl=any-cert
u2-2:{PLAIN}unused::::::proxy=y host=127.0.0.1 port=%s starttls=any-cert
`, implicit, startTLS, implicit, startTLS)
		if err := os.WriteFile(filepath.Join(server.Dir, "users"), []byte(users), 0o644); err != nil {
			t.Fatal(err)
		}
		// An auth process that has just looked at the file would not look again
		// within the same second.
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		run := func(user, ca string) dovecot.Result {
			t.Helper()
			r, err := server.Doveadm(t.Context(), "-o", "doveadm_port=24245", "-o", "doveadm_password="+clientPassword,
				"-o", "ssl_client_ca_file="+s.inside(t, server.Version, ca),
				subjects.name, "-u", user, subjects.args[0], "mailbox", "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for i, user := range server.Users {
			ca := "ca.crt"
			if i >= 2 {
				ca = "other.crt" // any certificate will do
			}
			before := strings.Count(p.Log(), " command: ")
			r := run(user, ca)
			if diff := cmp.Diff(subjects.want([]string{user}, false), subjects.got(r.Stdout)); diff != "" || r.ExitCode != 0 {
				t.Errorf("command of %s, %s (-want +got):\n%s%+v", server.Version, user, diff, r)
			}
			p.waitLogs(" command: ", before+1)
			if i >= 2 {
				continue
			}
			if r := run(user, "other.crt"); r.ExitCode == 0 {
				t.Errorf("command of %s, %s, trusts another authority: %+v", server.Version, user, r)
			}
		}
	}
}

// dsync: backup to tcps:host:port.
func (s *tlsSite) dsync(t *testing.T) {
	p := s.startProxy(t, map[dovecot.Version]string{dovecot.V23: "implicit", dovecot.V24: "starttls"})
	for i, version := range dovecot.Versions() {
		// A server of the version that has the user and no mail yet.
		near := dovecottest.Start(t, dovecot.Options{Version: version, Name: "near", Users: []string{"u1-1", "u2-1"}, Password: clientPassword})
		for _, user := range near.Users {
			r, err := near.Doveadm(t.Context(), "-o", "ssl_client_ca_file="+s.inside(t, version, "ca.crt"), "backup", "-R", "-u", user, "tcps:"+s.implicit)
			if err != nil || r.ExitCode != 0 {
				t.Fatalf("command of %s: %v, %+v", version, err, r)
			}
			r = dovecottest.Run(t, near.Client(), subjects.name, append([]string{"-u", user}, subjects.args...)...)
			if diff := cmp.Diff(subjects.want([]string{user}, false), subjects.got(r.Stdout)); diff != "" {
				t.Errorf("what backup of %s brought (-want +got):\n%s", version, diff)
			}
		}
		p.waitLogs("command=dsync-server", 2*(i+1))
	}
}
