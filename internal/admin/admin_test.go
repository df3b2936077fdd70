package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a proxy with an admin endpoint.
type site struct {
	proxy  *proxy.Proxy
	server *admin.Server
	client *admin.Client
	cfg    *config.Config
}

func (s *site) address() string {
	if s.server.Addr().Network() == "unix" {
		return "unix:" + s.server.Addr().String()
	}
	return s.server.Addr().String()
}

// start runs a proxy of two backends that are not there, with an admin block.
func start(t *testing.T, block string) *site {
	t.Helper()
	return startWith(t, block, `
shard "s1" {
  backend "mail1" { address = "127.0.0.1:1" }
  backend "mail/1%b?" {
    address = "127.0.0.1:2"
    standby = true
  }
}`)
}

// startWith runs a proxy of the shards.
func startWith(t *testing.T, block, shards string) *site {
	t.Helper()
	dir := t.TempDir()
	cfg, diags := config.Parse(filepath.Join(dir, "proxy.hcl"), []byte(fmt.Sprintf(`
listener "main" { address = "127.0.0.1:0" }
client "c" { password = "{PLAIN}x" }
backend_defaults { password = "secret" }
admin {
  state_file = %q
  %s
}
%s
`, filepath.Join(dir, "operator.json"), strings.ReplaceAll(block, "DIR", dir), shards)))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	s := &site{cfg: cfg}
	var err error
	if s.proxy, err = proxy.New(cfg, proxy.Options{Log: hclog.NewNullLogger()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.proxy.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.proxy.Serve()
	if s.server, err = admin.Serve(cfg.Admin, s.proxy, admin.Options{Version: "1.2.3", Config: "/etc/x"}, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.server.Close(context.Background()) })
	if s.client, err = admin.NewClient(admin.Access{Address: s.address()}); err != nil {
		t.Fatal(err)
	}
	return s
}

// send sends a request by hand. The answer may have no end.
func (s *site) send(t *testing.T, method, path, body string) *http.Response {
	t.Helper()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, s.server.Addr().Network(), s.server.Addr().String())
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// ask sends a request by hand and returns the code and the answer.
func (s *site) ask(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	resp := s.send(t, method, path, body)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if json.Unmarshal(text, &answer) != nil && resp.Header.Get("Content-Type") == "application/json" {
		t.Errorf("%s %s: no JSON: %s", method, path, text)
	}
	if bytes.Contains(text, []byte("secret")) {
		t.Errorf("%s %s shows a password: %s", method, path, text)
	}
	return resp.StatusCode, answer
}

const socket = `address = "unix:DIR/admin.sock"`

func TestStates(t *testing.T) {
	s := start(t, socket)
	for _, step := range []struct {
		name string
		to   pool.Operator
	}{{"mail1", pool.Draining}, {"mail/1%b?", pool.Down}, {"mail1", pool.Active}} {
		b, err := s.client.SetState(t.Context(), step.name, step.to)
		if err != nil {
			t.Fatal(err)
		}
		if b.Name != step.name || b.Operator != step.to || (b.OperatorSince == nil) != (step.to == pool.Active) {
			t.Errorf("%+v", b)
		}
	}
	all, err := s.client.Backends(t.Context())
	if err != nil || len(all.Backends) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if b := all.Backends[0]; b.Shard != "s1" || b.Address != "127.0.0.1:1" || b.Standby || b.Operator != pool.Active || b.Health != pool.Unknown || b.Breaker != "closed" || b.MaxOpen != 8 {
		t.Errorf("%+v", b)
	}
	if b := all.Backends[1]; !b.Standby || b.Operator != pool.Down {
		t.Errorf("%+v", b)
	}

	// The states stand in the JSON as words.
	_, answer := s.ask(t, "GET", "/v1/backends", "")
	second := answer["backends"].([]any)[1].(map[string]any)
	if second["operator"] != "down" || second["health"] != "unknown" || second["breaker"] != "closed" {
		t.Errorf("%v", second)
	}
	st, err := s.client.Status(t.Context())
	if err != nil || st.Version != "1.2.3" || st.Config != "/etc/x" || st.PID != os.Getpid() || !st.Ready || st.Backends != 2 || st.Available != 1 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestRequests: what is asked wrongly changes nothing.
func TestRequests(t *testing.T) {
	s := start(t, socket)
	for _, test := range []struct {
		method, path, body string
		code               int
	}{
		{"GET", "/live", "", 200},
		{"GET", "/ready", "", 200},
		{"GET", "/v1/status", "", 200},
		{"GET", "/v1/backends", "", 200},
		{"GET", "/", "", 200},
		{"GET", "/v2/backends", "", 404},
		{"POST", "/v1/backends", "", 405},
		{"GET", "/v1/backends/mail1/state", "", 405},
		{"POST", "/v1/backends/mail1/state", "", 400},
		{"POST", "/v1/backends/mail1/state", "{}", 400},
		{"POST", "/v1/backends/mail1/state", `{"state": "up"}`, 400},
		{"POST", "/v1/backends/mail1/state", `{"state": 1}`, 400},
		{"POST", "/v1/backends/mail1/state", `{"state": "down", "why": "x"}`, 400},
		{"POST", "/v1/backends/mail1/state", `{"state": "` + strings.Repeat("x", 1<<20) + `"}`, 400},
		{"POST", "/v1/backends/mail2/state", `{"state": "down"}`, 404},
	} {
		code, answer := s.ask(t, test.method, test.path, test.body)
		if code != test.code {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, code, test.code)
		}
		if code == 400 && answer["error"] == nil {
			t.Errorf("%s %s: no error in %v", test.method, test.path, answer)
		}
	}
	for _, b := range s.proxy.Backends() {
		if b.Stat.Operator != pool.Active {
			t.Errorf("%s is %v", b.Name, b.Stat.Operator)
		}
	}
	var refused *admin.RefusedError
	if _, err := s.client.SetState(t.Context(), "nobody", pool.Down); !errors.As(err, &refused) || refused.Code != 404 || !strings.Contains(refused.What, "nobody") {
		t.Errorf("%v", err)
	}
}

// TestNothingKept: a state that cannot be kept is refused, with the reason.
func TestNothingKept(t *testing.T) {
	s := start(t, socket)
	dir := filepath.Dir(s.cfg.Admin.StateFile)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	// The socket is in the same directory, and has moved with it.
	moved, err := admin.NewClient(admin.Access{Address: "unix:" + dir + ".away/admin.sock"})
	if err != nil {
		t.Fatal(err)
	}
	var refused *admin.RefusedError
	_, err = moved.SetState(t.Context(), "mail1", pool.Down)
	if !errors.As(err, &refused) || refused.Code != 500 || !strings.Contains(refused.What, "state_file") {
		t.Errorf("%v", err)
	}
	if s.proxy.Backends()[0].Stat.Operator != pool.Active {
		t.Error("changed all the same")
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
}

// TestSocket: the mode is that of the block, and the socket goes with the
// endpoint.
func TestSocket(t *testing.T) {
	s := start(t, socket)
	path := s.cfg.Admin.Address
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := admin.Serve(s.cfg.Admin, s.proxy, admin.Options{}, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("second endpoint on the socket: %v", err)
	}
	s.server.Close(t.Context())
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close: %v", err)
	}
	_, err := s.client.Status(t.Context())
	var refused *admin.RefusedError
	if err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), path) {
		t.Errorf("after Close: %v", err)
	}
}

// TestPortIsForReading: whoever is on the machine can reach it.
func TestPortIsForReading(t *testing.T) {
	s := start(t, `address = "127.0.0.1:0"`)
	if _, err := s.client.Backends(t.Context()); err != nil {
		t.Error(err)
	}
	var refused *admin.RefusedError
	if _, err := s.client.SetState(t.Context(), "mail1", pool.Down); !errors.As(err, &refused) || refused.Code != 403 {
		t.Errorf("%v", err)
	}
	if s.proxy.Backends()[0].Stat.Operator != pool.Active {
		t.Error("changed over a port")
	}
}

// TestNotReady: from the begin of a shutdown on.
func TestNotReady(t *testing.T) {
	s := start(t, socket)
	if err := s.proxy.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code, _ := s.ask(t, "GET", "/ready", ""); code != 503 {
		t.Errorf("ready: %d", code)
	}
	if st, err := s.client.Status(t.Context()); err != nil || st.Ready {
		t.Errorf("%+v, %v", st, err)
	}
	if _, err := s.client.SetState(t.Context(), "mail1", pool.Down); err == nil {
		t.Error("changed in a shutdown")
	}
}

// writeFile returns the path of a new file.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNewClient(t *testing.T) {
	dir := t.TempDir()
	const secret = "a token of secret content"
	token, two, empty := writeFile(t, dir, "token", secret+"\n"), writeFile(t, dir, "two", "alice\n"+secret+"\n"), writeFile(t, dir, "empty", "\n")
	const remote = "https://proxy1.example.com:9124"
	for _, tt := range []struct {
		access admin.Access
		want   string
	}{
		{admin.Access{Address: ""}, "use unix:/path"},
		{admin.Access{Address: "/run/x"}, "use unix:/path"},
		{admin.Access{Address: "unix:run/x"}, "begins with a slash"},
		{admin.Access{Address: "localhost"}, "use unix:/path"},
		{admin.Access{Address: "https://localhost"}, "use unix:/path"},
		{admin.Access{Address: "http://localhost:1"}, "use unix:/path"},
		{admin.Access{Address: remote, User: "alice"}, "user alice needs a password"},
		{admin.Access{Address: remote, SecretFile: dir + "/none"}, "no such file"},
		{admin.Access{Address: remote, SecretFile: two}, "one line, and the only one"},
		{admin.Access{Address: remote, SecretFile: empty}, "one line, and the only one"},
		{admin.Access{Address: remote, CAFile: token}, "there is no PEM block in it"},
		{admin.Access{Address: remote, CertFile: token}, "belong together"},
		{admin.Access{Address: remote, KeyFile: token}, "belong together"},
		{admin.Access{Address: remote, CertFile: token, KeyFile: token}, "there is no PEM block in it"},
		{admin.Access{Address: "proxy1.example.com:9124", SecretFile: token}, "in clear text: use https://"},
		{admin.Access{Address: "192.0.2.1:9124", User: "alice", SecretFile: token}, "in clear text: use https://"},
		{admin.Access{Address: "localhost:9124", CAFile: token}, "not reached by TLS"},
	} {
		_, err := admin.NewClient(tt.access)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%+v: error %v, want one with %q, without the secret", tt.access, err, tt.want)
		}
	}
	for _, good := range []admin.Access{
		{Address: "unix:/run/x"},
		{Address: remote, User: "alice", SecretFile: token},
		{Address: "127.0.0.1:9124", SecretFile: token},
		{Address: "[::1]:9124", SecretFile: token},
		{Address: "localhost:9124", SecretFile: token},
	} {
		if _, err := admin.NewClient(good); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
}

// TestSlowRequest: one that does not come to its end does not stay.
func TestSlowRequest(t *testing.T) {
	s := start(t, socket)
	nc, err := net.Dial("unix", s.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "GET /live HTTP/1.1\r\nX: "+strings.Repeat("x", 1<<20)); err == nil {
		nc.SetReadDeadline(time.Now().Add(time.Minute))
		if text, _ := io.ReadAll(nc); !bytes.Contains(text, []byte(" 431 ")) {
			t.Errorf("%q", text)
		}
	}
}
