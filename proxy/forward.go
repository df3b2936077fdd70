package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/internal/moves"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// result is what became of a command, for its log line.
type result struct {
	outcome outcome
	status  doveadm.Status // that the client got
	shard   string
	backend string
	reason  string // of anything but an answer
	wait    time.Duration
	bytes   int64 // of reply
	retried bool
	hops    int // referrals followed

	meter     *backendMeter // of the backend, or of the one that was asked first; nil: none was
	asked     string        // the name of the one that was asked first
	firstByte time.Duration // from the connection to the first byte of the reply; 0: there was none
}

// on returns the backend that ran the command, or else the one that should have.
func (r *result) on() string {
	if r.backend != "" {
		return r.backend
	}
	return r.asked
}

// run runs the command to its end and reports whether the session goes on.
func (t *task) run() (keep bool) {
	start := time.Now()
	s := t.session
	s.commands.Add(1)
	s.proxy.commands.Add(1)
	s.list(t, start)
	t.trace = s.proxy.traceOf(t)
	defer func() {
		s.unlist(t)
		s.commands.Add(-1)
		s.proxy.commands.Add(-1)
	}()
	if t.input != nil {
		t.read = t.input.size
	}
	keep = t.execute()
	t.input.close()
	c, ok := s.proxy.snapshot.Load().clients[s.client]
	if ok {
		c.budget.charge(t.res.bytes + t.read)
		c.counts.commands.Add(1)
		c.counts.bytes.Add(uint64(t.res.bytes))
		if t.res.outcome.failed() {
			c.counts.failed.Add(1)
		}
	}
	now := time.Now()
	took := now.Sub(start)
	t.count(c, now, took)
	t.log(took)
	t.record(took)
	t.tell(start, took)
	if t.trace != nil {
		t.trace.end(t)
	}
	return keep
}

func (t *task) execute() (keep bool) {
	s := t.session
	snap := s.proxy.snapshot.Load()
	if _, ok := snap.clients[s.client]; !ok {
		t.res = result{outcome: denied, reason: fmt.Sprintf("client %s is no longer in the configuration", s.client)}
		t.answer(doveadm.CodeNoPerm)
		return false
	}
	if err := s.proxy.audit.Refused(); err != nil {
		t.res = result{outcome: unaudited, reason: err.Error()}
		return t.answer(doveadm.CodeTempFail)
	}
	if err := snap.clients[s.client].budget.begin(waits{t}); err != nil {
		t.res = result{outcome: overRate, reason: err.Error()}
		if s.wasCut() != nil || t.wasKilled() != nil {
			return t.noConnection(err)
		}
		return t.answer(doveadm.CodeTempFail)
	}
	if t.refused != nil {
		t.res = result{outcome: t.refused.outcome, reason: t.refused.reason}
		return t.answer(t.refused.code)
	}
	waited, refused := t.enter(snap)
	if refused != nil {
		t.res = result{outcome: refused.outcome, reason: refused.reason, wait: waited}
		return t.answer(refused.code)
	}
	defer t.depart()
	for {
		t.res = result{wait: waited}
		keep, err := t.forward(snap)
		if !errors.Is(err, pool.ErrClosed) && !errors.Is(err, router.ErrClosed) {
			return keep
		}
		// A reload closed the pool, or the routes, between our look at the
		// snapshot and now.
		next := s.proxy.snapshot.Load()
		if next == snap {
			return t.answer(doveadm.CodeTempFail)
		}
		snap = next
	}
}

// verdict is what follows an exchange with a backend.
type verdict int

const (
	finished verdict = iota // the client has its reply, the session goes on
	over                    // the session ends
	repeat                  // to be sent again, on a fresh connection
	refer                   // to be sent to the server that relay.referral names
)

// forward routes the command and runs it on a backend. Only pool.ErrClosed and
// router.ErrClosed are returned as errors, with nothing told to the client yet.
func (t *task) forward(snap *snapshot) (keep bool, err error) {
	if refused := t.route(snap); refused != nil {
		t.res.outcome, t.res.reason = refused.outcome, refused.reason
		if refused == routesClosed {
			return true, router.ErrClosed
		}
		if why := t.session.wasCut(); why != nil && refused.outcome == noRoute {
			t.res.outcome, t.res.reason = clientGone, why.Error()
			return false, nil
		}
		if by := t.wasKilled(); by != nil {
			t.res.outcome, t.res.reason = ended, by.Error()
		}
		return t.answer(refused.code), nil
	}
	wanted := pool.Shared
	if t.request.info.Kind == doveadm.GlobalCommand || t.request.info.Tunnel {
		wanted = pool.Fresh
	}
	use := wanted
	shard, err := t.serving(snap)
	if errors.Is(err, pool.ErrClosed) {
		return true, err
	}
	if err != nil {
		t.res.outcome, t.res.reason = noRoute, err.Error()
		return t.answer(doveadm.CodeTempFail), nil
	}
	t.client = snap.clients[t.session.client]
	t.res.asked, t.res.meter = shard.members[0].Name(), shard.members[0].meter
	backends, refused := t.whenNotPaused(shard)
	if refused != nil {
		t.res.outcome, t.res.reason = refused.outcome, refused.reason
		return t.answer(refused.code), nil
	}
	t.res.asked, t.res.meter = backends[0].Name(), backends[0].meter
	start := time.Now()
	err = t.client.place(waits{t}, shard.members[0].limits.AcquireTimeout)
	t.res.wait += time.Since(start)
	if err != nil {
		return t.noConnection(err), nil
	}
	defer t.client.release()
	var visited []string // addresses, once referrals begin
	for {
		rl := &t.relay
		*rl = relay{task: t}
		release, err := t.acquire(backends, use)
		if err != nil {
			if errors.Is(err, pool.ErrClosed) {
				t.res.outcome, t.res.reason = unavailable, err.Error()
				return true, err
			}
			return t.noConnection(err), nil
		}
		from := rl.from
		t.res.backend, t.res.meter = from.Name(), from.meter
		v := t.exchange(rl)
		release()
		switch v {
		case repeat:
			t.res.retried = true
			from.meter.retries.Add(1)
			use = pool.Fresh
			continue
		case refer:
			t.res.hops++
			from.meter.referrals.Add(1)
			visited = append(visited, from.address)
			next, err := snap.referred(from, rl.referral, visited)
			if err == nil && t.res.hops > snap.config.Referrals.MaxHops {
				err = errors.New("more referrals than referrals.max_hops")
			}
			if err == nil {
				err = t.request.decrementTTL()
			}
			if errors.Is(err, pool.ErrClosed) {
				return true, err
			}
			if err != nil {
				t.res.outcome = referralRefused
				t.res.reason = fmt.Sprintf("backend %s refers to %s: %v", from.Name(), printable(rl.referral), err)
				return t.answer(doveadm.CodeTempFail), nil
			}
			backends, use = []*backend{next}, wanted
			continue
		}
		return v == finished, nil
	}
}

// noConnection ends a command of which nothing was sent to a backend.
func (t *task) noConnection(err error) (keep bool) {
	if why := t.session.wasCut(); why != nil {
		t.res.outcome, t.res.reason = clientGone, why.Error()
		return false
	}
	if by := t.wasKilled(); by != nil {
		t.res.outcome, t.res.reason = ended, by.Error()
		return t.answer(doveadm.CodeTempFail)
	}
	t.res.outcome, t.res.reason = unavailable, err.Error()
	return t.answer(doveadm.CodeTempFail)
}

// acquire takes a connection for the relay to the first backend that has one,
// and for a tunnel one of the few places for tunnels. The error has those of
// all.
func (t *task) acquire(backends []*backend, use pool.Use) (release func(), err error) {
	start := time.Now()
	defer func() { t.res.wait += time.Since(start) }()
	for i, b := range backends {
		release := func() {}
		var why error
		if t.request.info.Tunnel {
			release, why = b.takeTunnel(waits{t}, t.client)
		}
		if why == nil {
			if why = b.AcquireInto(queues{t}, &t.relay.conn, use, t.client.forPool()); why == nil {
				for _, failed := range backends[:i] {
					failed.meter.failovers.Add(1)
				}
				t.relay.from = b
				return release, nil
			}
		}
		release()
		givenUp := queues{t}.Err() != nil
		why = fmt.Errorf("backend %s: %w", b.Name(), why)
		if err == nil {
			err = why
		} else {
			err = fmt.Errorf("%w; %w", err, why)
		}
		if errors.Is(why, pool.ErrClosed) || givenUp {
			break // replaced by a reload, or given up: no reason for the next one
		}
	}
	return nil, err
}

// exchange sends the command, relays the reply and gives the connection back.
func (t *task) exchange(rl *relay) verdict {
	s := t.session
	if !s.hold(t, &rl.conn, rl.from) {
		s.drop(t)
		rl.release(pool.Abandoned)
		if t.noConnection(nil) {
			return finished
		}
		return over
	}
	if err := s.proxy.stale(); err != nil {
		// Since the route was asked it has become unsure.
		s.drop(t)
		rl.release(pool.Abandoned)
		t.res.outcome, t.res.reason = noRoute, err.Error()
		if t.answer(doveadm.CodeTempFail) {
			return finished
		}
		return over
	}
	defer func() {
		if v := recover(); v != nil {
			s.drop(t)
			rl.release(pool.Abandoned)
			panic(v)
		}
	}()
	rl.began = time.Now()
	rl.from.retries.command(rl.began)
	rl.mayRepeat = !t.res.retried && t.input == nil && rl.conn.Reused() && t.request.repeatable()
	err := rl.send()
	if err == nil {
		err = rl.run()
	}
	rl.stopInput()
	t.res.bytes, t.res.firstByte = rl.bytes, rl.firstByte
	if err == nil && t.request.info.Tunnel && rl.scan.Status().OK {
		return t.tunnel(rl)
	}
	s.drop(t)
	if err != nil || !rl.scan.Done() {
		return t.interrupted(rl, err)
	}
	return t.finish(rl)
}

// finish ends a command whose reply has arrived whole. The connection goes
// back first: a slow client shall not hold a process of the backend.
func (t *task) finish(rl *relay) verdict {
	status := rl.scan.Status()
	after := pool.Answered
	// After -v and -D a server of 2.4 logs more for the next command than it was
	// told to: debug lines, which would reach whoever has the connection then.
	louder := (t.cmd.Verbose || t.cmd.Debug) && rl.client().ServerMinor() >= doveadm.MinorExtraFields
	if t.request.info.Kind != doveadm.GlobalCommand && !rl.stray && rl.inputDone && !louder &&
		(status.OK || status.Code == doveadm.CodeNoUser || status.Code == doveadm.CodeNotFound) {
		after = pool.Reusable
	}
	rl.release(after)
	if status.Code == doveadm.CodeReferral {
		if !t.out.started && rl.bytes == 0 {
			t.out.forget()
			return refer
		}
		// Rows have been passed on that another server would send again.
		t.res.outcome = referralRefused
		t.res.reason = fmt.Sprintf("backend %s refers to %s after it has begun to answer", t.res.backend, printable(rl.referral))
		return t.fail(t.res.reason)
	}
	t.res.outcome, t.res.status = answered, status
	return t.written()
}

// written waits until the client has the reply.
func (t *task) written() verdict {
	if err := t.out.finish(); err != nil {
		t.res.outcome, t.res.reason = clientGone, err.Error()
		return over
	}
	return finished
}

// fail ends a reply with a temporary failure and its reason.
func (t *task) fail(reason string) verdict {
	t.res.status = doveadm.Failure(doveadm.CodeTempFail)
	t.out.log(doveadm.LogError, reason)
	t.out.end(t.res.status)
	return t.written()
}

// interrupted ends a command whose reply did not arrive whole.
func (t *task) interrupted(rl *relay, err error) verdict {
	if t.out.err != nil {
		// The command runs on at the backend, whose reply nobody wants.
		rl.release(pool.Abandoned)
		t.out.abandon()
		t.res.outcome, t.res.reason = clientGone, t.out.err.Error()
		return over
	}
	if why := t.session.wasCut(); why != nil {
		rl.release(pool.Abandoned)
		t.out.abandon()
		t.res.outcome, t.res.reason = clientGone, why.Error()
		return over
	}
	before := !rl.replied
	var refused *refusal
	by := t.wasKilled()
	switch {
	case by != nil:
		rl.release(pool.Abandoned)
		t.res.outcome, t.res.reason = ended, by.Error()
	case errors.As(err, &refused):
		rl.release(pool.Abandoned)
		t.res.outcome, t.res.reason = refused.outcome, refused.reason
		if t.answer(refused.code) {
			return finished
		}
		return over
	case rl.stuck.Load():
		rl.release(pool.Failed)
		t.res.outcome = timedOut
		t.res.reason = rl.stuckReason(t.res.backend)
	case errors.Is(err, os.ErrDeadlineExceeded):
		rl.release(pool.Failed)
		t.res.outcome = timedOut
		t.res.reason = rl.deadlines.reason(t.res.backend)
	case before && rl.mayRepeat && !t.out.started && t.mayRetry(rl.from):
		rl.release(pool.Abandoned)
		t.out.forget()
		return repeat
	case before && closedByPeer(err):
		// So Dovecot answers a bad search query, too.
		rl.release(pool.Abandoned)
		t.res.outcome = unanswered
		t.res.reason = fmt.Sprintf("backend %s closed the connection without a reply (wrong arguments, or a crash: see its log)", t.res.backend)
	case t.session.proxy.stale() != nil:
		rl.release(pool.Abandoned)
		t.res.outcome, t.res.reason = lost, "cut in the middle of the command: "+moves.ErrStale.Error()
	case rl.conn.Severed():
		rl.release(pool.Failed)
		t.res.outcome = lost
		t.res.reason = fmt.Sprintf("an operator took backend %s down in the middle of the command", t.res.backend)
	default:
		rl.release(pool.Failed)
		t.res.outcome = lost
		t.res.reason = fmt.Sprintf("backend %s was lost in the middle of the command: %v", t.res.backend, err)
	}
	if rl.scan.Fields() > 0 || rl.scan.MidField() {
		columns, known := rl.columns()
		if !known {
			// Nobody can say where the row would end.
			t.out.log(doveadm.LogError, t.res.reason)
			t.out.finish()
			return over
		}
		t.out.pad(&rl.scan, columns)
	}
	return t.fail(t.res.reason)
}

// closedByPeer reports whether err is the end of a connection that the other
// side closed. A process that dies with unread input closes with a reset.
func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// answer sends a failure that the proxy itself makes up, with the reason, and
// reports whether the session goes on.
func (t *task) answer(code string) (keep bool) {
	t.res.status = doveadm.Failure(code)
	t.out.log(doveadm.LogError, t.res.reason)
	t.out.end(t.res.status)
	return t.out.finish() == nil && t.res.outcome != clientGone
}

// log writes the one line that a command leaves.
func (t *task) log(took time.Duration) {
	level := hclog.Info
	switch t.res.outcome {
	case unavailable, lost, timedOut, noRoute, onHold, loops, referralRefused:
		level = hclog.Error
	case unanswered, denied, overRate, unaudited, paused, ended:
		level = hclog.Warn
	}
	s := t.session
	log := s.proxy.log
	if !log.IsInfo() && level == hclog.Info {
		return
	}
	unsaid := 0
	if c, ok := s.proxy.snapshot.Load().clients[s.client]; ok && t.res.outcome == overRate {
		// A client that is too fast shall not fill the log, too.
		if ok, unsaid = c.budget.mayLog(); !ok {
			return
		}
	}
	room := [17]logs.Field{logs.Text("peer", s.peerName), logs.Number("session", int64(s.id))}
	fields := room[:2]
	if s.tls != "" {
		fields = append(fields, logs.Text("tls", s.tls))
	}
	fields = append(fields,
		logs.Text("client", printable(s.client)),
		logs.Text("user", printable(t.cmd.User)),
		logs.Text("command", printable(t.cmd.Name)),
		logs.Text("outcome", t.res.outcome.String()),
		logs.Text("status", t.res.status.String()),
		logs.Text("shard", t.res.shard),
		logs.Text("backend", t.res.on()),
		logs.Millis("wait_ms", t.res.wait),
		logs.Millis("duration_ms", took),
		logs.Number("bytes", t.res.bytes),
	)
	if t.res.retried {
		fields = append(fields, logs.True("retried"))
	}
	if t.res.hops > 0 {
		fields = append(fields, logs.Number("referrals", int64(t.res.hops)))
	}
	if unsaid > 0 {
		fields = append(fields, logs.Number("others_not_logged", int64(unsaid)))
	}
	if t.res.reason != "" {
		fields = append(fields, logs.Text("reason", printable(t.res.reason)))
	}
	logs.Log(log, level, logs.CommandMessage, fields...)
}

// takeTunnel waits for a place for a tunnel to b. Bulk clients have half of
// them at most.
func (b *backend) takeTunnel(ctx context.Context, who client) (release func(), err error) {
	if b.limits.MaxTunnels == 0 {
		return func() {}, errors.New("pool.max_tunnels allows no tunnels")
	}
	if b.limits.AcquireTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, b.limits.AcquireTimeout, errors.New("pool.max_tunnels is reached"))
		defer cancel()
	}
	if who.forPool().Bulk {
		if b.bulk.Acquire(ctx, 1) != nil {
			return func() {}, context.Cause(ctx)
		}
		defer func() {
			if free := release; err == nil {
				release = func() { free(); b.bulk.Release(1) }
			} else {
				b.bulk.Release(1)
			}
		}()
	}
	if b.tunnels.Acquire(ctx, 1) != nil {
		return func() {}, context.Cause(ctx)
	}
	return func() { b.tunnels.Release(1) }, nil
}
