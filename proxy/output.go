package proxy

import (
	"errors"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// output is the reply of one task on its way to the client. Nothing of it
// blocks for long but finish: what the client does not take soon, or what has to
// wait for its turn, is spooled.
type output struct {
	task    *task
	turn    <-chan struct{} // closed when the replies before this one are written; nil: there is none
	column  *userColumn     // nil: output passes as it is
	buf     []byte
	started bool          // something has been sent or spooled
	midLine bool          // the log channel stands inside a line
	waited  time.Duration // for the client, instead of spooling
	spool   *spool
	err     error // the client is gone, or over a limit
}

// flushSize is how much is gathered at most before it is written.
const flushSize = 64 << 10

// patience is how long all of a reply may wait for its client before the rest is
// spooled. One that keeps pace with the backend but for moments costs no copies,
// and one that does not keeps the backend for no longer than that.
const patience = 250 * time.Millisecond

// errSessionOver is what replies get that come behind one with which the
// session ended.
var errSessionOver = errors.New("the session ended with an earlier command")

// start begins with an empty buffer, that of buf.
func (o *output) start(buf []byte) { o.buf = buf[:0] }

// buffer returns the buffer for another use, unless it has grown.
func (o *output) buffer() []byte {
	const keep = 4 << 10
	if cap(o.buf) > keep {
		return nil
	}
	return o.buf[:0]
}

func (o *output) wire() *doveadm.ServerConn { return o.task.session.wire }

// reply takes output and what ends it, as one packet.
func (o *output) reply(output, end []byte) {
	if o.column != nil {
		output = o.column.insert(output)
	}
	if len(end) > 0 {
		o.endLine()
	}
	switch {
	case len(output) == 0 && len(end) == 0:
	case len(end) == 0:
		o.buf = o.wire().AppendReply(o.buf, output)
	case o.column == nil:
		// Both are pieces of the same chunk, one behind the other.
		o.buf = o.wire().AppendReply(o.buf, output[:len(output)+len(end)])
	default:
		o.buf = o.wire().AppendReply(o.buf, append(output, end...))
	}
}

func (o *output) logs(data []byte) {
	o.buf = o.wire().AppendLogs(o.buf, data)
	o.midLine = data[len(data)-1] != '\n'
}

// endLine ends a line of the log channel that a backend has not ended. What
// comes next is not its text.
func (o *output) endLine() {
	if o.midLine {
		o.logs([]byte{'\n'})
	}
}

func (o *output) log(level doveadm.LogLevel, text string) {
	o.endLine()
	o.buf = o.wire().AppendLog(o.buf, level, logPrefix+text)
	if tr := o.task.trace; tr != nil {
		tr.data(o.task, ToClient, doveadm.ChannelLog, []byte(logPrefix+text+"\n"))
	}
}

func (o *output) pad(scan *doveadm.ReplyScanner, columns int) {
	o.reply(scan.AppendPadding(nil, columns), nil)
}

func (o *output) end(status doveadm.Status) {
	o.endLine()
	o.buf = o.wire().AppendEnd(o.buf, status)
}

// forget drops what has been gathered and not been sent.
func (o *output) forget() {
	o.buf = o.buf[:0]
	o.midLine = o.midLine && o.started
}

func (o *output) flushIfFull() error {
	if len(o.buf) < flushSize {
		return nil
	}
	return o.flush()
}

// myTurn reports whether every reply before this one has been written.
func (o *output) myTurn() bool {
	if o.turn == nil {
		return true
	}
	select {
	case <-o.turn:
		o.turn = nil
		return true
	default:
		return false
	}
}

// flush hands everything gathered to the client's socket or, as far as the
// socket is full or it is not its turn, to the spool.
func (o *output) flush() error {
	if len(o.buf) == 0 || o.err != nil {
		return o.err
	}
	o.started = true
	rest := o.buf
	if o.spool == nil && o.myTurn() {
		if o.task.session.broken.Load() {
			o.err = errSessionOver
			return o.err
		}
		s := o.task.session
		s.writing.Lock()
		rest, o.err = s.trySend(rest)
		if left := patience - o.waited; len(rest) > 0 && o.err == nil && left > time.Millisecond {
			begin := time.Now()
			rest, o.err = s.sendWithin(rest, left)
			o.waited += time.Since(begin)
		}
		s.partial = len(rest) > 0
		s.writing.Unlock()
	}
	if len(rest) > 0 && o.err == nil {
		if o.spool == nil {
			o.spool = newSpool(o.task.session, o.turn)
		}
		o.err = o.spool.write(rest)
	}
	o.buf = o.buf[:0]
	return o.err
}

// finish sends what is left, when its turn has come, and returns when the
// client's socket has all of it.
func (o *output) finish() error {
	o.task.hasRun()
	s := o.task.session
	if o.err == nil && o.spool == nil {
		if o.turn != nil {
			<-o.turn
			o.turn = nil
		}
		o.err = errSessionOver
		if !s.broken.Load() {
			o.err = s.write(o.buf)
		}
	}
	if o.spool != nil {
		if o.err == nil {
			o.flush()
		}
		if err := o.spool.finish(); o.err == nil {
			o.err = err
		}
		s.writing.Lock()
		s.partial = o.err != nil
		s.nc.SetWriteDeadline(time.Time{}) // the spool has set one
		s.writing.Unlock()
	}
	o.buf = o.buf[:0]
	return o.err
}

// abandon forgets what has not been sent.
func (o *output) abandon() {
	if o.spool != nil {
		o.spool.abandon()
	}
	o.buf = o.buf[:0]
}
