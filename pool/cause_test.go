package pool

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

func TestCauseOf(t *testing.T) {
	handshake := func(phase doveadm.Phase, err error) error {
		return fmt.Errorf("login at x: %w", &doveadm.HandshakeError{Phase: phase, Err: err})
	}
	for want, errs := range map[DialCause][]error{
		CauseName:      {&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}},
		CauseConnect:   {errDown},
		CauseTLS:       {&tlsError{io.EOF}, handshake(doveadm.PhaseSTARTTLS, io.EOF), &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}},
		CauseNoProcess: {ErrNoProcess, fmt.Errorf("login at x: %w", ErrNoProcess)},
		CauseGreeting:  {errNotGreeted, handshake(doveadm.PhaseGreeting, io.EOF), handshake(doveadm.PhaseLogin, os.ErrDeadlineExceeded)},
		CauseLogin:     {ErrBackendLogin},
		CauseOther:     {errors.New("something else")},
	} {
		for _, err := range errs {
			if got := causeOf(err); got != want {
				t.Errorf("%v: %v, want %v", err, got, want)
			}
		}
	}
}
