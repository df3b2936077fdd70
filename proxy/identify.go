package proxy

import (
	"context"
	"crypto/tls"

	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/identity"
)

// login is how a session finds out who its client is.
type login func(username, password string) (bool, error)

// recognize looks for a client that needs no login: that of the listener, or
// one that is known by what the connection tells. It reports whether there is
// one.
func (s *session) recognize() (bool, error) {
	if err := s.look(); err != nil {
		return false, err
	}
	if s.settings.Client != "" {
		s.client = s.settings.Client
		return true, nil
	}
	client, ok := s.proxy.snapshot.Load().known.Trusted(&s.peer)
	if ok {
		s.client = client
	}
	return ok, nil
}

// logIn checks a login. Of several clients that log in under one name it is
// that of the one which the connection tells. Who is known by a certificate
// alone may say what he likes.
func (s *session) logIn(ctx context.Context, username, password string) (bool, error) {
	snap := s.proxy.snapshot.Load()
	if err := s.look(); err != nil {
		return false, err
	}
	if client, ok := snap.known.Trusted(&s.peer); ok {
		s.client = client // after STARTTLS: before it there was no certificate
		return true, nil
	}
	client, ok := snap.known.Login(username, &s.peer)
	if !ok {
		// Takes as long as a wrong password. No client has this name.
		client = "\x00" + username
	}
	verdict, err := s.checkPassword(ctx, snap.verifier, username, client, password)
	if verdict == auth.Refused || err != nil {
		return false, err
	}
	s.client = client
	snap.clients[client].passwords.loggedIn(client, verdict, s.logger)
	return true, nil
}

// look takes in what the connection tells: after STARTTLS more than before.
func (s *session) look() error {
	p, err := identity.Of(s.settings.Name, s.socket)
	if err != nil {
		return err
	}
	if tc, ok := s.nc.(*tls.Conn); ok {
		if state := tc.ConnectionState(); len(state.VerifiedChains) > 0 {
			p.Cert = state.PeerCertificates[0]
		}
	}
	s.peer = p
	return nil
}
