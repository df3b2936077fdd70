package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Probe is what one look at a backend found out.
type Probe struct {
	Err error // why there is no login; nil: there was one

	Connect  time.Duration // to the open connection
	TLS      time.Duration // its handshake; 0 without
	Greeting time.Duration // from our first word to the backend's
	Login    time.Duration // from its greeting to the end of the login, without TLS

	Minor   doveadm.Minor        // of the protocol version 1.x that it speaks
	Session *tls.ConnectionState // nil without TLS

	// Processes of its service doveadm, the probe's own among them, and their
	// limit. Limit is 0 where it could not be read, for the reason LimitErr.
	Processes int
	Limit     int
	LimitErr  error
}

// Refused reports whether trying again does not help, as with a wrong password,
// a bad certificate or a name that does not exist.
func (p *Probe) Refused() bool {
	var (
		dns     *net.DNSError
		op      *net.OpError
		network net.Error
	)
	switch {
	case p.Err == nil, errors.Is(p.Err, ErrNoProcess), errors.Is(p.Err, context.DeadlineExceeded), closedByPeer(p.Err):
		return false
	case errors.As(p.Err, &dns):
		return dns.IsNotFound
	case errors.As(p.Err, &op) && op.Op == "remote error": // an alert of TLS
		return true
	}
	return !errors.As(p.Err, &network)
}

// probeTime bounds each step of a probe whose backend has no timeout of its
// own for it.
const probeTime = 10 * time.Second

// Look logs in to a backend and asks it for its process limit, on a connection
// of its own.
func Look(ctx context.Context, b config.Backend) *Probe {
	p := &Probe{}
	if b.Timeouts.Connect == 0 {
		b.Timeouts.Connect = probeTime
	}
	if b.Timeouts.Handshake == 0 {
		b.Timeouts.Handshake = probeTime
	}
	d := newDialer(b, hclog.NewNullLogger())
	d.stages = &stages{}
	c, err := d.dial(ctx)
	end := time.Now()
	s := d.stages
	if !s.connected.IsZero() {
		p.Connect = s.connected.Sub(s.begin)
	}
	p.Session, p.TLS = s.session, s.inTLS
	if err != nil {
		p.Err = err
		return p
	}
	defer c.Close()
	p.Minor = c.ServerMinor()
	before := time.Duration(0) // of TLS, before the greeting
	if b.TLS.Mode == config.TLSImplicit {
		before = s.inTLS
	}
	p.Greeting = s.greeted.Sub(s.connected) - before
	p.Login = end.Sub(s.greeted) - (s.inTLS - before)
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	p.Processes, p.Limit, p.LimitErr = processLimit(ctx, c)
	return p
}

// processLimit asks Dovecot's master about the service that c is connected to.
// The columns are those of cmd_service_status in doveadm-master.c: name,
// process_count, process_avail, process_limit, ...
func processLimit(ctx context.Context, c *doveadm.ClientConn) (processes, limit int, err error) {
	reply, err := c.Do(ctx, &doveadm.Command{Name: "service status", Args: []string{"doveadm"}})
	if err != nil {
		return 0, 0, err
	}
	var fields []string
	for reply.Next() {
		text, err := reply.Text()
		if err != nil {
			return 0, 0, err
		}
		fields = append(fields, text)
	}
	if err := reply.Err(); err != nil {
		return 0, 0, err
	}
	if len(fields) < 4 || fields[0] != "doveadm" {
		return 0, 0, fmt.Errorf("the backend's answer has no process_limit: %.100q", fields)
	}
	if processes, err = strconv.Atoi(fields[1]); err != nil {
		return 0, 0, err
	}
	limit, err = strconv.Atoi(fields[3])
	return processes, limit, err
}

// stages notes when a dial has got how far.
type stages struct {
	begin     time.Time
	connected time.Time
	greeted   time.Time
	inTLS     time.Duration
	session   *tls.ConnectionState
}

// watched is a connection whose first bytes are the greeting.
type watched struct {
	net.Conn
	stages *stages
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 && w.stages.greeted.IsZero() {
		w.stages.greeted = time.Now()
	}
	return n, err
}
