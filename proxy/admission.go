package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// A connection that is refused is told so, within refusalTime, unless there are
// maxRefusals of them already.
const (
	refusalTime = time.Second
	maxRefusals = 64
)

// admission is what counts against the limits of sessions. Proxy.mu guards it.
type admission struct {
	addresses map[netip.Addr]int // sessions by address of the client
	clients   map[string]int     // logged-in sessions by name of the client
	refusals  int                // connections that are being told so
	muted     muted
}

// admit starts a session on nc unless a limit is reached.
func (p *Proxy) admit(l *listener, nc net.Conn) {
	address := addressOf(nc)
	p.mu.Lock()
	why, reason := p.overLimit(l, address)
	if reason == "" {
		s := newSession(p, l, nc)
		s.address = address
		p.sessions[s] = struct{}{}
		l.sessions.Add(1)
		if address.IsValid() {
			p.admission.addresses[address]++
		}
		p.serving.Go(s.serve)
		p.mu.Unlock()
		return
	}
	tell := p.admission.refusals < maxRefusals && !p.draining && l.config().TLS.Mode != config.TLSImplicit
	if tell {
		p.admission.refusals++
		p.serving.Go(func() { p.refuse(nc, reason) })
	}
	log, unsaid := p.admission.muted.mayLog(time.Now())
	p.mu.Unlock()
	p.meters.refused[why].Add(1)
	p.meters.failures.add(Failure{Kind: "connection", What: why.String(), At: time.Now(), Peer: peerName(nc), Reason: reason})
	if log {
		args := []any{"listener", l.config().Name, "peer", peerName(nc), "outcome", why.String(), "reason", reason}
		if unsaid > 0 {
			args = append(args, "others_not_logged", unsaid)
		}
		p.log.Warn("connection refused", args...)
	}
	if !tell {
		nc.Close()
	}
}

// overLimit returns why there shall be no other session, or "". The caller
// holds mu.
func (p *Proxy) overLimit(l *listener, address netip.Addr) (why connRefusal, reason string) {
	limits := p.snapshot.Load().config.Limits
	perListener := l.config().MaxSessions
	switch {
	case p.draining:
		return refusedEnding, "shutting down"
	case len(p.sessions) >= limits.MaxSessions:
		return refusedSessions, "limits.max_sessions is reached"
	case perListener > 0 && l.sessions.Load() >= int64(perListener):
		return refusedListener, "max_sessions of the listener is reached"
	case limits.MaxPerAddress > 0 && p.admission.addresses[address] >= limits.MaxPerAddress:
		return refusedAddress, "limits.max_sessions_per_address is reached"
	}
	return refusedResources, p.resources.exhausted(int64(len(p.sessions)) + p.spool.files.Load())
}

// refuse tells a client why it is not let in, and closes.
func (p *Proxy) refuse(nc net.Conn, reason string) {
	nc.SetDeadline(time.Now().Add(refusalTime))
	if doveadm.NewServerConn(nc, 0).Refuse(logPrefix+reason) == nil && closeWrite(nc) == nil {
		io.CopyN(io.Discard, nc, lingerBytes)
	}
	nc.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.admission.refusals--
}

// left takes a session out of the books.
func (p *Proxy) left(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
	s.listener.sessions.Add(-1)
	if s.address.IsValid() {
		decrement(p.admission.addresses, s.address)
	}
	if s.counted {
		decrement(p.admission.clients, s.client)
	}
}

func decrement[K comparable](m map[K]int, key K) {
	if m[key]--; m[key] == 0 {
		delete(m, key)
	}
}

// tooMany is a login that is right and one too many.
type tooMany struct{ reason string }

func (e *tooMany) Error() string { return e.reason }

// admitClient counts a session of the client that s has logged in as, or
// returns a tooMany.
func (p *Proxy) admitClient(s *session) error {
	limit := p.snapshot.Load().clients[s.client].MaxSessions
	p.mu.Lock()
	defer p.mu.Unlock()
	if limit > 0 && p.admission.clients[s.client] >= limit {
		return &tooMany{fmt.Sprintf("max_sessions of client %s is reached", printable(s.client))}
	}
	p.admission.clients[s.client]++
	s.counted = true
	return nil
}

// addressOf returns the address of a client, the zero Addr where it has none.
func addressOf(nc net.Conn) netip.Addr {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// muted keeps a line that would come too often out of the log.
type muted struct {
	since time.Time
	lines int // since then
}

// perSecond is how many of such lines there may be in a second.
const perSecond = 20

// mayLog reports whether a line may be logged, and how many were not before it.
func (m *muted) mayLog(now time.Time) (ok bool, unsaid int) {
	if now.Sub(m.since) >= time.Second {
		unsaid = max(0, m.lines-perSecond)
		*m = muted{since: now}
	}
	m.lines++
	return m.lines <= perSecond, unsaid
}
