package proxy

import (
	"errors"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// relay carries one reply from a backend to the client. It reads as fast as
// the backend writes: what the client does not take at once waits in out.
type relay struct {
	session  *session
	conn     *pool.Conn
	timeouts config.Timeouts
	scan     doveadm.ReplyScanner
	out      output

	// mayRepeat: if the connection is lost before the reply begins, the
	// command is sent again. Log lines wait until then.
	mayRepeat bool

	bytes    int64  // of output that arrived
	replied  bool   // something of the reply itself arrived, not only log lines
	stray    bool   // something arrived behind the status
	referral string // what was answered instead of a referral
}

// send writes the request.
func (r *relay) send(cmd *doveadm.Command) error {
	r.out.start(r.session)
	nc := r.conn.Client().NetConn()
	if r.timeouts.Write > 0 {
		nc.SetWriteDeadline(time.Now().Add(r.timeouts.Write))
	}
	return r.conn.Client().Send(cmd)
}

// run relays until the status has arrived. The last bytes are still in out
// then. An error of the client's side is also in out.err.
func (r *relay) run() error {
	client := r.conn.Client()
	if r.timeouts.Reply > 0 {
		defer client.NetConn().SetReadDeadline(time.Time{})
	}
	for !r.scan.Done() {
		if !client.ChunkReady() {
			if r.replied || !r.mayRepeat {
				if err := r.out.flush(); err != nil {
					return err
				}
			}
			if r.timeouts.Reply > 0 {
				client.NetConn().SetReadDeadline(time.Now().Add(r.timeouts.Reply))
			}
		}
		chunk, err := client.ReadChunk()
		if err != nil {
			return err
		}
		switch chunk.Channel {
		case doveadm.ChannelReply:
			if !r.replied {
				r.replied = true
				r.conn.Answering()
			}
			if err := r.reply(chunk.Data); err != nil {
				return err
			}
		case doveadm.ChannelLog:
			r.out.logs(chunk.Data)
		}
		if err := r.out.flushIfFull(); err != nil {
			return err
		}
	}
	return nil
}

var errReferral = errors.New("the backend sends the user to another server")

// reply takes bytes of channel 0. A chunk that can be passed on as it is stays
// whole; the LF that ends the output waits for the status, so that log lines
// still fit in between.
func (r *relay) reply(data []byte) error {
	endedBefore := r.scan.OutputEnded()
	n, consumed, err := r.scan.Scan(data)
	r.bytes += int64(n)
	if err != nil {
		return err
	}
	r.stray = consumed < len(data)
	whole := r.scan.Done() && !endedBefore
	switch status := r.scan.Status(); {
	case r.scan.Done() && status.Code == doveadm.CodeReferral:
		// Clients lose rows or the reason when they get this.
		r.referral = errReferral.Error() + ": " + printable(status.Text)
		r.out.reply(data[:n])
		r.out.log(doveadm.LogError, r.referral)
		r.out.end(doveadm.Failure(doveadm.CodeTempFail))
	case whole:
		r.out.reply(data[:consumed])
	case r.scan.Done():
		r.out.end(status)
	default:
		r.out.reply(data[:n])
	}
	return nil
}
