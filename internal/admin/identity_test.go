package admin_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

// manyWays is an admin block with a user for each role and every way to be
// known, and the files of its tls block in DIR.
const manyWays = `
  address   = "unix:DIR/admin.sock"
  profiling = true
  hosts     = ["proxy1.example.com"]
  endpoint "tls" {
    address = "0.0.0.0:0"
    tls {
      cert_file      = "DIR/server.crt"
      key_file       = "DIR/server.key"
      client_ca_file = "DIR/ca.crt"
    }
  }
  endpoint "page" { address = "127.0.0.1:0" }
  user "viewer" {
    role        = "viewer"
    password    = "{PLAIN}viewer's"
    token       = "{SHA256}0Da9bQGhyuCB05ovjat1HcBC3oFP1g3zH8tVMXCVDyk="
    tls_subject = "CN=viewer"
  }
  user "operator" {
    role          = "operator"
    password_file = "DIR/operator.txt"
    tls_san       = ["dns:operator.example.com"]
  }
  user "admin" {
    role        = "admin"
    password    = "{PLAIN}admin's"
    tls_subject = "CN=admin"
  }`

// ways are a site and the clients that reach it.
type ways struct {
	*site
	ca        *certtest.CA
	dir       string
	tls, page string // host:port
}

func startManyWays(t *testing.T, block string, shards string) *ways {
	t.Helper()
	w := &ways{ca: certtest.NewCA(t, "authority"), dir: t.TempDir()}
	w.ca.Issue(t, "localhost", "127.0.0.1").Write(t, w.dir, "server")
	w.ca.Write(t, w.dir, "ca")
	writeFile(t, w.dir, "operator.txt", "{PLAIN}operator's\n")
	w.site = startWith(t, strings.ReplaceAll(block, "DIR", w.dir), shards)
	port := func(a net.Addr) string { return strconv.Itoa(a.(*net.TCPAddr).Port) }
	w.tls, w.page = "localhost:"+port(w.server.Addrs()[1]), "127.0.0.1:"+port(w.server.Addrs()[2])
	return w
}

// over returns a client that trusts the authority and shows the certificates.
func (w *ways) over(certs ...tls.Certificate) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: w.ca.Pool(), Certificates: certs},
		},
	}
}

// code sends a request and returns the code of the answer and its header. The
// answer may have no end.
func code(t *testing.T, c *http.Client, method, url string, by func(*http.Request)) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if by != nil {
		by(req)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header
}

func basic(name, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

const twoShards = `shard "s1" {
  backend "mail1" { address = "127.0.0.1:1" }
}`

// TestRoles asks for every verb in every role, over every way to be known.
func TestRoles(t *testing.T) {
	w := startManyWays(t, manyWays, twoShards)
	cert := func(names ...string) tls.Certificate { return w.ca.Issue(t, names...).TLS() }
	socketClient := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.server.Addr().String())
		}},
	}
	for _, way := range []struct {
		name   string
		role   admin.Role
		client *http.Client
		url    string
		by     func(*http.Request)
	}{
		{"socket", admin.Admin, socketClient, "http://localhost", nil},
		{"loopback", admin.Viewer, w.over(), "http://" + w.page, nil},
		{"loopback, password", admin.Operator, w.over(), "http://" + w.page, basic("operator", "operator's")},
		{"tls, nobody", admin.Nobody, w.over(), "https://" + w.tls, nil},
		{"tls, certificate of nobody", admin.Nobody, w.over(cert("other", "viewer")), "https://" + w.tls, nil},
		{"tls, password", admin.Viewer, w.over(), "https://" + w.tls, basic("viewer", "viewer's")},
		{"tls, token", admin.Viewer, w.over(), "https://" + w.tls, bearer("viewer-token")},
		{"tls, certificate", admin.Viewer, w.over(cert("viewer")), "https://" + w.tls, nil},
		{"tls, password file", admin.Operator, w.over(), "https://" + w.tls, basic("operator", "operator's")},
		{"tls, name of a certificate", admin.Operator, w.over(cert("x", "operator.example.com")), "https://" + w.tls, nil},
		{"tls, password", admin.Admin, w.over(), "https://" + w.tls, basic("admin", "admin's")},
		{"tls, certificate", admin.Admin, w.over(cert("admin")), "https://" + w.tls, nil},
	} {
		for pattern, needs := range admin.Verbs() {
			method, path := admin.Do(pattern)
			got, header := code(t, way.client, method, way.url+path, way.by)
			refused := got == http.StatusForbidden || got == http.StatusUnauthorized && path != "/login"
			if refused != (way.role < needs) || got == http.StatusMethodNotAllowed || strings.HasPrefix(path, "/debug") && !refused && got != 200 {
				t.Errorf("%s, %s: %s: %d", way.name, way.role, pattern, got)
			}
			if got == http.StatusUnauthorized && !strings.HasPrefix(header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s: %s: asked by %q", way.name, pattern, header.Get("WWW-Authenticate"))
			}
		}
	}
}

// TestAccess: the client of the commands is who its files say, over TLS and in
// clear text on this machine, and takes no certificate of somebody else.
func TestAccess(t *testing.T) {
	w := startManyWays(t, manyWays, twoShards)
	ca := filepath.Join(w.dir, "ca.crt")
	cert, key := w.ca.Issue(t, "admin").Write(t, w.dir, "admin")
	password, token, wrong := writeFile(t, w.dir, "password", "operator's\n"), writeFile(t, w.dir, "token", "viewer-token"), writeFile(t, w.dir, "wrong", "wrong\n")
	for _, tt := range []struct {
		access     admin.Access
		name, want string // the user, or a part of the error
	}{
		{admin.Access{Address: "https://" + w.tls, CAFile: ca, User: "operator", SecretFile: password}, "operator", ""},
		{admin.Access{Address: "https://" + w.tls, CAFile: ca, SecretFile: token}, "viewer", ""},
		{admin.Access{Address: "https://" + w.tls, CAFile: ca, CertFile: cert, KeyFile: key}, "admin", ""},
		{admin.Access{Address: w.page, User: "operator", SecretFile: password}, "operator", ""},
		{admin.Access{Address: "https://" + w.tls, CAFile: ca, User: "operator", SecretFile: wrong}, "", "wrong name, password or token"},
		{admin.Access{Address: "https://" + w.tls, CAFile: ca}, "", "role"},
		{admin.Access{Address: "https://" + w.tls, User: "operator", SecretFile: password}, "", "is not trusted: x509: certificate signed by unknown authority"},
		{admin.Access{Address: "https://" + w.page, CAFile: ca}, "", "no admin endpoint answers at https://" + w.page},
		{admin.Access{Address: strings.Replace(w.tls, "localhost", "127.0.0.1", 1)}, "", "the admin endpoint answers 400"},
	} {
		c, err := admin.NewClient(tt.access)
		if err != nil {
			t.Fatal(err)
		}
		self, err := c.WhoAmI(t.Context())
		switch {
		case tt.want == "" && (err != nil || self.Name != tt.name):
			t.Errorf("%+v: %+v, %v; want %s", tt.access, self, err, tt.name)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%+v: %+v, %v; want an error with %q", tt.access, self, err, tt.want)
		}
	}
}

// TestRolesWithoutUsers: the socket is for everything, the port for looking.
func TestRolesWithoutUsers(t *testing.T) {
	for way, have := range map[string]admin.Role{socket: admin.Admin, `address = "127.0.0.1:0"`: admin.Viewer} {
		s := start(t, way)
		for pattern, needs := range admin.Verbs() {
			method, path := admin.Do(pattern)
			resp := s.send(t, method, path, "{}")
			resp.Body.Close()
			code := resp.StatusCode
			if (code == http.StatusForbidden) != (have < needs) || code == http.StatusMethodNotAllowed || code == http.StatusUnauthorized {
				t.Errorf("%s as %s: %d", pattern, have, code)
			}
			if have == admin.Admin && strings.HasPrefix(path, "/debug") && code != http.StatusNotFound {
				t.Errorf("%s without profiling: %d", pattern, code)
			}
		}
	}
}

// TestWrongSecrets: who says to be somebody and is not gets nothing, also where
// others may look; after many of them nobody new from there is believed.
func TestWrongSecrets(t *testing.T) {
	w := startManyWays(t, manyWays, twoShards)
	c := w.over()
	at := "https://" + w.tls + "/v1/status"
	if got, _ := code(t, c, "GET", at, basic("viewer", "viewer's")); got != 200 {
		t.Fatalf("the right password: %d", got)
	}
	for name, by := range map[string]func(*http.Request){
		"password":        basic("viewer", "wrong"),
		"name":            basic("nobody", "viewer's"),
		"no password":     basic("viewer", ""),
		"other's":         basic("admin", "viewer's"),
		"token":           bearer("wrong"),
		"no token":        bearer(""),
		"hash as a token": bearer("0Da9bQGhyuCB05ovjat1HcBC3oFP1g3zH8tVMXCVDyk="),
		"scheme":          func(r *http.Request) { r.Header.Set("Authorization", "Digest x") },
	} {
		for _, url := range []string{at, "http://" + w.page + "/v1/status"} {
			if got, header := code(t, c, "GET", url, by); got != http.StatusUnauthorized || header.Get("WWW-Authenticate") == "" {
				t.Errorf("wrong %s at %s: %d", name, url, got)
			}
		}
	}
	// Fourteen so far.
	last := 0
	for range 10 {
		last, _ = code(t, c, "GET", at, basic("admin", "guess"))
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the last of many guesses: %d", last)
	}
	if got, _ := code(t, c, "GET", at, basic("admin", "admin's")); got != http.StatusTooManyRequests {
		t.Errorf("a right guess among many: %d", got)
	}
	if got, _ := code(t, c, "GET", at, basic("viewer", "viewer's")); got != 200 {
		t.Errorf("who was there before: %d", got)
	}

	// A certificate of another authority is not let in at all.
	stranger := certtest.NewCA(t, "other authority").Issue(t, "admin").TLS()
	resp, err := w.over(stranger).Get(at)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("with a certificate of another authority: %s", resp.Status)
		}
	}
	if got, _ := code(t, c, "GET", "http://"+w.tls+"/v1/status", nil); got != http.StatusBadRequest {
		t.Errorf("without TLS: %d", got)
	}
}

// TestRenewed: a certificate and a password file count when they have changed.
func TestRenewed(t *testing.T) {
	w := startManyWays(t, manyWays, twoShards)
	c := w.over()
	at := "https://" + w.tls + "/v1/status"
	if got, _ := code(t, c, "GET", at, basic("operator", "operator's")); got != 200 {
		t.Fatalf("before: %d", got)
	}
	renewed := w.ca.Issue(t, "localhost")
	renewed.Write(t, w.dir, "server")
	if err := os.WriteFile(filepath.Join(w.dir, "operator.txt"), []byte("{PLAIN}the new one of the operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new password", func() bool {
		got, _ := code(t, c, "GET", at, basic("operator", "the new one of the operator"))
		return got == 200
	})
	eventually(t, "the new certificate", func() bool {
		nc, err := tls.Dial("tcp", w.tls, &tls.Config{RootCAs: w.ca.Pool()})
		if err != nil {
			return false
		}
		defer nc.Close()
		return nc.ConnectionState().PeerCertificates[0].Equal(renewed.Leaf)
	})
}

// TestAccounts: at a socket with users the account of the process counts.
func TestAccounts(t *testing.T) {
	const own, other = 0, 65534
	if os.Getuid() != own {
		t.Fatal("this test changes accounts: run it as root")
	}
	for _, test := range []struct {
		users     string
		own, nick admin.Role
	}{
		{``, admin.Admin, admin.Admin},
		{`user "a" {
			role = "viewer"
			unix_users = ["65534"]
		}`, admin.Admin, admin.Viewer},
		{`user "a" {
			role = "operator"
			unix_groups = ["65534"]
		}`, admin.Admin, admin.Operator},
		{`user "a" {
			role = "operator"
			unix_users = ["0"]
		}`, admin.Operator, admin.Nobody},
	} {
		s := start(t, `
			mode = "0666"
			address = "unix:DIR/admin.sock"
			`+test.users)
		// The directories of a test are its user's.
		for dir := filepath.Dir(s.server.Addr().String()); dir != filepath.Dir(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
			if dir == os.TempDir() {
				break
			}
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for uid, want := range map[uint32]admin.Role{own: test.own, other: test.nick} {
			cmd := exec.Command("curl", "--silent", "--show-error", "--unix-socket", s.server.Addr().String(), "http://localhost/v1/whoami")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			var who admin.Self
			if want == admin.Nobody {
				if !bytes.Contains(out, []byte("uid 65534 has the role nobody")) {
					t.Errorf("%s: %d is %s", test.users, uid, out)
				}
			} else if err := json.Unmarshal(out, &who); err != nil || who.Role != want || who.Name == "" {
				t.Errorf("%s: %d is %s, want %s", test.users, uid, out, want)
			}
		}
	}
}

// TestOtherSites: what a web page of another site makes a browser send.
func TestOtherSites(t *testing.T) {
	w := startManyWays(t, manyWays, twoShards)
	c := w.over()
	for _, test := range []struct {
		name, method, url, host, origin string
		code                            int
	}{
		{"an address", "GET", "http://" + w.page, "", "", 200},
		{"localhost", "GET", "http://" + w.page, "LOCALHOST:1", "", 200},
		{"IPv6", "GET", "http://" + w.page, "[::1]:9124", "", 200},
		{"hosts", "GET", "http://" + w.page, "proxy1.example.com:9124", "", 200},
		{"a name that was made to point here", "GET", "http://" + w.page, "evil.example", "", 421},
		{"a name with ours in it", "GET", "http://" + w.page, "localhost.evil.example", "", 421},
		{"such a name, with TLS", "GET", "https://" + w.tls, "evil.example", "", 200},
		{"its own page", "POST", "https://" + w.tls, "", "https://" + w.tls, 200},
		{"another site", "POST", "https://" + w.tls, "", "https://evil.example", 403},
		{"another site without TLS", "POST", "http://" + w.page, "", "http://evil.example", 403},
	} {
		path := "/v1/status"
		if test.method == "POST" {
			path = "/v1/pause"
		}
		got, _ := code(t, c, test.method, test.url+path, func(r *http.Request) {
			r.SetBasicAuth("operator", "operator's")
			if test.host != "" {
				r.Host = test.host
			}
			if test.origin != "" {
				r.Header.Set("Origin", test.origin)
			}
		})
		if got != test.code {
			t.Errorf("%s: %d, want %d", test.name, got, test.code)
		}
	}
	// The socket may be at the other end of a forwarded port.
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+w.forwarded(t)+"/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("over a forwarded socket: %s", resp.Status)
	}
}

// TestLoginOfBrowser: who may look without a password can give one all the same.
func TestLoginOfBrowser(t *testing.T) {
	b := startBrowser(t)
	w := startManyWays(t, manyWays, twoShards)
	// As if typed into the dialog; a page may not ask anything itself while its
	// address has a password.
	b.do(t, chromedp.Navigate("http://operator:operator%27s@"+w.page+"/login"))
	b.do(t, chromedp.Navigate("http://"+w.page+"/"))
	b.until(t, `document.querySelectorAll("#backend-table tbody tr").length === 1`)
	b.until(t, `[...document.querySelectorAll(".acts button")].some((e) => e.checkVisibility())`)
}

// TestLogged: the log names who changed what, and no secret.
func TestLogged(t *testing.T) {
	w := startManyWays(t, manyWays, twoShards)
	var out buffer
	c := w.cfg.Admin
	c.Network, c.Address = "tcp", "127.0.0.1:0"
	s, err := admin.Serve(c, w.proxy, admin.Options{}, hclog.New(&hclog.LoggerOptions{Output: &out}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	url := "http://" + s.Addr().String()
	code(t, w.over(), "POST", url+"/v1/pause", basic("operator", "operator's"))
	code(t, w.over(), "POST", url+"/v1/reload", basic("operator", "operator's"))
	code(t, w.over(), "GET", url+"/v1/status", basic("operator", "a wrong secret"))
	text := out.String()
	for _, want := range []string{
		`caller=operator`, `request="POST /v1/pause" code=200`,
		`request refused: caller=operator`, `needs=admin`, "login refused",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the log:\n%s", want, text)
		}
	}
	if strings.Contains(text, "operator's") || strings.Contains(text, "secret") {
		t.Errorf("a password in the log:\n%s", text)
	}
}

// buffer is for many goroutines.
type buffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// eventually waits until something is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 seconds", what)
		}
	}
}
