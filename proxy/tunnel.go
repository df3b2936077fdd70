package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// tunnelBuffer is what one read of a tunnel takes from the client.
const tunnelBuffer = 32 << 10

// tunnel carries the dsync protocol, which follows the status of dsync-server
// on the same connection until one side closes it: raw from the client, and to
// the client in the frames of its version, with log lines on their channel.
func (t *task) tunnel(rl *relay) verdict {
	s := t.session
	t.res.outcome, t.res.status = answered, rl.scan.Status()
	t.out.reply(rl.rest, nil)
	if err := t.out.finish(); err != nil {
		s.drop(t)
		rl.release(pool.Abandoned)
		t.res.outcome, t.res.reason = clientGone, err.Error()
		return over
	}
	tn := &tunnelRun{
		client:       s.nc,
		backend:      rl.client().NetConn(),
		cut:          func() { s.socket.Close(); rl.conn.Cut() },
		writeTimeout: s.proxy.snapshot.Load().config.Limits.WriteTimeout,
		idle:         rl.from.timeouts.Tunnel,
	}
	s.tunnels.Store(true) // until its end, which is that of the session
	rl.client().NetConn().SetReadDeadline(time.Time{})
	tn.touch()
	watch := tn.watch()
	var up sync.WaitGroup
	up.Go(func() { tn.fromClient(s.wire.Tunnel()) })
	n, err := tn.fromBackend(s.wire, rl.client())
	t.res.bytes = n
	// The backend has ended the protocol or is lost: nothing more is to come
	// for either side.
	s.nc.SetReadDeadline(time.Unix(1, 0))
	up.Wait()
	watch.Stop()
	switch by := t.wasKilled(); {
	case by != nil:
		t.res.outcome, t.res.reason = ended, by.Error()
	case tn.expired.Load():
		t.res.outcome = timedOut
		t.res.reason = fmt.Sprintf("no byte in either direction for %s (timeouts.tunnel)", tn.idle)
	case err != nil:
		t.res.outcome, t.res.reason = lost, err.Error()
	}
	s.drop(t)
	rl.release(pool.Answered)
	return over
}

// tunnelRun is the two directions of a tunnel.
type tunnelRun struct {
	client, backend net.Conn
	cut             func() // closes both without waiting
	writeTimeout    time.Duration
	idle            time.Duration // 0: none
	active          atomic.Int64  // UnixNano of the last byte
	expired         atomic.Bool
}

func (tn *tunnelRun) touch() { tn.active.Store(time.Now().UnixNano()) }

// watch ends both directions when nothing moves for too long.
func (tn *tunnelRun) watch() *time.Timer {
	var timer *time.Timer
	if tn.idle == 0 {
		timer = time.NewTimer(0)
		timer.Stop()
		return timer
	}
	var start sync.Mutex
	start.Lock()
	defer start.Unlock()
	timer = time.AfterFunc(tn.idle, func() {
		start.Lock()
		defer start.Unlock()
		left := tn.idle - time.Since(time.Unix(0, tn.active.Load()))
		if left > 0 {
			timer.Reset(left)
			return
		}
		tn.expired.Store(true)
		tn.cut()
	})
	return timer
}

// fromClient copies to the backend until the client has no more to say, and
// tells the backend so.
func (tn *tunnelRun) fromClient(r io.Reader) {
	buf := make([]byte, tunnelBuffer)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			tn.touch()
			tn.backend.SetWriteDeadline(time.Time{})
			if _, err := tn.backend.Write(buf[:n]); err != nil {
				return
			}
			tn.touch()
		}
		if err != nil {
			closeWrite(tn.backend)
			return
		}
	}
}

// fromBackend copies to the client until the backend closes.
func (tn *tunnelRun) fromBackend(to *doveadm.ServerConn, from *doveadm.ClientConn) (copied int64, err error) {
	var out []byte
	for {
		chunk, err := from.ReadChunk()
		if errors.Is(err, io.EOF) {
			return copied, nil
		}
		if err != nil {
			return copied, err
		}
		tn.touch()
		out = out[:0]
		if chunk.Channel == doveadm.ChannelLog {
			out = to.AppendLogs(out, chunk.Data)
		} else if chunk.Channel == doveadm.ChannelReply {
			out = to.AppendReply(out, chunk.Data)
			copied += int64(len(chunk.Data))
		}
		if len(out) == 0 {
			continue
		}
		tn.client.SetWriteDeadline(time.Now().Add(tn.writeTimeout))
		if _, err := tn.client.Write(out); err != nil {
			return copied, fmt.Errorf("client: %w", err)
		}
		tn.touch()
	}
}
