package doveadm_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

func TestDial(t *testing.T) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 2, Password: "secret"})
	c, err := doveadm.Dial(t.Context(), srv.Addr(), doveadm.ClientOptions{Password: "secret", Minor: doveadm.MaxMinor})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.ServerMinor() != 2 || !c.Logs() {
		t.Errorf("minor %d, logs %v", c.ServerMinor(), c.Logs())
	}
	if err := do(t, c, "alice").Close(); err != nil {
		t.Error(err)
	}
}

func TestDialUNIXSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doveadm-server")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	served := make(chan error, 1)
	go func() {
		nc, err := listener.Accept()
		if err == nil {
			defer nc.Close()
			err = doveadm.NewServerConn(nc, 0).Handshake(nil)
		}
		served <- err
	}()
	c, err := doveadm.Dial(t.Context(), path, doveadm.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestDialFails(t *testing.T) {
	refuses := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 2, Password: "other"})
	closed := doveadmtest.NewServer(t, doveadmtest.Options{})
	closed.Close()
	tests := map[string]struct {
		address string
		want    error // inside a HandshakeError
	}{
		"refused":      {refuses.Addr(), doveadm.ErrLoginRefused},
		"nobody there": {closed.Addr(), nil},
		"no address":   {"nowhere", nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := doveadm.Dial(t.Context(), tc.address, doveadm.ClientOptions{Password: "secret", Minor: doveadm.MaxMinor})
			if err == nil {
				c.Close()
				t.Fatal("connected")
			}
			var herr *doveadm.HandshakeError
			if errors.As(err, &herr) != (tc.want != nil) {
				t.Fatalf("got %v", err)
			}
			if herr != nil && (herr.Phase != doveadm.PhaseLogin || !errors.Is(err, tc.want)) {
				t.Errorf("got %v, want %v in the phase %v", err, tc.want, doveadm.PhaseLogin)
			}
		})
	}
}

func TestDialContextEndsBeforeTheGreeting(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no time left")
	closed := make(chan error, 1)
	go func() {
		nc, err := listener.Accept()
		if err != nil {
			closed <- err
			return
		}
		defer nc.Close()
		if _, err := nc.Read(make([]byte, 100)); err != nil {
			closed <- err
			return
		}
		cancel(cause)
		_, err = io.Copy(io.Discard, nc)
		closed <- err
	}()
	_, err = doveadm.Dial(ctx, listener.Addr().String(), doveadm.ClientOptions{})
	var herr *doveadm.HandshakeError
	if !errors.As(err, &herr) || herr.Phase != doveadm.PhaseGreeting || !errors.Is(err, cause) {
		t.Errorf("got %v, want %v in the phase %v", err, cause, doveadm.PhaseGreeting)
	}
	if err := <-closed; err != nil {
		t.Errorf("the connection was not closed: %v", err)
	}
}
