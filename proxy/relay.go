package proxy

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// relay carries a command to a backend and its reply to the client. It reads
// as fast as the backend writes: what the client does not take at once waits
// in the task's output.
type relay struct {
	task *task
	conn pool.Conn
	from *backend
	scan doveadm.ReplyScanner

	// mayRepeat: if the connection is lost before the reply begins, the
	// command is sent again. Log lines wait until then.
	mayRepeat bool

	released bool
	bytes    int64 // of output that arrived
	replied  bool  // something of the reply itself arrived, not only log lines
	began    time.Time
	// firstByte is how long after that the reply began.
	firstByte time.Duration
	stray     bool   // something arrived behind the status
	rest      []byte // behind the status: the beginning of a tunnel
	referral  string // the server that a -REFERRAL names

	firstRow *firstRow // the number of columns depends on the backend's release

	sending   sync.WaitGroup // the goroutine that writes the input
	stopped   atomic.Bool    // it shall write no more
	inputDone bool           // all of it has been written, or there is none
	inputEnd  time.Time      // when it must have been written; zero: there is none
	stuck     atomic.Bool    // the backend took nothing for timeouts.write, or the input for inputTime

	deadlines deadlines // of the reply
}

func (r *relay) client() *doveadm.ClientConn { return r.conn.Client() }

// release gives the connection back, once.
func (r *relay) release(o pool.Outcome) {
	if !r.released {
		r.released = true
		r.conn.Release(o)
	}
}

// send writes the request. The input of a command is written while its reply is
// awaited: a backend may answer early.
func (r *relay) send() error {
	t := r.task
	r.inputDone = t.input == nil
	cmd := t.cmd
	cmd.User = t.userAtBackend()
	minor := r.client().ServerMinor()
	if t.request.spellOut && minor >= doveadm.MinorExtraFields {
		cmd.Args = t.request.info.SpellOut(cmd.Args)
	}
	if t.request.columnsVary(minor) {
		r.firstRow = new(firstRow)
	}
	if t.input != nil {
		if err := r.prepareInput(&cmd); err != nil {
			return err
		}
		r.inputEnd = time.Now().Add(inputTime)
	}
	r.deadlines.begin(r.client().NetConn(), t.request.info.Class(), r.from.timeouts, t.input == nil || t.input.short())
	r.deadline()
	if err := r.client().Send(&cmd); err != nil {
		if errors.Is(err, doveadm.ErrLineTooLong) {
			return &refusal{denied, doveadm.CodeUsage, fmt.Sprintf("the command is longer than %d bytes as the backend reads it", doveadm.MaxLine)}
		}
		r.noteStuck(err)
		return err
	}
	if t.trace != nil {
		t.trace.command(t, ToBackend, &cmd)
		if t.input != nil {
			t.trace.input(t, ToBackend, t.input.size)
		}
	}
	switch {
	case t.input == nil:
	case t.input.short():
		r.deadline()
		_, err := r.client().NetConn().Write(t.input.memory)
		r.inputDone = err == nil
		if r.noteStuck(err) {
			return err
		}
	default:
		r.sending.Go(r.sendInput)
	}
	return nil
}

// inputTime is how long a backend may take to take the input of a command.
// Dovecot reads one for five minutes in all, however fast it comes
// (DOVEADM_MAIL_CMD_INPUT_TIMEOUT_MSECS in doveadm-mail.c), then answers and
// takes what has not been read for commands. A connection that ends before is
// the end of the input to it.
const inputTime = 4 * time.Minute

// deadline begins timeouts.write.
func (r *relay) deadline() {
	if end := r.writeEnd(time.Now()); !end.IsZero() {
		r.client().NetConn().SetWriteDeadline(end)
	}
}

// writeEnd is when a write that begins now must have ended; zero: whenever.
func (r *relay) writeEnd(now time.Time) time.Time {
	var end time.Time
	if w := r.from.timeouts.Write; w > 0 {
		end = now.Add(w)
	}
	if !r.inputEnd.IsZero() && (end.IsZero() || r.inputEnd.Before(end)) {
		end = r.inputEnd
	}
	return end
}

// stuckReason says why a write to the backend did not end in time.
func (r *relay) stuckReason(backend string) string {
	if !r.inputEnd.IsZero() && !time.Now().Before(r.inputEnd) {
		return fmt.Sprintf("backend %s did not take the input within %s: Dovecot would stop reading it after five minutes and take the rest for commands", backend, inputTime)
	}
	return fmt.Sprintf("backend %s took nothing of the command for %s (timeouts.write)", backend, r.from.timeouts.Write)
}

// noteStuck reports whether err is the end of timeouts.write or of inputTime.
func (r *relay) noteStuck(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	r.stuck.Store(true)
	return true
}

var errInputStopped = errors.New("the backend answered before the end of the input")

// sendInput writes the input until all of it is written or stopInput is called.
func (r *relay) sendInput() {
	err := r.task.input.copyTo(func(p []byte) error {
		if r.stopped.Load() {
			return errInputStopped
		}
		r.deadline()
		if r.stopped.Load() {
			// The deadline of stopInput may have been overwritten.
			return errInputStopped
		}
		_, err := r.client().NetConn().Write(p)
		return err
	})
	r.inputDone = err == nil
	if r.inputDone && !r.stopped.Load() {
		r.deadlines.inputSent()
	}
	if !r.stopped.Load() && r.noteStuck(err) {
		// Who takes nothing will not answer either: run waits no longer.
		r.deadlines.stop()
	}
}

// stopInput ends sendInput. Nothing is written behind a status.
func (r *relay) stopInput() {
	if r.task.input == nil {
		return
	}
	r.stopped.Store(true)
	r.client().NetConn().SetWriteDeadline(time.Unix(1, 0))
	r.sending.Wait()
	r.client().NetConn().SetWriteDeadline(time.Time{})
	if !r.inputDone {
		// It is of no more use, and TLS would wait to tell a backend that does
		// not read.
		r.conn.Cut()
	}
}

// prepareInput makes sure that the backend will read the input: it would take
// the lines of an input that it leaves unread for commands, with the rights of
// an administrator.
func (r *relay) prepareInput(cmd *doveadm.Command) error {
	series := doveadm.Series23
	if r.client().ServerMinor() >= doveadm.MinorExtraFields {
		series = doveadm.Series24
	}
	info := r.task.request.info
	args, err := info.InputArgs(series, cmd.Args)
	if err != nil {
		return &refusal{denied, doveadm.CodeUsage, err.Error()}
	}
	cmd.Args = args
	if info.Plugin == "" {
		return nil
	}
	return r.probePlugin(cmd)
}

// probePlugin asks the backend for a command of the same plugin that reads no
// input. A backend that has not loaded the plugin does not know it either.
func (r *relay) probePlugin(cmd *doveadm.Command) error {
	probe := &doveadm.Command{User: cmd.User, Name: "sieve list", Extra: slices.Clone(cmd.Extra)}
	r.deadlines.begin(r.client().NetConn(), doveadm.ClassQuick, r.from.timeouts, true)
	r.deadline()
	if err := r.client().Send(probe); err != nil {
		return err
	}
	var scan doveadm.ReplyScanner
	for !scan.Done() {
		r.deadlines.wait()
		chunk, err := r.client().ReadChunk()
		if err != nil {
			return err
		}
		r.deadlines.hear()
		if chunk.Channel == doveadm.ChannelReply {
			if _, _, err := scan.Scan(chunk.Data); err != nil {
				return err
			}
		}
	}
	if status := scan.Status(); status == (doveadm.Status{}) {
		return &refusal{denied, "", fmt.Sprintf("backend %s does not know %s: it has not loaded Pigeonhole", r.from.Name(), cmd.Name)}
	}
	return nil
}

// run relays until the status has arrived. The last bytes are still in the
// task's output then. An error of the client's side is also in its err.
func (r *relay) run() error {
	client, out := r.client(), &r.task.out
	for !r.scan.Done() {
		if !client.ChunkReady() {
			if r.replied || !r.mayRepeat {
				if err := out.flush(); err != nil {
					return err
				}
			}
			r.deadlines.wait()
		}
		chunk, err := client.ReadChunk()
		if err != nil {
			return err
		}
		r.deadlines.hear()
		if r.task.trace != nil {
			r.task.trace.data(r.task, FromBackend, chunk.Channel, chunk.Data)
		}
		switch chunk.Channel {
		case doveadm.ChannelReply:
			if !r.replied {
				r.replied = true
				r.firstByte = time.Since(r.began)
				r.conn.Answering()
			}
			data := chunk.Data
			if r.firstRow != nil {
				data = r.firstRow.take(data)
			}
			if err := r.reply(data); err != nil {
				return err
			}
		case doveadm.ChannelLog:
			out.logs(chunk.Data)
		}
		if err := out.flushIfFull(); err != nil {
			return err
		}
	}
	return nil
}

// columns returns the number of fields in a row of the reply, if it can be
// known.
func (r *relay) columns() (n int, known bool) {
	if r.firstRow != nil {
		return r.firstRow.columns, r.firstRow.columns > 0
	}
	return r.task.request.info.Columns(r.task.request.cmd.Args)
}

// reply takes bytes of channel 0. A chunk that can be passed on as it is stays
// whole: a field of one packet goes on in one. (A backend of version 1.4 sends
// no packets. Its chunks are what has arrived, and end where the network or the
// reader cut them.) The LF that ends the output waits for the status, so that
// log lines still fit in between.
func (r *relay) reply(data []byte) error {
	endedBefore := r.scan.OutputEnded()
	n, consumed, err := r.scan.Scan(data)
	r.bytes += int64(n)
	if err != nil {
		return err
	}
	out := &r.task.out
	r.rest = data[consumed:]
	r.stray = len(r.rest) > 0
	status := r.scan.Status()
	switch {
	case r.scan.Done() && status.Code == doveadm.CodeReferral:
		// Clients lose rows or the reason when they get this. It is followed.
		r.referral = status.Text
		out.reply(data[:n], nil)
	case r.scan.Done() && !endedBefore:
		out.reply(data[:n], data[n:consumed])
	case r.scan.Done():
		out.end(status)
	default:
		out.reply(data[:n], nil)
	}
	return nil
}
