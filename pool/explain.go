package pool

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

// ErrNoProcess is what a backend without a free process looks like: the kernel
// accepts the connection and nobody greets. Dovecot's limit is process_limit
// of the service doveadm, 100 by default.
var ErrNoProcess = errors.New("connected, but the backend does not greet (has it reached the process_limit of its service doveadm?)")

// errNotGreeted is a connection that the backend closed before it greeted. That
// is a wrong port, or a Dovecot at its process_limit that drops what waits.
var errNotGreeted = errors.New("closed before the greeting")

// ErrBackendLogin is a backend that refuses our name or password.
var ErrBackendLogin = errors.New("the backend refused the login (username and password of the backend block, doveadm_password of the backend)")

// tlsError is a TLS handshake that failed before the backend could greet.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }

func (e *tlsError) Unwrap() error { return e.err }

// explain says what the failure of a handshake means to an operator.
func (d *dialer) explain(err error) error {
	var (
		h        *doveadm.HandshakeError
		early    *tlsError
		implicit = d.backend.TLS.Mode == config.TLSImplicit
		inTLS    = errors.As(err, &early)
	)
	greeting := inTLS
	if errors.As(err, &h) {
		greeting = h.Phase == doveadm.PhaseGreeting
		inTLS = h.Phase == doveadm.PhaseSTARTTLS
	}
	hint := ""
	switch {
	case errors.Is(err, doveadm.ErrLoginRefused):
		return ErrBackendLogin
	case errors.Is(err, doveadm.ErrNoSTARTTLS):
		hint = "its listener needs ssl = yes, and its tls block here mode = \"implicit\""
	case greeting && errors.Is(err, os.ErrDeadlineExceeded) && implicit:
		return fmt.Errorf("%w; or the port speaks no TLS: it needs ssl = yes, or the tls block here mode = \"starttls\"", ErrNoProcess)
	case greeting && errors.Is(err, os.ErrDeadlineExceeded):
		return ErrNoProcess
	case closedByPeer(err) && inTLS && implicit:
		hint = "does its listener have ssl = yes? Without it, write mode = \"starttls\" in the tls block here"
	case closedByPeer(err) && inTLS:
		hint = "does it have a certificate? Its log says more"
	case closedByPeer(err) && greeting:
		return fmt.Errorf("%w: %w (is this the port of its service doveadm, and one without ssl? One with ssl needs tls { mode = \"implicit\" } here)", errNotGreeted, err)
	default:
		hint = explainTLS(err)
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, hint)
}

// explainTLS returns what to do about an error of TLS, or nothing.
func explainTLS(err error) string {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		pin      *tlsfiles.PinError
		record   tls.RecordHeaderError
		op       *net.OpError
	)
	switch {
	case errors.As(err, &unknown):
		return "set ca_file in the tls block of the backend to the authority that signed it"
	case errors.As(err, &hostname):
		return "set server_name in the tls block of the backend to a name that it is for"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of the backend, and look at the clocks of both"
	case errors.As(err, &pin):
		return "if the key of the backend was changed on purpose, set pin in its tls block to the new one"
	case errors.As(err, &record):
		return "what answers there does not speak TLS"
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(err.Error(), "certificate"):
		// An alert, of which package tls has no type.
		return "it wants a certificate of the proxy's that it trusts: cert_file and key_file in the tls block of the backend"
	}
	return ""
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
