package main

import (
	"net/http"
	"runtime"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// newRegistry returns the metrics of a process: those of the proxy, of the Go
// runtime, and of the process itself.
func newRegistry(p *proxy.Proxy, l *logs.System) *prometheus.Registry {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "doveadm_proxy_build_info",
		Help:        "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	held := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "doveadm_proxy_log_lines_held_back_total",
		Help: "Lines of the log that repeat others and are told by a count.",
	}, func() float64 { return float64(l.HeldBack()) })
	r := prometheus.NewRegistry()
	r.MustRegister(p, build, held, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// serveMetrics serves a registry, in the format of Prometheus or, where that is
// asked for, in that of OpenMetrics. It does not compress: the endpoint is on
// this machine.
func serveMetrics(r *prometheus.Registry, log hclog.Logger) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:            log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Error}),
		MaxRequestsInFlight: maxScrapes,
		DisableCompression:  true,
		EnableOpenMetrics:   true,
	})
}

// maxScrapes is how many requests for metrics are served at the same time.
const maxScrapes = 4
