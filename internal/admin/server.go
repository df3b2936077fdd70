package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/history"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

const (
	requestTimeout = 10 * time.Second // to read one
	answerTimeout  = 30 * time.Second // to handle one, and to write the answer
	idleTimeout    = time.Minute
	liveTimeout    = 5 * time.Second // for the proxy to accept a connection
	maxHeader      = 16 << 10
	maxBody        = 4 << 10
)

// Options are what a Server gets from the process around it.
type Options struct {
	Version string
	Config  string       // the path
	Metrics http.Handler // serves GET /metrics; nil: there are none
	Logs    *logs.System // nil: its levels and events are not to be had

	// Reload reads the configuration again and returns how that ended; nil: the
	// process cannot. The error says that it could not even be tried.
	Reload func(context.Context) (*ReloadResult, error)
}

// Server serves the endpoint.
type Server struct {
	proxy     *proxy.Proxy
	options   Options
	profiling bool
	started   time.Time
	log       hclog.Logger
	users     *users
	entrances []*entrance
	closing   chan struct{} // closed by Close
	close     sync.Once
	streams   atomic.Int64 // that are open

	recorder *history.Recorder // of the last hour
}

// Serve opens the endpoint that c describes and serves it until Close.
func Serve(c config.Admin, p *proxy.Proxy, o Options, log hclog.Logger) (*Server, error) {
	known, err := newUsers(c.Users, log)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s := &Server{proxy: p, options: o, profiling: c.Profiling, started: time.Now(), log: log, users: known, closing: make(chan struct{})}
	for _, at := range c.Endpoints() {
		e, err := open(at, log)
		if err != nil {
			for _, e := range s.entrances {
				e.listener.Close()
			}
			return nil, fmt.Errorf("admin: %w", err)
		}
		s.entrances = append(s.entrances, e)
	}
	s.recorder = history.Start(p.Readings)
	handler := guarded(c.Hosts, s.routes(verbs()))
	for _, e := range s.entrances {
		e.serve(handler)
	}
	return s, nil
}

// Addr returns where it listens: the address of the admin block itself.
func (s *Server) Addr() net.Addr { return s.entrances[0].listener.Addr() }

// Addrs returns all addresses, that of the admin block first, then those of its
// endpoint blocks.
func (s *Server) Addrs() []net.Addr {
	var all []net.Addr
	for _, e := range s.entrances {
		all = append(all, e.listener.Addr())
	}
	return all
}

// Close ends the endpoint. Requests that run have until ctx ends.
func (s *Server) Close(ctx context.Context) {
	s.close.Do(func() { close(s.closing) })
	var all sync.WaitGroup
	for _, e := range s.entrances {
		all.Go(func() { e.close(ctx) })
	}
	all.Wait()
	s.recorder.Close()
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.Encode(v) // the client is gone if it fails
}

func fail(w http.ResponseWriter, code int, err error) {
	answer(w, code, problem{Error: err.Error()})
}
