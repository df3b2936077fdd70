package doveadm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
// row has (CommandInfo.Columns). A Reply belongs to the goroutine that uses its
// ClientConn. After its end it can still be asked for Err and Status.
type Reply struct {
	conn *ClientConn
	ctx  context.Context
	stop func() bool

	scan    ReplyScanner
	data    []byte // output that has not been looked at, still escaped
	text    []byte // of the current field, unescaped
	inField bool   // the current field goes on behind text
	escape  bool   // text ended inside an escape pair
	cut     bool   // the reply broke off inside the current field
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
// before the next command. If ctx ends before the reply, or the reply ends in
// another error than a *StatusError, the connection is of no more use.
//
// An error of Do does not mean that the command did not run, unless it is
// ErrNUL or ErrLineTooLong or ctx had ended before the call.
func (c *ClientConn) Do(ctx context.Context, cmd *Command) (*Reply, error) {
	switch {
	case c.broken != nil:
		return nil, fmt.Errorf("connection is of no more use: %w", c.broken)
	case c.busy:
		return nil, errors.New("the reply of the last command has not been read to its end")
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	stop := interruptOn(ctx, c.nc)
	err := c.Send(cmd)
	if err == nil {
		c.busy = true
		return &Reply{conn: c, ctx: ctx, stop: stop}, nil
	}
	if stop() {
		err = context.Cause(ctx)
	}
	if err != ErrNUL && err != ErrLineTooLong {
		c.broken = err
	}
	return nil, err
}

// Next skips what is left of the current field and goes to the next one. It
// returns false at the end of the reply or on an error, which Err returns.
func (r *Reply) Next() bool {
	for r.piece() {
	}
	r.escape = false
	r.inField = r.more()
	return r.inField
}

// Read reads the current field, unescaped. Its error is io.EOF at the end of
// the field, and that of Err if the reply broke off inside it.
func (r *Reply) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.text) == 0 {
		if !r.piece() {
			if r.cut {
				return 0, r.err
			}
			return 0, io.EOF
		}
	}
	n := copy(p, r.text)
	r.text = r.text[n:]
	return n, nil
}

// WriteTo writes the rest of the current field, unescaped. It makes io.Copy
// work without a buffer of its own.
func (r *Reply) WriteTo(w io.Writer) (int64, error) {
	var written int64
	for len(r.text) > 0 || r.piece() {
		n, err := w.Write(r.text)
		r.text = r.text[n:]
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	if r.cut {
		return written, r.err
	}
	return written, nil
}

// Text returns the rest of the current field. A field can be as large as a
// mail; Read and WriteTo take it piece by piece.
func (r *Reply) Text() (string, error) {
	var b strings.Builder
	_, err := r.WriteTo(&b)
	return b.String(), err
}

// piece sets text to the next piece of the current field. It returns false at
// the end of the field.
func (r *Reply) piece() bool {
	r.text = nil
	if !r.inField {
		return false
	}
	if !r.more() {
		// "user" ends its only field without a TAB.
		r.inField, r.cut = false, r.err != nil
		return false
	}
	if end := bytes.IndexByte(r.data, '\t'); end >= 0 {
		r.text, r.data, r.inField = r.data[:end], r.data[end+1:], false
	} else {
		r.text, r.data = r.data, nil
	}
	r.text, r.escape = unescapePiece(r.text, r.escape)
	return true
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
			case r.scan.Done():
				r.finish(consumed < len(chunk.Data))
			}
		case ChannelLog:
			r.log(chunk.Data)
		}
	}
	return len(r.data) > 0
}

// finish ends the reply at its status, which stray bytes may follow. It takes
// the log lines that have arrived already.
func (r *Reply) finish(stray bool) {
	for r.conn.ChunkReady() {
		chunk, err := r.conn.ReadChunk()
		if err != nil {
			break
		}
		switch chunk.Channel {
		case ChannelReply:
			stray = true
		case ChannelLog:
			r.log(chunk.Data)
		}
	}
	if !stray {
		r.end(nil)
		return
	}
	// Behind "+" it is output that should have come before (Dovecot 2.3 and
	// 2.4, the second server command of a connection). Behind a failure it is
	// a second status line (2.2.22 to 2.3.16), and the first one stands.
	err := &ProtocolError{What: "data behind the status line"}
	if r.scan.Status().OK {
		r.end(err)
		return
	}
	r.end(nil)
	r.conn.broken = err
}

func (r *Reply) end(err error) {
	r.ended = true
	if r.stop() {
		err = context.Cause(r.ctx)
	}
	r.err = err
	r.conn.busy = false
	r.conn.broken = err
	r.conn.Shrink()
}

func (r *Reply) log(data []byte) {
	if r.conn.onLog != nil {
		r.conn.logs.read(data, r.conn.onLog)
	}
}

// Err returns nil after success, a *StatusError after the server's failure
// status, and any other error if the reply did not arrive whole: then the
// command may or may not have run. While there is more to read it may be nil.
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

// Close reads and drops what is left of the reply and returns Err. It can be
// called more than once.
func (r *Reply) Close() error {
	for r.more() {
		r.data = nil
	}
	r.text, r.inField = nil, false
	return r.Err()
}
