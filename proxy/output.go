package proxy

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// output is what goes to the client of one command. Nothing of it blocks but
// finish: what the client does not take at once is spooled.
type output struct {
	session *session
	buf     []byte
	started bool // something has been sent or spooled
	spool   *spool
	err     error // the client is gone or over a limit
}

// flushSize is how much is gathered at most before it is written.
const flushSize = 64 << 10

func (o *output) start(s *session) {
	o.session = s
	o.buf = s.out[:0]
}

func (o *output) reply(data []byte) {
	if len(data) > 0 {
		o.buf = o.session.wire.AppendReply(o.buf, data)
	}
}

func (o *output) logs(data []byte) { o.buf = o.session.wire.AppendLogs(o.buf, data) }

func (o *output) log(level doveadm.LogLevel, text string) {
	o.buf = o.session.wire.AppendLog(o.buf, level, logPrefix+text)
}

func (o *output) pad(scan *doveadm.ReplyScanner, columns int) {
	if p := scan.AppendPadding(nil, columns); len(p) > 0 {
		o.reply(p)
	}
}

func (o *output) end(status doveadm.Status) { o.buf = o.session.wire.AppendEnd(o.buf, status) }

func (o *output) flushIfFull() error {
	if len(o.buf) < flushSize {
		return nil
	}
	return o.flush()
}

// flush hands everything gathered to the client's socket or, as far as the
// socket is full, to the spool.
func (o *output) flush() error {
	if len(o.buf) == 0 || o.err != nil {
		return o.err
	}
	o.started = true
	rest := o.buf
	if o.spool == nil {
		rest, o.err = trySend(o.session.nc, rest)
	}
	if len(rest) > 0 && o.err == nil {
		if o.spool == nil {
			o.spool = newSpool(o.session)
		}
		o.err = o.spool.write(rest)
	}
	o.buf = o.buf[:0]
	return o.err
}

// finish sends what is left and returns when the client's socket has all of
// it.
func (o *output) finish() error {
	if o.err == nil {
		if o.spool == nil {
			o.err = o.session.write(o.buf)
		} else {
			o.flush()
		}
	}
	if o.spool != nil {
		if err := o.spool.finish(); o.err == nil {
			o.err = err
		}
	}
	o.giveBuffer()
	return o.err
}

// abandon forgets what has not been sent.
func (o *output) abandon() {
	if o.spool != nil {
		o.spool.abandon()
	}
	o.giveBuffer()
}

// giveBuffer lets the session use the buffer again, unless it has grown.
func (o *output) giveBuffer() {
	const keep = 4 << 10
	o.session.out = o.buf[:0]
	if cap(o.buf) > keep {
		o.session.out = nil
	}
	o.buf = nil
}

// trySend writes what the socket takes without waiting and returns the rest.
// Connections that are no sockets take nothing.
func trySend(nc net.Conn, p []byte) ([]byte, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return p, nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return p, err
	}
	nc.SetWriteDeadline(time.Time{})
	var sendErr error
	err = raw.Write(func(fd uintptr) bool {
		for len(p) > 0 {
			var n int
			n, sendErr = syscall.Write(int(fd), p)
			if sendErr == syscall.EINTR {
				continue
			}
			if sendErr != nil {
				break
			}
			p = p[n:]
		}
		return true
	})
	if err == nil && !errors.Is(sendErr, syscall.EAGAIN) {
		err = sendErr
	}
	return p, err
}
