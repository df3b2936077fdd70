package pool

import (
	"crypto/tls"
	"errors"
	"net"
	"os"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// DialCause is the step at which a dial failed. It stands in metrics.
type DialCause int

// The steps of a dial.
const (
	CauseName      DialCause = iota // the host name has no address
	CauseConnect                    // nobody listens, or no answer in time
	CauseTLS                        // the TLS handshake, certificates
	CauseNoProcess                  // accepted and never greeted
	CauseGreeting                   // what answers is no doveadm server
	CauseLogin                      // the backend refuses our name or password
	CauseOther
	Causes = iota // how many there are
)

func (c DialCause) String() string {
	return [Causes]string{"name", "connect", "tls", "no-process", "greeting", "login", "other"}[c]
}

// causeOf returns the step at which a dial failed with err.
func causeOf(err error) DialCause {
	var (
		dns     *net.DNSError
		op      *net.OpError
		early   *tlsError
		verify  *tls.CertificateVerificationError
		refused *doveadm.HandshakeError
	)
	switch {
	case errors.As(err, &dns):
		return CauseName
	case errors.As(err, &op) && op.Op == "dial":
		return CauseConnect
	case errors.Is(err, ErrNoProcess):
		return CauseNoProcess
	case errors.Is(err, ErrBackendLogin):
		return CauseLogin
	case errors.As(err, &early), errors.As(err, &verify), explainTLS(err) != "":
		return CauseTLS
	case errors.As(err, &refused) && refused.Phase == doveadm.PhaseSTARTTLS:
		return CauseTLS
	case errors.As(err, &refused), errors.Is(err, errNotGreeted), closedByPeer(err), errors.Is(err, os.ErrDeadlineExceeded):
		return CauseGreeting
	}
	return CauseOther
}
