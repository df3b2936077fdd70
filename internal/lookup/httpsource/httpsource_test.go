package httpsource_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup/httpsource"
	"github.com/doveadm-proxy/doveadm-proxy/internal/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the timeout of lookups that have to work.
const patience = 20 * time.Second

func ask(t *testing.T, s *httpsource.Source, user string, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	place, found, err := s.Lookup(ctx, user)
	switch {
	case err != nil:
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("the error holds the secret: %v", err)
		}
		return "error: " + err.Error()
	case !found:
		return "none"
	case place.TTL > 0:
		return place.Shard + " for " + place.TTL.String()
	}
	return place.Shard
}

func expect(t *testing.T, s *httpsource.Source, user, want string) {
	t.Helper()
	if got := ask(t, s, user, patience); got != want && !(strings.HasPrefix(want, "error: ") && strings.Contains(got, strings.TrimPrefix(want, "error: "))) {
		t.Errorf("%q: %s; want %s", user, got, want)
	}
}

func source(t *testing.T, c config.HTTP) *httpsource.Source {
	t.Helper()
	if c.Method == "" {
		c.Method = http.MethodGet
	}
	if c.Field == "" {
		c.Field = "shard"
	}
	s, err := httpsource.New(c, config.Lookup{MaxLookups: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestAnswers asks a server that answers with whatever the user is.
func TestAnswers(t *testing.T) {
	t.Parallel()
	conns := make(map[string]bool)
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer sesame" || r.Header.Get("X-Tenant") != "mail" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch kind := r.URL.Query().Get("kind"); {
		case r.Method == http.MethodPost:
			var body struct{ User string }
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			fmt.Fprintf(w, `{"shard":%q}`, body.User)
		case kind == "":
			fmt.Fprintf(w, `{"shard":%q}`, strings.TrimPrefix(r.URL.Path, "/users/"))
		case kind == "404":
			w.WriteHeader(http.StatusNotFound)
		case kind == "redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case kind == "kept":
			w.Header().Set("Cache-Control", "private, max-age=30")
			io.WriteString(w, `{"shard":"s1"}`)
		case kind == "503":
			w.WriteHeader(http.StatusServiceUnavailable)
		case kind == "large":
			fmt.Fprintf(w, `{"x":%q,"shard":"s1"}`, strings.Repeat("x", 100_000))
		case kind == "cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"shard":"s1"}`)
		default:
			io.WriteString(w, kind)
		}
	}))
	defer srv.Close()
	usual := config.HTTP{
		URL: srv.URL + "/users/%u", Headers: []string{"X-Tenant: mail"},
		Secret: []config.SecretHeader{{Name: "Authorization", Value: config.NewSecret("Bearer sesame")}},
	}
	s := source(t, usual)
	for _, user := range []string{"alice@example.com", "a/b c?d=e#f%41&g", "ü", "' OR 1", "a\tb"} {
		expect(t, s, user, user)
	}
	for _, user := range []string{"..", "a/../b", "."} {
		expect(t, s, user, "error: cannot stand in a URL")
	}
	mu.Lock()
	if len(conns) != 1 {
		t.Errorf("%d connections for lookups one after the other", len(conns))
	}
	mu.Unlock()

	byKind := usual
	byKind.URL = srv.URL + "/?kind=%u"
	s = source(t, byKind)
	for answer, want := range map[string]string{
		"404":                        "none",
		`{"shard":null}`:             "none",
		`{"shard":"s1"}`:             "s1",
		`{"shard":7,"more":[]}`:      "7",
		"kept":                       "s1 for 30s",
		"redirect":                   `error: status 302 to "/elsewhere"`,
		"503":                        "error: status 503",
		"large":                      "error: more than 65536 bytes",
		"cut":                        "error: unexpected EOF",
		`{"shrad":"s1"}`:             "error: no field shard",
		`{"shard":""}`:               "error: the field shard is empty",
		`{"shard":{"a":1}}`:          "error: neither a string nor a number",
		`{"shard":true}`:             "error: neither",
		`{"shard":"s1"} {`:           "error: no JSON object",
		"s1":                         "error: no JSON object",
		"null":                       "error: no JSON object",
		`["s1"]`:                     "error: no JSON object",
		`<html>Sign in first</html>`: "error: no JSON object",
	} {
		expect(t, s, answer, want)
	}
	deep := byKind
	deep.Field = "user.place.shard"
	expect(t, source(t, deep), `{"user":{"place":{"shard":"s2"}}}`, "s2")
	expect(t, source(t, deep), `{"user":{"place":"s2"}}`, "error: no JSON object")
	post := usual
	post.URL, post.Method = srv.URL+"/lookup", http.MethodPost
	expect(t, source(t, post), "alice\"@example.com", "alice\"@example.com")
	open := usual
	open.Secret = nil
	expect(t, source(t, open), "alice@example.com", "error: status 401")
}

// TestNginx asks a real server over TLS, through its life.
func TestNginx(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t, "ca")
	dir := t.TempDir()
	ca.Write(t, dir, "ca")
	ca.Issue(t, "127.0.0.1").Write(t, dir, "web")
	certtest.NewCA(t, "other").Write(t, dir, "other")
	users := filepath.Join(dir, "users")
	if err := os.Mkdir(users, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(user, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(users, user), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("alice@example.com", `{"shard":"s1"}`)
	write("broken@example.com", `{"shard":`)
	srv, err := service.Start(t.Context(), service.Options{
		Name: "nginx", Package: "nginx-light",
		Prepare: func(_ context.Context, s *service.Service) error {
			_, err := s.WriteFile("nginx.conf", fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  server {
    listen %[2]s ssl;
    ssl_certificate %[3]s/web.crt;
    ssl_certificate_key %[3]s/web.key;
    default_type application/json;
    root %[3]s;
  }
}
`, s.Dir, s.Addr, dir))
			return err
		},
		Command: func(s *service.Service) []string {
			return []string{"nginx", "-p", s.Dir, "-e", "stderr", "-c", filepath.Join(s.Dir, "nginx.conf")}
		},
		Ready: func(ctx context.Context, s *service.Service) error {
			return serves(ctx, s.Addr)
		},
		Stop: 15,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	link, err := fault.Listen("127.0.0.1:0", srv.Addr, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	usual := config.HTTP{URL: "https://" + link.Addr + "/users/%u", CAFile: filepath.Join(dir, "ca.crt")}
	s := source(t, usual)
	expect(t, s, "alice@example.com", "s1")
	expect(t, s, "eve@example.com", "none")
	expect(t, s, "broken@example.com", "error: no JSON object")
	if n := link.Len(); n != 1 {
		t.Errorf("%d connections for lookups one after the other", n)
	}
	other := usual
	other.CAFile = filepath.Join(dir, "other.crt")
	expect(t, source(t, other), "alice@example.com", "error: certificate")

	link.Set(fault.Fault{End: fault.Silence})
	start := time.Now()
	if got := ask(t, s, "alice@example.com", 200*time.Millisecond); !strings.HasPrefix(got, "error: http: context deadline exceeded") {
		t.Errorf("slow: %s", got)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("gave up after %s", took)
	}
	link.Set(fault.Fault{})
	expect(t, s, "alice@example.com", "s1")

	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := ask(t, s, "alice@example.com", patience); !strings.HasPrefix(got, "error: http: ") {
			t.Errorf("down: %s", got)
		}
	}
	if err := srv.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	write("alice@example.com", `{"shard":"s2"}`)
	expect(t, s, "alice@example.com", "s2")
}

func serves(ctx context.Context, addr string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
	if err != nil {
		return err
	}
	r.Close = true
	response, err := new(http.Transport).RoundTrip(r) // a plain request, which it refuses
	if err != nil {
		return err
	}
	return response.Body.Close()
}
