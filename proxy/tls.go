package proxy

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
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsconn"
)

// tlsFailure is a TLS handshake with a client that failed.
type tlsFailure struct{ err error }

func (f *tlsFailure) Error() string { return "TLS: " + f.err.Error() }

func (f *tlsFailure) Unwrap() error { return f.err }

// startTLS speaks the TLS handshake on nc, which is the client's connection or
// has what was read ahead of it. From then on the session uses nothing else.
func (s *session) startTLS(nc net.Conn) (net.Conn, error) {
	c, err := s.settings.tls.Config()
	if err != nil {
		return nil, &tlsFailure{err}
	}
	s.records = tlsconn.New(nc, s.socket)
	tc := tls.Server(s.records, c)
	if err := tc.Handshake(); err != nil {
		return nil, &tlsFailure{err}
	}
	s.mu.Lock()
	s.nc = tc
	s.mu.Unlock()
	state := tc.ConnectionState()
	s.tls = strings.TrimPrefix(tls.VersionName(state.Version), "TLS ")
	if len(state.PeerCertificates) > 0 {
		s.subject = state.PeerCertificates[0].Subject.String()
		s.debug("client certificate", "subject", printable(s.subject))
	}
	return tc, nil
}

// clearTextRefused is a login that may not be sent in clear text. The password
// has been on the network all the same.
type clearTextRefused struct{ reason string }

func (e *clearTextRefused) Error() string { return e.reason }

// mayLogIn says whether the client may log in without more encryption than it
// has: over TLS, on this machine, or where the listener allows it by name.
func (s *session) mayLogIn() error {
	set := s.settings
	_, encrypted := s.nc.(*tls.Conn)
	switch {
	case encrypted:
		return nil
	case set.TLS.Mode == config.TLSStartTLSRequired:
		return &clearTextRefused{fmt.Sprintf("login before STARTTLS, without which listener %s takes none: set doveadm_ssl=starttls at the client", set.Name)}
	case set.InsecureClearText || isHere(s.socket):
		return nil
	case set.TLS.Mode == config.TLSStartTLS:
		return &clearTextRefused{fmt.Sprintf("login in clear text from another host: set doveadm_ssl=starttls at the client, or insecure_clear_text = true in the block of listener %s", set.Name)}
	}
	return &clearTextRefused{fmt.Sprintf("login in clear text from another host: give listener %s a tls block, or, where the network is private, insecure_clear_text = true", set.Name)}
}

// isHere reports whether the peer is on this machine.
func isHere(nc net.Conn) bool {
	switch a := nc.RemoteAddr().(type) {
	case nil, *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	}
	return false
}

const certificateHint = "does it know the authority (ssl_client_ca_file), and is the host that it connects to in the certificate?"

// goneAfterTLS reports whether a handshake failed with err because the client
// went away between the end of that of TLS and its login. So does every doveadm
// that refuses our certificate: it looks at it behind the handshake, and sends
// no alert.
func (s *session) goneAfterTLS(err error) bool {
	_, encrypted := s.nc.(*tls.Conn)
	return encrypted && errors.Is(err, io.EOF)
}

// explain says what a failed TLS handshake means to an operator.
func (f *tlsFailure) explain() string {
	var record tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	var op *net.OpError
	hint := ""
	switch text := f.err.Error(); {
	case errors.Is(f.err, os.ErrDeadlineExceeded):
		return "TLS handshake not finished within handshake_timeout (does the client begin with TLS?)"
	case errors.As(f.err, &record) && string(record.RecordHeader[:]) == "VERSI":
		return "the client does not begin with TLS: set doveadm_ssl=ssl there, and doveadm_port, without which it has no effect"
	case errors.As(f.err, &record):
		hint = "what the client says is not TLS"
	case errors.As(f.err, &op) && op.Op == "remote error" && strings.Contains(text, "certificate"):
		hint = "the client refuses our certificate: " + certificateHint
	case strings.Contains(text, "didn't provide a certificate"):
		hint = "client_ca_file of the listener asks for one"
	case errors.As(f.err, &invalid) && invalid.Reason == x509.Expired:
		hint = "the client's certificate has to be renewed"
	case strings.Contains(text, "failed to verify certificate"):
		hint = "the client's certificate has to be signed by an authority in client_ca_file of the listener"
	}
	if hint == "" {
		return f.Error()
	}
	return fmt.Sprintf("%s (%s)", f.Error(), hint)
}

// isOver reports whether the client only went away.
func (f *tlsFailure) isOver() bool {
	return errors.Is(f.err, io.EOF) || errors.Is(f.err, io.ErrUnexpectedEOF) || errors.Is(f.err, syscall.ECONNRESET) || errors.Is(f.err, net.ErrClosed)
}

// closeWrite tells the peer that nothing more is to come, in TLS and below it.
func closeWrite(nc net.Conn) error {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	err := half.CloseWrite()
	if tc, ok := nc.(*tls.Conn); ok && err == nil {
		err = closeWrite(tc.NetConn())
	}
	return err
}
