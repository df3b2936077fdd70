package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// ErrNoProcess is what a backend without a free process looks like: the kernel
// accepts the connection and nobody greets. Dovecot's limit is process_limit
// of the service doveadm, 100 by default.
var ErrNoProcess = errors.New("connected, but the backend does not greet (has it reached the process_limit of its service doveadm?)")

// ErrBackendLogin is a backend that refuses our name or password.
var ErrBackendLogin = errors.New("the backend refused the login (username and password of the backend block, doveadm_password of the backend)")

// Dial opens a logged-in connection to b.
func Dial(ctx context.Context, b config.Backend) (*doveadm.ClientConn, error) {
	d := net.Dialer{Timeout: b.Timeouts.Connect}
	nc, err := d.DialContext(ctx, "tcp", b.Address)
	if err != nil {
		return nil, err // names the address and what failed
	}
	if b.Timeouts.Handshake > 0 {
		nc.SetDeadline(time.Now().Add(b.Timeouts.Handshake))
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	c, err := doveadm.NewClientConn(nc, doveadm.ClientOptions{
		Username: b.Username,
		Password: b.Password.Reveal(),
		Minor:    doveadm.MaxMinor,
	})
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("login at %s: %w", b.Address, explain(err))
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}

func explain(err error) error {
	var h *doveadm.HandshakeError
	switch {
	case errors.Is(err, doveadm.ErrLoginRefused):
		return ErrBackendLogin
	case errors.As(err, &h) && h.Phase == doveadm.PhaseGreeting && errors.Is(err, os.ErrDeadlineExceeded):
		return ErrNoProcess
	}
	return err
}

type dialFailure int

const (
	otherFailure dialFailure = iota
	refused                  // nobody listens
	noGreeting               // somebody listens, nobody serves
)

func classify(err error) dialFailure {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, ErrNoProcess):
		return noGreeting
	}
	return otherFailure
}
