package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsconn"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

// DialFunc opens a logged-in connection. It must return soon after ctx ends:
// Close waits for it.
type DialFunc func(ctx context.Context) (*doveadm.ClientConn, error)

// dialer opens connections to one backend.
type dialer struct {
	backend   config.Backend
	places    *places
	tls       *tlsfiles.Files // nil where TLS is off
	passwords *passwords
	stages    *stages // of a probe

	connects   histogram.Histogram // until the connection stood
	logins     histogram.Histogram // from there to the end of the login
	peerExpiry atomic.Int64        // of the backend's certificate, in seconds of UNIX; 0: not seen
}

func newDialer(b config.Backend, log hclog.Logger) *dialer {
	d := &dialer{backend: b, places: &places{address: b.Address, resolver: net.DefaultResolver}, passwords: newPasswords(b, log)}
	if b.TLS.Mode == config.TLSImplicit || b.TLS.Mode == config.TLSStartTLS {
		name := b.TLS.ServerName
		if name == "" {
			name = hostOf(b.Address)
		}
		d.tls = tlsfiles.NewClient(tlsfiles.Client{
			ServerName: name,
			CAFile:     b.TLS.CAFile, CertFile: b.TLS.CertFile, KeyFile: b.TLS.KeyFile,
			Pin:                b.TLS.Pin,
			InsecureSkipVerify: b.TLS.InsecureSkipVerify,
		}, log)
	}
	return d
}

// hostOf returns the name that the certificate of a backend has to be for: the
// host, or the domain of a service.
func hostOf(address string) string {
	if service, ok := strings.CutPrefix(address, config.ServicePrefix); ok {
		for strings.HasPrefix(service, "_") {
			_, service, _ = strings.Cut(service, ".")
		}
		return service
	}
	host, _, _ := net.SplitHostPort(address)
	return host
}

// Dial opens a logged-in connection to b. Those of a Pool resume the TLS
// sessions of others.
func Dial(ctx context.Context, b config.Backend) (*doveadm.ClientConn, error) {
	return newDialer(b, hclog.NewNullLogger()).dial(ctx)
}

// dial opens a connection with the password that the backend takes.
func (d *dialer) dial(ctx context.Context) (*doveadm.ClientConn, error) {
	return d.passwords.each(func(password config.Secret) (*doveadm.ClientConn, error) {
		begin := time.Now()
		nc, err := d.places.connect(ctx, d.backend.Timeouts.Connect)
		if err != nil {
			return nil, err
		}
		connected := time.Now()
		d.connects.Observe(connected.Sub(begin))
		if d.stages != nil {
			d.stages.begin, d.stages.connected = begin, connected
		}
		c, err := d.login(ctx, nc, password)
		if err == nil {
			d.logins.Observe(time.Since(connected))
		}
		return c, err
	})
}

// login speaks the handshakes on nc, which it closes if one fails.
func (d *dialer) login(ctx context.Context, nc net.Conn, password config.Secret) (*doveadm.ClientConn, error) {
	if t := d.backend.Timeouts.Handshake; t > 0 {
		nc.SetDeadline(time.Now().Add(t))
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		nc.Close()
		close(cut)
	})
	c, err := d.handshake(nc, password)
	if !stop() {
		<-cut
		err = context.Cause(ctx)
	} else if err != nil {
		err = d.explain(err)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("login at %s: %w", d.backend.Address, err)
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}

func (d *dialer) handshake(nc net.Conn, password config.Secret) (*doveadm.ClientConn, error) {
	o := doveadm.ClientOptions{
		Username: d.backend.Username,
		Password: password.Reveal(),
		Minor:    doveadm.MaxMinor,
	}
	switch d.backend.TLS.Mode {
	case config.TLSImplicit:
		var err error
		if nc, err = d.startTLS(nc); err != nil {
			return nil, &tlsError{err}
		}
	case config.TLSStartTLS:
		o.StartTLS = d.startTLS
	}
	if d.stages != nil {
		nc = &watched{nc, d.stages}
	}
	return doveadm.NewClientConn(nc, o)
}

func (d *dialer) startTLS(nc net.Conn) (net.Conn, error) {
	c, err := d.tls.Config()
	if err != nil {
		return nil, err
	}
	tc := tls.Client(tlsconn.New(nc, nc), c)
	begin := time.Now()
	err = tc.Handshake()
	if err == nil {
		d.peerExpiry.Store(tc.ConnectionState().PeerCertificates[0].NotAfter.Unix())
	}
	if s := d.stages; s != nil && err == nil {
		state := tc.ConnectionState()
		s.session, s.inTLS = &state, time.Since(begin)
	}
	return tc, err
}

// fullPause is how long a pool does not add connections after its backend
// showed that it has no process left.
const fullPause = time.Second

// paused reports whether a dial now would only join the queue at a backend
// that has no process left. It has one again for each connection that was
// closed here; else one dial at a time finds out. The caller holds mu.
func (p *Pool) paused() bool {
	return p.full != nil && p.freed == 0 && (p.dialing > 0 || time.Now().Before(p.pauseUntil))
}

// startDial starts a dial. It belongs to the pool and not to a waiter: one
// that leaves does not waste the connection. The caller holds mu.
func (p *Pool) startDial() {
	p.dialing++
	p.stat.Dials++
	p.freed = max(0, p.freed-1)
	epoch := p.epoch
	p.wg.Go(func() { p.dialOne(epoch) })
}

// timedOut reports whether a dial failed for want of time. Where others are
// answered that is a queue of the kernel before Dovecot that is full, or a
// process that takes too long to start.
func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func (p *Pool) dialOne(epoch uint64) {
	start := time.Now()
	client, err := p.dial(p.ctx)
	if err != nil {
		p.dialFailed(start, err)
		return
	}
	l := newLink(client, epoch, p.limits.MaxLifetime)
	tc, isTLS := client.NetConn().(*tls.Conn)
	p.noteAnswer()
	now := time.Now()
	p.mu.Lock()
	p.dialing--
	p.stat.DialTime += now.Sub(start)
	if isTLS && tc.ConnectionState().DidResume {
		p.stat.Resumed++
	}
	p.full, p.freed = nil, 0
	p.all[l] = struct{}{}
	if p.first() == nil {
		// Nobody is left whose command could tell.
		p.breaker.tell(nil)
	}
	p.rest(l, now)
	p.unlock()
	p.breaker.report()
}

// dialFailed fails the first who waits, with the breaker told, except where
// the backend answers others and let this one wait: then it is not sick but has
// no process left, or no time, and those who wait get the connections that
// there are.
func (p *Pool) dialFailed(start time.Time, err error) {
	if p.ctx.Err() != nil {
		p.mu.Lock()
		p.dialing--
		p.unlock()
		return
	}
	noGreeting, dropped := errors.Is(err, ErrNoProcess), errors.Is(err, errNotGreeted)
	if dropped {
		// That may be at once, before the backend had an occasion to answer
		// others: it has as long as if it had been silent.
		if silent := time.Now().Add(-p.patience); silent.Before(start) {
			start = silent
		}
	}
	answersOthers := p.answeredSince(start) && (noGreeting || dropped || timedOut(err))
	if answersOthers && dropped {
		// The port is right, then. Dovecot drops the connections that wait for
		// a process when it finds none for them.
		noGreeting, err = true, fmt.Errorf("%w: it closed the connection", ErrNoProcess)
	}

	p.mu.Lock()
	p.stat.DialErrors++
	p.stat.Causes[causeOf(err)]++
	p.fail(err)
	if noGreeting {
		p.stat.NoGreeting++
	}
	if noGreeting || answersOthers {
		p.full = err
		p.pauseUntil = time.Now().Add(fullPause)
		p.sweepBy(p.pauseUntil)
	}
	retired := 0
	if errors.Is(err, syscall.ECONNREFUSED) {
		// Processes of a stopped Dovecot live on with their connections and
		// answer from a configuration that is no more.
		retired = p.retire()
	}
	p.unlock() // this dial still counts: nothing is dialled in its place yet

	// The cause comes first in the log, its effect on the breaker second.
	if noGreeting {
		p.log.Warn("backend accepts connections and does not greet: raise process_limit of its service doveadm, or lower max_open here",
			"error", err, "answers_others", answersOthers)
	} else {
		p.log.Warn("cannot connect to backend", "error", err, "idle_closed", retired, "answers_others", answersOthers)
	}

	p.mu.Lock()
	p.dialing--
	w := p.first()
	switch {
	case answersOthers && (w == nil || len(p.all) > 0):
	case w == nil:
		p.breaker.tell(err)
	default:
		if !answersOthers {
			w.conn.tell(err)
		}
		p.answer(w, nil, err)
	}
	p.unlock()
	p.breaker.report()
}
