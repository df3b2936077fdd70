package doveadm

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"time"
)

// Reply is the streamed reply of one command. It is read field by field:
//
//	for reply.Next() {
//		text, err := reply.Text()
//		...
//	}
//	if err := reply.Err(); err != nil { ... }
//
// There is no row separator on the wire: the command says how many fields a
// row has (CommandInfo.Columns).
type Reply struct {
	conn *ClientConn
	ctx  context.Context
	stop func() bool

	scan    ReplyScanner
	data    []byte // output that has not been read
	inField bool
	escape  bool // the last byte read was the first of an escape pair
	logs    []byte
	err     error
	ended   bool
}

// interruptOn makes blocking calls on nc fail once ctx is done. The returned
// function ends that and reports whether it came to it; then nc is of no more
// use.
func interruptOn(ctx context.Context, nc net.Conn) (stop func() bool) {
	if ctx.Done() == nil {
		return func() bool { return false }
	}
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		nc.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	return func() bool {
		if cancel() {
			return false
		}
		<-done
		return true
	}
}

// Do sends cmd and returns its reply, which must be read to its end or closed
// before the next command. If ctx ends first, the connection is of no more use.
func (c *ClientConn) Do(ctx context.Context, cmd *Command) (*Reply, error) {
	stop := interruptOn(ctx, c.nc)
	if err := c.Send(cmd); err != nil {
		if stop() {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return &Reply{conn: c, ctx: ctx, stop: stop}, nil
}

// Next skips what is left of the current field and goes to the next one. It
// returns false at the end of the reply or on an error, which Err returns.
func (r *Reply) Next() bool {
	if r.inField {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return false
		}
	}
	if !r.more() {
		return false
	}
	r.inField = true
	return true
}

// Read reads the current field, unescaped. Its error is io.EOF at the end of
// the field.
func (r *Reply) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if !r.inField {
			break
		}
		if len(r.data) == 0 {
			if n > 0 {
				return n, nil
			}
			if !r.more() {
				// "user" ends its only field without a TAB.
				r.inField = false
			}
			continue
		}
		if c := r.data[0]; r.escape {
			p[n] = unescaped(c)
			n++
			r.escape = false
		} else if c == '\t' {
			r.inField = false
		} else if c == escapeByte {
			r.escape = true
		} else {
			p[n] = c
			n++
		}
		r.data = r.data[1:]
	}
	if n == 0 && len(p) > 0 {
		if r.err != nil {
			return 0, r.err
		}
		return 0, io.EOF
	}
	return n, nil
}

// Text returns the rest of the current field.
func (r *Reply) Text() (string, error) {
	var b strings.Builder
	_, err := io.Copy(&b, r)
	return b.String(), err
}

// more reports whether there is unread output, and receives until there is or
// the reply has ended.
func (r *Reply) more() bool {
	for len(r.data) == 0 && !r.ended {
		chunk, err := r.conn.ReadChunk()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			r.end(err)
			break
		}
		switch chunk.Channel {
		case ChannelReply:
			output, consumed, err := r.scan.Scan(chunk.Data)
			r.data = chunk.Data[:output]
			switch {
			case err != nil:
				r.end(err)
			case consumed < len(chunk.Data):
				r.end(&ProtocolError{What: "data behind the status line"})
			case r.scan.Done():
				r.end(nil)
			}
		case ChannelLog:
			r.log(chunk.Data)
		}
	}
	return len(r.data) > 0
}

func (r *Reply) end(err error) {
	r.ended = true
	if r.stop() {
		err = context.Cause(r.ctx)
	}
	r.err = err
	r.conn.Shrink()
}

func (r *Reply) log(data []byte) {
	if r.conn.onLog == nil {
		return
	}
	r.logs = append(r.logs, data...)
	for {
		line, rest, ok := bytes.Cut(r.logs, []byte{'\n'})
		if !ok {
			return
		}
		if len(line) > 0 {
			r.conn.onLog(LogLevel(line[0]), string(line[1:]))
		}
		r.logs = rest
	}
}

// Err returns nil after success, a *StatusError after the server's failure
// status, and any other error if the reply did not arrive whole: then the
// command may or may not have run.
func (r *Reply) Err() error {
	switch {
	case r.err != nil:
		return r.err
	case !r.ended || r.scan.Status().OK:
		return nil
	}
	return &StatusError{Status: r.scan.Status()}
}

// Status returns the status line. Before the end of the reply it is the zero
// value.
func (r *Reply) Status() Status { return r.scan.Status() }

// Close reads and drops what is left of the reply and returns Err.
func (r *Reply) Close() error {
	for r.more() {
		r.data = nil
	}
	return r.Err()
}
