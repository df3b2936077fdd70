package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// metrics returns the value of each metric of a proxy, by name and labels as
// they stand in a scrape; of a histogram how many observations it has.
func (s *site) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	return metricsOf(t, s.Proxy)
}

func metricsOf(t testing.TB, p *proxy.Proxy) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	must(t, r.Register(p))
	families, err := r.Gather()
	must(t, err)
	all := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			name := strings.TrimPrefix(f.GetName(), "doveadm_proxy_")
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				all[name] = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				all[name] = m.Gauge.GetValue()
			default:
				all[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return all
}

// scrape returns what Prometheus gets.
func scrape(t testing.TB, p *proxy.Proxy) []byte {
	t.Helper()
	r := prometheus.NewRegistry()
	must(t, r.Register(p))
	srv := httptest.NewRecorder()
	promhttp.HandlerFor(r, promhttp.HandlerOpts{}).ServeHTTP(srv, httptest.NewRequest("GET", "/metrics", nil))
	text, err := io.ReadAll(srv.Result().Body)
	must(t, err)
	return text
}

// TestMetricsOfCommands: one command of each kind is in every metric that it
// belongs to, and only there.
func TestMetricsOfCommands(t *testing.T) {
	s, _ := startWith(t, 4, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.User == "nobody@s1" {
			c.Status("-NOUSER")
			return
		}
		answer(c, cmd)
	}, nil)
	c := s.login(t, client13)
	c.works(t)
	c.run(t, "\tnobody@s1\tindex\tINBOX\n")
	c.run(t, "\tstranger\tquota get\n")
	eventually(t, "all are counted", func() bool { return s.metrics(t)[`client_commands_total{client="panel",outcome="no-user"}`] == 1 })
	got := s.metrics(t)
	for name, want := range map[string]float64{
		`commands_total{backend="b1",class="quick",outcome="answered"}`: 1,
		`commands_total{backend="b1",class="slow",outcome="answered"}`:  1,
		`commands_total{backend="",class="quick",outcome="no-user"}`:    1,
		`command_duration_seconds{backend="b1",class="quick"}`:          1,
		`command_first_byte_seconds{backend="b1",class="slow"}`:         1,
		`command_wait_seconds{backend="b1",class="slow"}`:               1,
		`replies_total{backend="b1",status="ok"}`:                       1,
		`replies_total{backend="b1",status="nouser"}`:                   1,
		`client_commands_total{client="panel",outcome="answered"}`:      2,
		`route_decisions_total{route="match #1"}`:                       1,
		`route_decisions_total{route="match #2"}`:                       1,
		`backend_connect_seconds{backend="b1"}`:                         1,
		`backend_login_seconds{backend="b1"}`:                           1,
		`backend_dials_total{backend="b1"}`:                             1,
		`pool_acquired_total{backend="b1"}`:                             2,
		`pool_connections{backend="b1",state="idle"}`:                   1,
		`backend_available{backend="b1"}`:                               1,
		`listener_sessions{listener="main"}`:                            1,
		`client_sessions{client="panel"}`:                               1,
		`logins_total{result="ok"}`:                                     1,
		`logins_total{result="wrong"}`:                                  0,
		`ready`:                                                         1,
		`config_last_reload_successful`:                                 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if n := got[`output_bytes_total{backend="b1"}`]; n < 8 {
		t.Errorf("%v bytes of output", n)
	}
	for name := range got {
		if strings.Contains(name, "alice") || strings.Contains(name, "nobody") || strings.Contains(name, "stranger") {
			t.Errorf("a user in %s", name)
		}
	}
}

// TestMetricsOutliveReload: also where the block of the backend has changed,
// and its pool is another one.
func TestMetricsOutliveReload(t *testing.T) {
	s, _ := startWith(t, 4, answer, nil)
	s.login(t, client13).works(t)
	for i, change := range []func(c *config.Config){nil, func(c *config.Config) { first(c).Pool.MaxOpen = 3 }} {
		cfg := configure(t, change, first(s.cfg).Address)
		cfg.Listeners, cfg.Limits = s.cfg.Listeners, s.cfg.Limits
		must(t, s.Reload(cfg))
		s.login(t, client13).works(t)
		eventually(t, "the command is counted", func() bool {
			return s.metrics(t)[`commands_total{backend="b1",class="quick",outcome="answered"}`] == float64(i+2)
		})
		got := s.metrics(t)
		for _, name := range []string{`pool_acquired_total{backend="b1"}`, `client_commands_total{client="panel",outcome="answered"}`, `logins_total{result="ok"}`, `route_decisions_total{route="match #1"}`} {
			if got[name] != float64(i+2) {
				t.Errorf("after %d reloads: %s is %v, want %d", i+1, name, got[name], i+2)
			}
		}
		if got[`config_reloads_total{result="ok"}`] != float64(i+1) {
			t.Errorf("%v reloads", got[`config_reloads_total{result="ok"}`])
		}
	}
	if n := s.metrics(t)[`backend_dials_total{backend="b1"}`]; n != 2 {
		t.Errorf("%v dials, want those of both pools: 2", n)
	}
}

// TestPromtool: the names, units and texts are as the conventions want them.
func TestPromtool(t *testing.T) {
	s, _ := startWith(t, 4, answer, nil)
	s.login(t, client13).works(t)
	cmd := exec.Command("promtool", "check", "metrics")
	cmd.Stdin = bytes.NewReader(scrape(t, s.Proxy))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// hundreds is a proxy with many backends, each of which has had commands of all
// classes.
func hundreds(t testing.TB, n int) *proxy.Proxy {
	var addresses []string
	for range n {
		addresses = append(addresses, "127.0.0.1:1")
	}
	p, err := proxy.New(configure(t, neverOpens, addresses...), proxy.Options{Log: hclog.NewNullLogger()})
	must(t, err)
	t.Cleanup(func() { must(t, p.Shutdown(context.Background())) })
	proxy.FillMeters(p)
	return p
}

// BenchmarkScrape is one of a proxy with 200 backends, in which everything that
// can be counted has been.
func BenchmarkScrape(b *testing.B) {
	p := hundreds(b, 200)
	r := prometheus.NewRegistry()
	must(b, r.Register(p))
	h := promhttp.HandlerFor(r, promhttp.HandlerOpts{DisableCompression: true})
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		b.ReportMetric(float64(w.Body.Len()), "bytes/scrape")
	}
}
