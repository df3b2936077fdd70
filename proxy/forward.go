package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// result is what became of a command, for its log line.
type result struct {
	outcome outcome
	status  doveadm.Status // that the client got
	shard   string
	route   string
	backend string
	reason  string // of anything but an answer
	wait    time.Duration
	bytes   int64 // of reply
	retried bool
}

// run runs the command in s.cmd and reports whether the session goes on.
func (s *session) run() (keep bool) {
	start := time.Now()
	name := s.cmd.Name
	res, keep := s.execute()
	s.logCommand(name, res, time.Since(start))
	return keep
}

func (s *session) execute() (result, bool) {
	snap := s.proxy.snapshot.Load()
	if !snap.clients[s.client] {
		res := result{outcome: denied, reason: fmt.Sprintf("client %s is no longer in the configuration", s.client)}
		s.answer(&res, doveadm.CodeNoPerm)
		return res, false
	}
	r, refused := prepare(&s.cmd)
	if refused != nil {
		res := result{outcome: refused.outcome, reason: refused.reason}
		return res, s.answer(&res, refused.code)
	}
	for {
		res, keep, err := s.forward(snap, r)
		if !errors.Is(err, pool.ErrClosed) {
			return res, keep
		}
		// A reload closed the pool between our look at the snapshot and now.
		next := s.proxy.snapshot.Load()
		if next == snap {
			return res, s.answer(&res, doveadm.CodeTempFail)
		}
		snap = next
	}
}

// forward routes a command and runs it on a backend. Only pool.ErrClosed is
// returned as an error, with nothing told to the client yet.
func (s *session) forward(snap *snapshot, r request) (result, bool, error) {
	var res result
	if refused := s.route(snap, r, &res); refused != nil {
		res.outcome, res.reason = refused.outcome, refused.reason
		return res, s.answer(&res, refused.code), nil
	}
	use := pool.Shared
	if r.info.Kind == doveadm.GlobalCommand {
		use = pool.Fresh
	}
	for {
		start := time.Now()
		conn, from, err := acquire(s.proxy.cut, snap.shards[res.shard], use)
		res.wait += time.Since(start)
		if err != nil {
			res.outcome, res.reason = unavailable, err.Error()
			if errors.Is(err, pool.ErrClosed) {
				return res, true, err
			}
			return res, s.answer(&res, doveadm.CodeTempFail), nil
		}
		res.backend = from.Name()
		again, keep := s.exchange(conn, from.timeouts, r, &res)
		if !again {
			return res, keep, nil
		}
		res.retried = true
		use = pool.Fresh
	}
}

// route finds the shard of a request.
func (s *session) route(snap *snapshot, r request, res *result) *refusal {
	if r.cmd.User == "" {
		// No user, no route; where there is one shard none is needed.
		if shard, ok := snap.only(); ok {
			res.shard, res.route = shard, "only shard"
			return nil
		}
		if r.info.Kind == doveadm.GlobalCommand {
			return &refusal{denied, doveadm.CodeUsage, r.cmd.Name + " is not for a mail user, and the user name field names none whose backend it could go to"}
		}
		return &refusal{noUser, doveadm.CodeNoUser, "no user name given"}
	}
	decision, err := snap.table.Route(r.cmd.User)
	switch {
	case errors.Is(err, router.ErrNoRoute):
		return &refusal{noUser, doveadm.CodeNoUser, "no route names a shard for the user"}
	case err != nil:
		return &refusal{noRoute, doveadm.CodeTempFail, err.Error()}
	}
	res.shard, res.route = decision.Shard, decision.Route
	return nil
}

// acquire takes a connection to the first backend that has one. The error is
// that of the last.
func acquire(ctx context.Context, backends []backend, use pool.Use) (*pool.Conn, backend, error) {
	var err error
	for _, b := range backends {
		var c *pool.Conn
		if c, err = b.Acquire(ctx, use); err == nil {
			return c, b, nil
		}
		err = fmt.Errorf("backend %s: %w", b.Name(), err)
	}
	return nil, backend{}, err
}

// exchange sends the command on conn, relays the reply and releases conn. It
// reports whether the command shall be sent again on another connection, and
// if not, whether the session goes on.
func (s *session) exchange(conn *pool.Conn, timeouts config.Timeouts, r request, res *result) (again, keep bool) {
	if !s.hold(conn) {
		conn.Release(pool.Abandoned)
		res.outcome, res.reason = clientGone, "shutting down"
		return false, false
	}
	rl := relay{session: s, conn: conn, timeouts: timeouts}
	rl.mayRepeat = !res.retried && conn.Reused() && r.repeatable()
	err := rl.send(r.cmd)
	if err == nil {
		err = rl.run()
	}
	s.hold(nil)

	if rl.scan.Done() && err == nil {
		return false, s.finish(&rl, r, res)
	}
	return s.interrupted(&rl, r, res, err)
}

// finish ends a command whose reply has arrived whole. The connection goes
// back first: a slow client shall not hold a process of the backend.
func (s *session) finish(rl *relay, r request, res *result) (keep bool) {
	status := rl.scan.Status()
	reusable := pool.Answered
	if r.info.Kind != doveadm.GlobalCommand && !rl.stray &&
		(status.OK || status.Code == doveadm.CodeNoUser || status.Code == doveadm.CodeNotFound) {
		reusable = pool.Reusable
	}
	rl.conn.Release(reusable)
	res.outcome, res.status, res.bytes = answered, status, rl.bytes
	if rl.referral != "" {
		res.reason = rl.referral
		res.status = doveadm.Failure(doveadm.CodeTempFail)
	}
	if err := rl.out.finish(); err != nil {
		res.outcome, res.reason = clientGone, err.Error()
		return false
	}
	return true
}

// interrupted ends a command whose reply did not arrive whole.
func (s *session) interrupted(rl *relay, r request, res *result, err error) (again, keep bool) {
	res.bytes = rl.bytes
	if rl.out.err != nil {
		// The command runs on at the backend, whose reply nobody wants.
		rl.conn.Release(pool.Abandoned)
		rl.out.abandon()
		res.outcome, res.reason = clientGone, rl.out.err.Error()
		return false, false
	}
	closed := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	before := !rl.replied
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		rl.conn.Release(pool.Failed)
		res.outcome = timedOut
		res.reason = fmt.Sprintf("backend %s did not answer within %s (timeouts.reply)", res.backend, rl.timeouts.Reply)
	case errors.Is(err, doveadm.ErrLineTooLong):
		rl.conn.Release(pool.Abandoned)
		res.outcome, res.reason = denied, fmt.Sprintf("the command is longer than %d bytes as the backend reads it", doveadm.MaxLine)
		return false, s.answer(res, doveadm.CodeUsage)
	case before && rl.mayRepeat:
		rl.conn.Release(pool.Abandoned)
		rl.out.abandon()
		return true, true
	case before && closed:
		// So Dovecot answers a bad search query, too.
		rl.conn.Release(pool.Abandoned)
		res.outcome = unanswered
		res.reason = fmt.Sprintf("backend %s closed the connection without a reply (wrong arguments, or a crash: see its log)", res.backend)
	default:
		rl.conn.Release(pool.Failed)
		res.outcome = lost
		res.reason = fmt.Sprintf("backend %s was lost in the middle of the command: %v", res.backend, err)
	}
	columns, known := r.columns()
	if rl.scan.Fields() > 0 || rl.scan.MidField() {
		if !known {
			// Nobody can say where the row would end.
			rl.out.log(doveadm.LogError, res.reason)
			rl.out.finish()
			return false, false
		}
		rl.out.pad(&rl.scan, columns)
	}
	res.status = doveadm.Failure(doveadm.CodeTempFail)
	rl.out.log(doveadm.LogError, res.reason)
	rl.out.end(res.status)
	return false, rl.out.finish() == nil
}

// answer sends a failure that the proxy itself makes up, with the reason, and
// reports whether the session goes on.
func (s *session) answer(res *result, code string) (keep bool) {
	res.status = doveadm.Failure(code)
	s.out = s.wire.AppendLog(s.out[:0], doveadm.LogError, logPrefix+res.reason)
	s.out = s.wire.AppendEnd(s.out, res.status)
	return s.write(s.out) == nil
}

// logCommand writes the one line that a command leaves.
func (s *session) logCommand(name string, res result, took time.Duration) {
	level := hclog.Info
	switch res.outcome {
	case unavailable, lost, timedOut, noRoute, loops:
		level = hclog.Error
	case unanswered, denied:
		level = hclog.Warn
	}
	if !s.log.IsInfo() && level == hclog.Info {
		return
	}
	args := []any{
		"client", printable(s.client),
		"user", printable(s.cmd.User),
		"command", printable(name),
		"outcome", string(res.outcome),
		"status", res.status.String(),
		"shard", res.shard,
		"backend", res.backend,
		"wait_ms", milliseconds(res.wait),
		"duration_ms", milliseconds(took),
		"bytes", res.bytes,
	}
	if res.retried {
		args = append(args, "retried", true)
	}
	if res.reason != "" {
		args = append(args, "reason", printable(res.reason))
	}
	s.log.Log(level, "command", args...)
}

// milliseconds is how durations stand in the log: one unit, to be compared and
// summed up.
func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 3, 64)
}
