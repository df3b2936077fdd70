package main

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

const (
	// patience is how long a client waits for an answer. It is far more than
	// all timeouts of the proxy and the longest fault together.
	patience = 60 * time.Second
	// A client that cannot connect waits so long.
	reconnectPause = 50 * time.Millisecond
)

// way is how a client reaches the proxy.
type way struct {
	name string // as the target of a fault
	addr string
	tls  *tls.Config // nil: none
}

// worker is a client with its own users.
type worker struct {
	ledger   *ledger.Ledger
	way      way
	username string // empty: the usual one
	password string
	users    []*user
	random   *rand.Rand

	perSession int           // commands until it connects anew
	ahead      int           // commands sent without waiting for replies
	leaves     bool          // closes now and then without waiting for a reply
	pause      time.Duration // between commands, on average
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !w.session(ctx) {
			w.sleep(ctx, reconnectPause)
		}
	}
}

func (w *worker) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// session connects and runs some commands. It reports false if it could not
// connect.
func (w *worker) session(ctx context.Context) bool {
	minor := doveadm.Minor(w.random.IntN(int(doveadm.MaxMinor) + 1))
	login := w.ledger.Send(ledger.Command{Name: "login", Path: w.path()})
	s, err := w.connect(minor)
	if err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) { // else it is never told
			w.ledger.Tell(login, ledger.Ended, "", err.Error(), "")
		}
		return false
	}
	w.ledger.Tell(login, ledger.Succeeded, "", "", "")
	defer s.conn.Close()
	for n := 0; n < w.perSession && ctx.Err() == nil; {
		cs := w.batch()
		n += len(cs)
		last := n >= w.perSession && w.random.IntN(2) == 0
		if !s.run(cs, last) {
			break
		}
		w.sleep(ctx, w.pause*time.Duration(len(cs))*time.Duration(50+w.random.IntN(100))/100)
	}
	return true
}

func (w *worker) path(more ...string) []string {
	return append([]string{ledger.Proxy, w.way.name}, more...)
}

// batch makes the commands that are sent without waiting: each for another
// user, because only what is known before they are sent is true.
func (w *worker) batch() []*command {
	n := 1
	if w.ahead > 1 {
		n += w.random.IntN(min(w.ahead, len(w.users)))
	}
	var cs []*command
	for _, i := range w.random.Perm(len(w.users))[:n] {
		u := w.users[i]
		c := pick(u, w.random)
		c.Path = w.path(u.shard)
		cs = append(cs, c)
	}
	return cs
}

// session is a connection of a worker.
type session struct {
	worker *worker
	nc     net.Conn
	conn   *doveadm.ClientConn
	rest   []byte // arrived behind the last reply
}

func (w *worker) connect(minor doveadm.Minor) (*session, error) {
	deadline := time.Now().Add(patience)
	d := net.Dialer{Deadline: deadline}
	nc, err := d.Dial("tcp", w.way.addr)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(deadline)
	if w.way.tls != nil {
		nc = tls.Client(nc, w.way.tls)
	}
	conn, err := doveadm.NewClientConn(nc, doveadm.ClientOptions{Username: w.username, Password: w.password, Minor: minor})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &session{worker: w, nc: nc, conn: conn}, nil
}

// run sends the commands and reads their replies. The last commands of a
// session may be followed by the end of what the client says. It reports
// whether the session goes on.
func (s *session) run(cs []*command, last bool) bool {
	l := s.worker.ledger
	s.nc.SetDeadline(time.Now().Add(patience))
	entries := make([]*ledger.Entry, len(cs))
	for n, c := range cs {
		entries[n] = l.Send(c.Command)
	}
	var sent error
	for _, c := range cs {
		if sent = s.send(c); sent != nil {
			break
		}
	}
	if s.worker.leaves && s.worker.random.IntN(3) == 0 {
		for _, e := range entries {
			l.Tell(e, ledger.Left, "", "", "")
		}
		return false
	}
	if half, ok := s.nc.(interface{ CloseWrite() error }); ok && last && sent == nil {
		sent = half.CloseWrite()
	}
	for n, c := range cs {
		// Also if not all could be sent: what was answered before has arrived.
		if err := s.read(c, entries[n]); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return false // they stay without an answer
			}
			for _, e := range entries[n:] {
				l.Tell(e, ledger.Ended, "", errors.Join(sent, err).Error(), "")
			}
			return false
		}
	}
	return !last
}

func (s *session) send(c *command) error {
	if err := s.conn.Send(&c.request); err != nil {
		return err
	}
	if c.input == nil {
		return nil
	}
	w := doveadm.NewInputWriter(s.nc)
	if _, err := w.Write(c.input); err != nil {
		return err
	}
	return w.Close()
}

// read reads one reply and tells the ledger.
func (s *session) read(c *command, e *ledger.Entry) error {
	var (
		scan   doveadm.ReplyScanner
		output []byte
		logs   []byte
	)
	for !scan.Done() {
		data := s.rest
		s.rest = nil
		if len(data) == 0 {
			chunk, err := s.conn.ReadChunk()
			if err != nil {
				return err
			}
			if chunk.Channel == doveadm.ChannelLog {
				logs = append(logs, chunk.Data...)
			}
			if chunk.Channel != doveadm.ChannelReply {
				continue
			}
			data = chunk.Data
		}
		n, consumed, err := scan.Scan(data)
		output = append(output, data[:n]...)
		if err != nil {
			return err
		}
		if consumed < len(data) {
			s.rest = append([]byte(nil), data[consumed:]...)
		}
	}
	status := scan.Status()
	answer, problem := c.judge(output, status)
	if status.OK && c.done != nil {
		c.done()
	}
	s.worker.ledger.Tell(e, answer, status.Code, proxyLines(string(logs)), problem)
	return nil
}

// fields returns the fields of a reply's output.
func fields(output []byte) []string {
	if len(output) == 0 {
		return nil
	}
	var found []string
	for field := range strings.SplitSeq(strings.TrimSuffix(string(output), "\t"), "\t") {
		found = append(found, string(doveadm.Unescape([]byte(field))))
	}
	return found
}

// proxyLines returns the proxy's own lines of a log channel: what it explains.
func proxyLines(logs string) string {
	var found []string
	for line := range strings.Lines(logs) {
		if _, text, ok := strings.Cut(line, "doveadm-proxy: "); ok {
			found = append(found, strings.TrimSpace(text))
		}
	}
	return strings.Join(found, "; ")
}
