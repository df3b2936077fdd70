package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// TestMetrics: what a scraper gets of a whole process, in both formats.
func TestMetrics(t *testing.T) {
	cfg, diags := config.Parse("x.hcl", []byte(`
listener "main" { address = "127.0.0.1:0" }
client "c" { password = "{PLAIN}x" }
shard "s1" {
  backend "mail1" {
    address  = "127.0.0.1:1"
    password = "x"
  }
}
`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	l := logs.New(logs.Options{Name: "doveadm-proxy", Level: hclog.Error, Output: io.Discard})
	defer l.Close()
	p, err := proxy.New(cfg, proxy.Options{Log: l.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Shutdown(t.Context())
	h := serveMetrics(newRegistry(p, l), l.Logger())
	get := func(accept string) (kind, text string) {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Header().Get("Content-Type"), w.Body.String()
	}
	kind, text := get("")
	if !strings.HasPrefix(kind, "text/plain") {
		t.Errorf("%s", kind)
	}
	for _, name := range []string{
		"doveadm_proxy_build_info", "doveadm_proxy_log_lines_held_back_total", "doveadm_proxy_backend_available", "process_resident_memory_bytes",
		"process_open_fds", "process_max_fds", "process_cpu_seconds_total", "go_memstats_heap_inuse_bytes",
	} {
		if !strings.Contains(text, "\n"+name+" ") && !strings.Contains(text, "\n"+name+"{") {
			t.Errorf("no %s", name)
		}
	}
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if kind, text := get("application/openmetrics-text; version=1.0.0"); !strings.HasPrefix(kind, "application/openmetrics-text") || !strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("OpenMetrics: %s", kind)
	}
}
