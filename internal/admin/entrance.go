package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/identity"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
	"github.com/doveadm-proxy/doveadm-proxy/internal/unixsocket"
)

// entrance is one address of the endpoint.
type entrance struct {
	config.AdminEndpoint
	listener net.Listener
	log      hclog.Logger
	http     http.Server
	ended    chan struct{}
}

// open listens at an address of the endpoint.
func open(at config.AdminEndpoint, log hclog.Logger) (*entrance, error) {
	if at.Name != "" {
		log = log.With("endpoint", at.Name)
	}
	e := &entrance{AdminEndpoint: at, log: log, ended: make(chan struct{})}
	var err error
	if at.Network == "unix" {
		e.listener, err = unixsocket.Listen(at.Address, at.Mode)
	} else {
		e.listener, err = net.Listen("tcp", at.Address)
	}
	if err != nil {
		return nil, err
	}
	if at.TLS.CertFile != "" {
		c := &certificates{files: tlsfiles.NewServer(tlsfiles.Server{CertFile: at.TLS.CertFile, KeyFile: at.TLS.KeyFile, ClientCAFile: at.TLS.ClientCAFile}, log)}
		if _, err := c.config(nil); err != nil {
			e.listener.Close()
			return nil, err
		}
		e.listener = tls.NewListener(e.listener, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: c.config})
	}
	return e, nil
}

// serve answers requests until the entrance is closed.
func (e *entrance) serve(handler http.Handler) {
	e.http = http.Server{
		Handler:           handler,
		ReadHeaderTimeout: requestTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          e.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		ConnContext:       e.connected,
	}
	e.log.Info("listening", "address", e.listener.Addr(), "tls", e.TLS.CertFile != "")
	go func() {
		defer close(e.ended)
		if err := e.http.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("admin endpoint ended", "error", err)
		}
	}()
}

// close ends it. Requests that run have until ctx ends.
func (e *entrance) close(ctx context.Context) {
	if e.http.Shutdown(ctx) != nil {
		e.http.Close()
	}
	<-e.ended
}

// arrival is what is known of a connection before its first request.
type arrival struct {
	entrance *entrance
	account  *identity.Account // of the process at a UNIX socket; nil: not known
}

type arrivalKey struct{}

func arrivalOf(ctx context.Context) *arrival { return ctx.Value(arrivalKey{}).(*arrival) }

func (e *entrance) connected(ctx context.Context, nc net.Conn) context.Context {
	a := &arrival{entrance: e}
	if e.Network == "unix" {
		peer, err := identity.Of(e.Name, nc)
		if err != nil {
			e.log.Warn("the account of a process at the socket cannot be told", "error", err)
		}
		a.account = peer.Account
	}
	return context.WithValue(ctx, arrivalKey{}, a)
}

// certificates are those of an entrance, as the files have them.
type certificates struct {
	files *tlsfiles.Files
	last  atomic.Pointer[derived]
}

// derived is a configuration for HTTP and the one it was made of. It is kept as
// long as that, because it holds the keys of session tickets.
type derived struct{ from, config *tls.Config }

// config is what tls.Config.GetConfigForClient wants. A client may leave its
// certificate out, and be known by a password.
func (c *certificates) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	from, err := c.files.Config()
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	last := c.last.Load()
	if last != nil && last.from == from {
		return last.config, nil
	}
	d := &derived{from, from.Clone()}
	d.config.GetConfigForClient = nil
	d.config.NextProtos = []string{"http/1.1"}
	if from.ClientCAs != nil {
		d.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.last.CompareAndSwap(last, d)
	return d.config, nil
}
