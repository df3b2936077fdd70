package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/history"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
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

// Options are what a Server gets from the process around it.
type Options struct {
	Version string
	Config  string       // the path
	Metrics http.Handler // serves GET /metrics; nil: there are none
	Logs    *logs.System // nil: its levels and events are not to be had
}

// Server serves the endpoint.
type Server struct {
	proxy   *proxy.Proxy
	options Options
	started time.Time
	log     hclog.Logger
	http    http.Server
	addr    net.Addr
	ended   chan struct{}

	recorder *history.Recorder // of the last hour
}

// Serve opens the endpoint that c describes and serves it until Close.
func Serve(c config.Admin, p *proxy.Proxy, o Options, log hclog.Logger) (*Server, error) {
	l, err := listen(c)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s := &Server{proxy: p, options: o, started: time.Now(), log: log, addr: l.Addr(), ended: make(chan struct{}), recorder: history.Start(p.Readings)}
	s.http = http.Server{
		Handler:           s.routes(verbs()),
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
	s.recorder.Close()
}

// identify says who sends a request. Whoever may write to the UNIX socket may
// do everything; a port can be used by everybody on the machine, so there one
// may look.
func (s *Server) identify(r *http.Request) Caller {
	if s.addr.Network() == "unix" {
		return Caller{From: "local", Role: Admin}
	}
	return Caller{From: r.RemoteAddr, Role: Viewer}
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
