package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/unixsocket"
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

// About is what a Server tells of its process.
type About struct {
	Version string
	Config  string // the path
}

// Server serves the endpoint.
type Server struct {
	proxy   *proxy.Proxy
	about   About
	started time.Time
	log     hclog.Logger
	http    http.Server
	addr    net.Addr
	ended   chan struct{}
}

// Serve opens the endpoint that c describes and serves it until Close.
func Serve(c config.Admin, p *proxy.Proxy, about About, log hclog.Logger) (*Server, error) {
	l, err := listen(c)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s := &Server{proxy: p, about: about, started: time.Now(), log: log, addr: l.Addr(), ended: make(chan struct{})}
	s.http = http.Server{
		Handler:           s.routes(c.Network == "unix"),
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	log.Info("listening", "address", l.Addr())
	go s.serve(l)
	return s, nil
}

func listen(c config.Admin) (net.Listener, error) {
	if c.Network == "unix" {
		return unixsocket.Listen(c.Address, c.Mode)
	}
	return net.Listen("tcp", c.Address)
}

func (s *Server) serve(l net.Listener) {
	defer close(s.ended)
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		s.log.Error("admin endpoint ended", "error", err)
	}
}

// Addr returns where it listens.
func (s *Server) Addr() net.Addr { return s.addr }

// Close ends the endpoint. Requests that run have until ctx ends.
func (s *Server) Close(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	<-s.ended
}

// routes returns what is served. A TCP port can be used by everybody on the
// machine, so what changes something is for those who may use the UNIX socket.
func (s *Server) routes(mayChange bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", s.live)
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/backends", s.backends)
	change := s.setState
	if !mayChange {
		change = refuseChange
	}
	mux.HandleFunc("POST /v1/backends/{name}/state", change)
	return mux
}

func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), liveTimeout)
	defer cancel()
	if err := s.proxy.Check(ctx); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, http.StatusOK, map[string]bool{"live": true})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if !s.proxy.Ready() {
		fail(w, http.StatusServiceUnavailable, errors.New("no new sessions are accepted"))
		return
	}
	answer(w, http.StatusOK, map[string]bool{"ready": true})
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{
		Version: s.about.Version, Config: s.about.Config, PID: os.Getpid(), Started: *optional(s.started),
		Ready: s.proxy.Ready(), Sessions: s.proxy.Sessions(),
	}
	for _, b := range s.proxy.Backends() {
		st.Backends++
		if b.Available {
			st.Available++
		}
	}
	answer(w, http.StatusOK, st)
}

func (s *Server) backends(w http.ResponseWriter, _ *http.Request) {
	all := Backends{Backends: []Backend{}}
	for _, b := range s.proxy.Backends() {
		all.Backends = append(all.Backends, view(&b))
	}
	answer(w, http.StatusOK, all)
}

func refuseChange(w http.ResponseWriter, _ *http.Request) {
	fail(w, http.StatusForbidden, errors.New("nothing can be changed over a TCP port: use a UNIX socket (address of the admin block)"))
}

func (s *Server) setState(w http.ResponseWriter, r *http.Request) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	var req stateRequest
	if err := d.Decode(&req); err != nil || req.State == nil {
		fail(w, http.StatusBadRequest, errors.Join(errors.New(`send {"state": "active"}, or with "draining" or "down"`), err))
		return
	}
	name := r.PathValue("name")
	err := s.proxy.SetOperator(name, *req.State)
	switch {
	case errors.Is(err, proxy.ErrNoBackend):
		fail(w, http.StatusNotFound, err)
		return
	case err != nil:
		s.log.Error("an operator's wish was not carried out", "backend", name, "state", req.State.String(), "error", err)
		fail(w, http.StatusInternalServerError, fmt.Errorf("nothing was changed: %w", err))
		return
	}
	all := s.proxy.Backends()
	i := slices.IndexFunc(all, func(b proxy.BackendStatus) bool { return b.Name == name })
	if i < 0 { // a reload has taken it away meanwhile
		fail(w, http.StatusNotFound, proxy.ErrNoBackend)
		return
	}
	answer(w, http.StatusOK, view(&all[i]))
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
