package doveadm

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// errTunnel is why a connection that has become a tunnel runs no command.
var errTunnel = errors.New("it has become a tunnel")

// Tunnel is the client's end of a tunnel: what Dovecot's dsync talks through.
// Reading and writing may be done by two goroutines at once.
type Tunnel struct {
	conn *ClientConn
	data []byte // that has been received and not been read
}

// OpenTunnel runs a command that makes the connection a tunnel, "dsync-server",
// and returns its end of it once the server has agreed. A *StatusError is the
// server's no, behind which the connection is as good as before. ctx bounds the
// opening only; if it ends before, or after any other error, the connection is
// of no more use. From then on it belongs to the Tunnel.
func (c *ClientConn) OpenTunnel(ctx context.Context, cmd *Command) (*Tunnel, error) {
	// A Reply would take what follows the status for a mistake of the server.
	reply, err := c.Do(ctx, cmd)
	if err != nil {
		return nil, err
	}
	for {
		chunk, err := c.ReadChunk()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err == nil && chunk.Channel == ChannelLog {
			reply.log(chunk.Data)
		}
		consumed := 0
		if err == nil && chunk.Channel == ChannelReply {
			_, consumed, err = reply.scan.Scan(chunk.Data)
		}
		if err != nil {
			reply.end(err)
			return nil, reply.Err()
		}
		if !reply.scan.Done() {
			continue
		}
		rest := chunk.Data[consumed:]
		if !reply.scan.Status().OK {
			reply.finish(len(rest) > 0)
			return nil, reply.Err()
		}
		if reply.stop() {
			err := context.Cause(ctx)
			c.busy, c.broken = false, err
			return nil, err
		}
		c.busy, c.broken = false, errTunnel
		return &Tunnel{conn: c, data: rest}, nil
	}
}

// Read reads what the server says in the tunnel. Its log lines go to OnLog. The
// error is io.EOF when the server has closed.
func (t *Tunnel) Read(p []byte) (int, error) {
	for len(t.data) == 0 {
		chunk, err := t.conn.ReadChunk()
		if err != nil {
			return 0, err
		}
		switch chunk.Channel {
		case ChannelReply:
			t.data = chunk.Data
		case ChannelLog:
			if t.conn.onLog != nil {
				t.conn.logs.read(chunk.Data, t.conn.onLog)
			}
		}
	}
	n := copy(p, t.data)
	t.data = t.data[n:]
	return n, nil
}

// Write says something in the tunnel. In this direction nothing is framed.
func (t *Tunnel) Write(p []byte) (int, error) { return t.conn.nc.Write(p) }

// CloseWrite tells the server that nothing more is to come. It is an error if
// the connection beneath has no such thing.
func (t *Tunnel) CloseWrite() error {
	half, ok := t.conn.nc.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("%T: %w", t.conn.nc, errors.ErrUnsupported)
	}
	return half.CloseWrite()
}

// Close closes the connection: a tunnel does not end otherwise.
func (t *Tunnel) Close() error { return t.conn.Close() }
