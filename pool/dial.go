package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// DialFunc opens a logged-in connection. It must return soon after ctx ends:
// Close waits for it.
type DialFunc func(ctx context.Context) (*doveadm.ClientConn, error)

func dialBackend(b config.Backend) DialFunc {
	return func(ctx context.Context) (*doveadm.ClientConn, error) { return Dial(ctx, b) }
}

// Dial opens a logged-in connection to b.
func Dial(ctx context.Context, b config.Backend) (*doveadm.ClientConn, error) {
	d := net.Dialer{Timeout: b.Timeouts.Connect}
	nc, err := d.DialContext(ctx, "tcp", b.Address)
	if err != nil {
		return nil, err // names the address and what failed
	}
	return login(ctx, nc, b)
}

// login speaks the handshake on nc, which it closes if it fails.
func login(ctx context.Context, nc net.Conn, b config.Backend) (*doveadm.ClientConn, error) {
	if b.Timeouts.Handshake > 0 {
		nc.SetDeadline(time.Now().Add(b.Timeouts.Handshake))
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		nc.Close()
		close(cut)
	})
	c, err := doveadm.NewClientConn(nc, doveadm.ClientOptions{
		Username: b.Username,
		Password: b.Password.Reveal(),
		Minor:    doveadm.MaxMinor,
	})
	if !stop() {
		<-cut
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("login at %s: %w", b.Address, explain(err))
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}

// explain says what the failure of a handshake means to an operator.
func explain(err error) error {
	var h *doveadm.HandshakeError
	switch {
	case errors.Is(err, doveadm.ErrLoginRefused):
		return ErrBackendLogin
	case !errors.As(err, &h) || h.Phase != doveadm.PhaseGreeting:
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrNoProcess
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%w (is this the port of its service doveadm, and one without ssl?)", err)
	}
	return err
}

// fullPause is how long a pool does not add connections after its backend
// showed that it has no process left.
const fullPause = time.Second

// paused reports whether a dial now would only join the queue at a backend
// that has no process left. It has one again for each connection that was
// closed here; else one dial at a time finds out. The caller holds mu.
func (p *Pool) paused() bool {
	return p.full && p.freed == 0 && (p.dialing > 0 || time.Now().Before(p.pauseUntil))
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

func (p *Pool) dialOne(epoch uint64) {
	start := time.Now()
	client, err := p.dial(p.ctx)
	if err != nil {
		p.dialFailed(start, err)
		return
	}
	l := newLink(client, epoch, p.limits.MaxLifetime)
	p.noteAnswer()
	now := time.Now()
	p.mu.Lock()
	p.dialing--
	p.stat.DialTime += now.Sub(start)
	p.full, p.freed = false, 0
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
// the backend answers others: then it is not sick but has no process left, and
// those who wait get the connections that there are.
func (p *Pool) dialFailed(start time.Time, err error) {
	if p.ctx.Err() != nil {
		p.mu.Lock()
		p.dialing--
		p.unlock()
		return
	}
	noGreeting := errors.Is(err, ErrNoProcess)
	answersOthers := noGreeting && p.answeredSince(start)

	p.mu.Lock()
	p.stat.DialErrors++
	if noGreeting {
		p.stat.NoGreeting++
		p.full = true
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
		p.log.Warn("cannot connect to backend", "error", err, "idle_closed", retired)
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
