package proxy

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// deadlines bound how long a reply is waited for, by the class of its command.
type deadlines struct {
	nc     net.Conn
	class  doveadm.Class
	limits config.CommandTimeouts
	end    time.Time // of the whole command; zero: none

	// mu guards what follows: the input is sent while the reply is waited for.
	mu    sync.Mutex
	sent  bool   // the request with its input
	heard bool   // something has arrived
	over  bool   // nothing is waited for any more
	set   bool   // nc has a read deadline
	waits string // for which limit
}

// begin starts the time of the whole command. sent: it has no input that is
// still to be sent.
func (d *deadlines) begin(nc net.Conn, class doveadm.Class, t config.Timeouts, sent bool) {
	d.nc, d.class = nc, class
	d.sent, d.heard = sent, false
	switch class {
	case doveadm.ClassQuick:
		d.limits = t.Quick
	case doveadm.ClassSlow:
		d.limits = t.Slow
	default:
		d.limits = t.Normal
	}
	d.end = time.Time{}
	if d.limits.Command > 0 {
		d.end = time.Now().Add(d.limits.Command)
	}
}

// wait bounds the next read.
func (d *deadlines) wait() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bound()
}

// inputSent begins the time to the first byte, for a command with input.
func (d *deadlines) inputSent() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sent = true
	if !d.heard {
		d.bound()
	}
}

// hear notes that something has arrived.
func (d *deadlines) hear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = true
}

// stop ends the wait.
func (d *deadlines) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	d.nc.SetReadDeadline(time.Unix(1, 0))
}

// bound sets the read deadline. The caller holds mu.
func (d *deadlines) bound() {
	if d.over {
		return
	}
	limit := d.limits.Reply
	d.waits = "reply"
	if !d.heard {
		limit = d.limits.FirstReply
		d.waits = "first_reply"
		if !d.sent {
			limit = 0
		}
	}
	var until time.Time
	if limit > 0 {
		until = time.Now().Add(limit)
	}
	if !d.end.IsZero() && (until.IsZero() || d.end.Before(until)) {
		until = d.end
		d.waits = "command"
	}
	if d.set || !until.IsZero() {
		d.set = !until.IsZero()
		d.nc.SetReadDeadline(until)
	}
}

// reason says which limit was reached.
func (d *deadlines) reason(backend string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	limit, what := d.limits.Command, "end its answer"
	switch d.waits {
	case "first_reply":
		limit, what = d.limits.FirstReply, "answer"
	case "reply":
		limit, what = d.limits.Reply, "go on with its answer"
	}
	return fmt.Sprintf("backend %s did not %s within %s (timeouts.%s.%s)", backend, what, limit, d.class, d.waits)
}
