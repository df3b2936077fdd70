package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/identity"
	"github.com/doveadm-proxy/doveadm-proxy/internal/penalty"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsconn"
)

// session is one client connection from accept to close. Its goroutine reads
// commands and runs them, or starts the tasks that run them.
type session struct {
	proxy    *Proxy
	listener *listener
	settings *listenerSettings // of the listener when the session began
	socket   net.Conn          // as accepted
	records  *tlsconn.Socket   // of TLS; nil without it
	peer     identity.Peer     // what the connection tells of the client
	wire     *doveadm.ServerConn
	id       uint64
	peerName string
	tls      string    // its version; empty without it
	loginBy  time.Time // when it has to have logged in
	subject  string    // of the client's certificate
	address  netip.Addr
	client   string    // who it is
	tried    time.Time // when a login came
	counted  bool      // among the sessions of the client
	out      []byte    // used again by each task that runs alone
	alone    *task     // likewise; it runs alone

	pipeline pipeline
	tasks    sync.WaitGroup // those that run beside each other
	running  atomic.Int64   // how many of them there are
	broken   atomic.Bool    // no further reply is to be written
	commands atomic.Int64   // that run, also alone
	tunnels  atomic.Bool    // one of them is a tunnel, which reads what the client says
	knockAt  time.Time      // when to knock next; zero: the client may say more. Only watch uses it

	// writing is held while nc is written to. It guards partial and sender. When
	// it is not held, nc of a task that goes on has no write deadline.
	writing sync.Mutex
	partial bool // what is written next goes on with a packet
	sender  sender

	// nc is what the session speaks on: the socket, or TLS on it. It changes in
	// the handshake only, where mu guards it against endWhenIdle.
	nc net.Conn

	// mu guards what follows.
	mu       sync.Mutex
	reading  bool          // waits for a command
	waiting  time.Time     // since when
	quiet    time.Duration // unless 0: ends when its client is silent for so long
	ending   bool          // no further command is read
	gone     error         // why it was cut; nil: it was not
	bounded  bool          // nc has a read deadline from readUntil
	known    known         // who it is, once it has logged in
	latest   *task         // the newest of those that run; see live
	total    uint64        // commands so far
	killedBy *killed       // an operator ends the session; nil: none does
	cutter   *time.Timer   // cuts it, if it does not end by itself then
	since    time.Time     // does not change

	over      context.Context // see context
	end       context.CancelCauseFunc
	login     context.Context // see untilLate
	loginEnd  context.CancelFunc
	spareHalt chan struct{} // see queues
}

// logger returns the log of the session. It is made for each line, of which most
// sessions have none but those of their commands.
func (s *session) logger() hclog.Logger {
	log := s.proxy.log.With("session", s.id, "peer", s.peerName)
	if s.tls != "" {
		log = log.With("tls", s.tls)
	}
	return log
}

// debug logs what is of interest at level debug only.
func (s *session) debug(msg string, args ...any) {
	if s.proxy.log.IsDebug() {
		s.logger().Debug(msg, args...)
	}
}

// known is what others than the session's own goroutine see of its login.
type known struct {
	in              bool // logged in
	client, subject string
	tls             bool
	minor           doveadm.Minor
}

const (
	// failureDelay is how long a failed login waits for its answer.
	failureDelay = 500 * time.Millisecond
	// lingerTime and lingerBytes bound how long a session reads what its
	// client still sends after the proxy has closed, so that the last lines
	// reach the client instead of a reset.
	lingerTime  = 2 * time.Second
	lingerBytes = 32 << 20
)

func newSession(p *Proxy, l *listener, nc net.Conn) *session {
	return &session{
		id:       p.nextID.Add(1),
		since:    time.Now(),
		proxy:    p,
		listener: l,
		settings: l.settings.Load(),
		socket:   nc,
		nc:       nc,
		peerName: peerName(nc),
	}
}

func (s *session) serve() {
	defer s.forget()
	defer s.reportPanic()
	if err := s.handshake(); err != nil {
		return
	}
	s.serveCommands()
}

// reportPanic keeps a bug that one session found from ending all of them.
func (s *session) reportPanic() {
	if v := recover(); v != nil {
		s.proxy.meters.panics.Add(1)
		s.logger().Error("session ended by a bug", "panic", v, "stack", string(debug.Stack()))
	}
}

// forget closes the connection and takes the session out of the books. What
// there was to say before that has been said by linger.
func (s *session) forget() {
	s.socket.Close()
	s.tasks.Wait()
	s.mu.Lock()
	if s.end != nil {
		s.end(nil)
	}
	if s.cutter != nil {
		s.cutter.Stop()
	}
	s.mu.Unlock()
	s.proxy.left(s)
}

// handshake greets and logs the client in, all of it within one deadline.
func (s *session) handshake() error {
	limits := s.proxy.snapshot.Load().config.Limits
	deadline := time.Now().Add(limits.HandshakeTimeout)
	s.mu.Lock()
	s.reading, s.waiting = true, time.Now()
	if s.ending {
		deadline = time.Unix(1, 0)
	}
	s.nc.SetDeadline(deadline)
	s.mu.Unlock()
	s.loginBy = deadline
	defer s.endLogin()

	authenticate := func(username, password string) (bool, error) {
		s.client, s.tried = username, time.Now()
		if err := s.mayLogIn(); err != nil {
			return false, err
		}
		if ok, err := s.logIn(untilLate{s}, username, password); !ok || err != nil {
			return false, err
		}
		return true, s.proxy.admitClient(s)
	}
	err := s.greet(authenticate)
	if err == nil {
		s.mu.Lock()
		s.reading = false
		s.known = known{true, s.client, s.subject, s.nc != s.socket, s.wire.ClientMinor()}
		s.nc.SetDeadline(time.Time{})
		s.mu.Unlock()
		s.proxy.meters.logins[loggedIn].Add(1)
		s.debug("logged in", "client", s.client, "minor", uint32(s.wire.ClientMinor()))
		return nil
	}
	s.handshakeFailed(err, deadline)
	return err
}

// greet speaks the handshakes, that of TLS first where the listener wants it so.
func (s *session) greet(authenticate login) error {
	nc, mode := s.socket, s.settings.TLS.Mode
	if mode == config.TLSImplicit {
		var err error
		if nc, err = s.startTLS(nc); err != nil {
			return err
		}
	}
	s.wire = doveadm.NewServerConn(nc, 0)
	if mode == config.TLSStartTLS || mode == config.TLSStartTLSRequired {
		s.wire.StartTLS = s.startTLS
	}
	switch known, err := s.recognize(); {
	case err != nil:
		return err
	case known:
		authenticate = nil
		if err := s.proxy.admitClient(s); err != nil {
			return err
		}
	}
	return s.wire.Handshake(authenticate)
}

func (s *session) handshakeFailed(err error, deadline time.Time) {
	var bad *doveadm.ProtocolError
	var inTLS *tlsFailure
	var inClear *clearTextRefused
	var many *tooMany
	var penalized *penalty.TooManyError
	switch {
	case errors.As(err, &many):
		s.loginFailed(loginLimit, many.reason)
		s.auditRefused(loginLimit, many.reason)
		s.logger().Warn("session refused", "client", printable(s.client), "outcome", loginLimit.String(), "reason", many.reason)
		s.wire.Refuse(logPrefix + many.reason)
		s.linger()
		return
	case errors.Is(err, doveadm.ErrLoginFailed):
		s.loginFailed(loginWrong, "wrong name or password")
		s.auditRefused(loginWrong, "")
		s.logger().Warn("login failed: wrong name or password", "client", printable(s.client), "outcome", loginWrong.String())
	case errors.As(err, &inClear):
		s.loginFailed(loginClear, inClear.reason)
		s.auditRefused(loginClear, inClear.reason)
		s.logger().Warn("login refused", "client", printable(s.client), "outcome", loginClear.String(), "reason", inClear.reason)
	case errors.As(err, &inTLS) && inTLS.isOver():
		s.loginFailed(loginGone, err.Error())
		s.debug("handshake failed", "outcome", loginGone.String(), "reason", err)
		return
	case errors.As(err, &inTLS):
		s.loginFailed(loginTLS, inTLS.explain())
		s.logger().Warn("handshake failed", "outcome", loginTLS.String(), "reason", inTLS.explain())
		s.linger() // for the client to read the alert
		return
	case errors.As(err, &bad):
		s.loginFailed(loginAlien, bad.What)
		s.logger().Warn("handshake failed", "outcome", loginAlien.String(), "reason", bad.What)
	case errors.As(err, &penalized):
		s.loginFailed(loginPenalty, penalized.Error())
		if penalized.Tell {
			s.logger().Warn("login refused: "+penalized.Error(), "client", printable(s.client), "others_meanwhile", penalized.Others, "outcome", loginPenalty.String())
			s.auditRefused(loginPenalty, penalized.Error())
		}
	case errors.Is(err, auth.ErrBusy):
		s.proxy.loginStat.busy.Add(1)
		reason := "the password could not be checked within handshake_timeout: " + auth.ErrBusy.Error()
		s.loginFailed(loginBusy, reason)
		s.logger().Warn("handshake failed", "outcome", loginBusy.String(), "reason", reason)
		return
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		s.loginFailed(loginLate, "not logged in within handshake_timeout")
		s.logger().Warn("handshake failed", "outcome", loginLate.String(), "reason", "not logged in within handshake_timeout")
		return
	case s.goneAfterTLS(err):
		s.loginFailed(loginTLS, "the client went away after the TLS handshake")
		s.logger().Info("handshake failed", "outcome", loginTLS.String(), "reason", "the client went away after the TLS handshake, as a doveadm does that refuses our certificate: "+certificateHint)
		return
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		s.loginFailed(loginGone, err.Error())
		s.debug("handshake failed", "outcome", loginGone.String(), "reason", err)
		return
	default:
		s.loginFailed(loginError, err.Error())
		s.logger().Info("handshake failed", "outcome", loginError.String(), "reason", err)
		return
	}
	// Dovecot answers at once; a guesser shall not learn as fast, nor how long
	// it took to find out.
	tried := s.tried
	if tried.IsZero() {
		tried = time.Now()
	}
	pause := time.NewTimer(min(time.Until(tried.Add(failureDelay)), time.Until(deadline)))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.context().Done():
	}
	s.wire.RefuseLogin()
	s.linger()
}

// loginFailed counts a handshake that failed.
func (s *session) loginFailed(r loginResult, reason string) {
	s.proxy.meters.logins[r].Add(1)
	s.failed("login", r.String(), reason)
}

// failed remembers what went wrong with the session.
func (s *session) failed(kind, what, reason string) {
	s.proxy.meters.failures.add(Failure{
		Kind: kind, What: what, At: time.Now(),
		Peer: s.peerName, Client: printable(strings.Clone(s.client)), Reason: printable(reason),
	})
}

// serveCommands waits for commands and has each carried out. What waits has a
// small frame: with it a session that says nothing keeps a stack of 4 KB, which
// is what the garbage collector makes of one whose calls fit in a quarter of it.
func (s *session) serveCommands() {
	for s.mayRead() {
		t := s.nextTask()
		err := s.wire.ReadCommand(&t.cmd)
		if errors.Is(err, os.ErrDeadlineExceeded) && s.running.Load() > 0 {
			// Who waits for replies is not idle. What has been read of a
			// line is kept.
			s.waitForTasks()
			continue
		}
		if s.stillTalks(err) {
			continue
		}
		if !s.begin(err) {
			return
		}
		if !s.carryOut(t) {
			break
		}
	}
	s.waitForTasks()
	s.linger()
}

// nextTask returns the task of the next command.
//
//go:noinline
func (s *session) nextTask() *task {
	// Who was given the context of the last one may ask it for a while yet: a
	// timer that ended just now, or a library.
	if s.alone == nil || s.alone.live.waits != nil {
		s.alone = new(task)
	}
	t := s.alone
	*t = task{session: s, cmd: t.cmd}
	t.out.task = t
	return t
}

// carryOut handles the command of t. It returns false if the session cannot go
// on.
//
//go:noinline
func (s *session) carryOut(t *task) bool {
	t.request, t.refused = prepare(&t.cmd, s.wire.ClientMinor())
	if t.refused == nil {
		t.refused = s.authorize(&t.request)
	}
	whole := true
	if t.request.info.Input {
		whole = s.takeInput(t)
	}
	if t.request.userColumn {
		if n, _ := t.request.info.Columns(t.cmd.Args); n > 0 {
			t.out.column = newUserColumn(t.cmd.User, n)
		}
	}
	return s.dispatch(t) && whole
}

// dispatch runs a task, or starts it where the client has sent more commands
// ahead. It reports whether the session goes on.
func (s *session) dispatch(t *task) bool {
	depth := max(s.proxy.snapshot.Load().clients[s.client].PipelineDepth, 1)
	ahead := depth > 1 && s.pipelined()
	if t.request.info.Tunnel || !ahead && s.running.Load() == 0 {
		s.waitForTasks()
		keep := s.runAlone(t)
		s.wire.Shrink()
		return keep
	}
	beside := &task{session: s, cmd: t.cmd, input: t.input, read: t.read, request: t.request, refused: t.refused}
	beside.request.cmd = &beside.cmd
	beside.out.task, beside.out.column = beside, t.out.column
	t.cmd = doveadm.Command{} // its slices belong to the other one now
	s.runBeside(beside, depth)
	return true
}

// pipelined reports whether the client has sent more than what was read.
func (s *session) pipelined() bool {
	if s.wire.Pipelined() || s.records == nil {
		return s.wire.Pipelined()
	}
	// A client may send each command in a record of its own.
	return s.records.Now(s.wire.ReadAhead) == nil
}

// mayRead prepares for the next command and reports whether there shall be
// one.
func (s *session) mayRead() bool {
	idle := s.proxy.snapshot.Load().config.Limits.IdleTimeout
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending || s.gone != nil {
		return false
	}
	s.reading, s.waiting = true, time.Now()
	switch {
	case s.quiet > 0 && (idle == 0 || idle > s.quiet):
		s.readUntil(s.waiting.Add(s.quiet))
	case idle > 0:
		s.readUntil(s.waiting.Add(idle))
	}
	return true
}

// readUntil bounds the wait for a command. The caller holds mu.
func (s *session) readUntil(deadline time.Time) {
	s.bounded = true
	s.nc.SetReadDeadline(deadline)
}

// begin takes a command that was read and reports whether it is to be run.
func (s *session) begin(err error) bool {
	s.mu.Lock()
	s.reading = false
	if err == nil && s.bounded {
		// That is over commands, not over input and tunnels.
		s.bounded = false
		s.nc.SetReadDeadline(time.Time{})
	}
	gone, ending := s.gone, s.ending || s.quiet > 0
	s.mu.Unlock()
	if err == nil {
		return gone == nil
	}

	s.waitForTasks()
	var flag doveadm.UnknownFlagError
	switch {
	case s.broken.Load():
		s.debug("session closed after a command")
		s.linger()
	case gone != nil:
		s.debug("session closed", "reason", gone)
	case s.wasKilled() != nil:
		s.tellKilled()
	case ending:
		s.debug("session closed", "reason", errShutdown)
		s.linger()
	case errors.Is(err, io.EOF):
		s.debug("session closed by client")
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.logger().Info("session closed", "reason", "idle_timeout", "client", s.client)
		closeWrite(s.nc)
	case errors.Is(err, doveadm.ErrNoCommand):
		s.refuseLine(lineEmpty, "doveadm client: "+err.Error())
	case errors.Is(err, doveadm.ErrNUL):
		s.refuseLine(lineNUL, "doveadm client: "+err.Error())
	case errors.As(err, &flag):
		s.refuseLine(lineFlag, "doveadm client: "+err.Error())
	case errors.Is(err, doveadm.ErrLineTooLong):
		s.refuseLine(lineLong, fmt.Sprintf("doveadm client: command line is longer than %d bytes", doveadm.MaxLine))
	default:
		s.logger().Info("session lost", "client", s.client, "error", err)
	}
	return false
}

// refuseLine ends a session after a line that is no command, as Dovecot does:
// a log line and no status.
func (s *session) refuseLine(what badLine, text string) {
	s.proxy.meters.badLines[what].Add(1)
	s.failed("line", what.String(), text)
	s.logger().Warn("session closed", "client", s.client, "outcome", what.String(), "reason", text)
	s.out = s.wire.AppendLog(s.out[:0], doveadm.LogError, logPrefix+text)
	s.write(s.out)
	s.linger()
}

// logPrefix begins the log lines that clients get from the proxy itself.
const logPrefix = "doveadm-proxy: "

// writePiece is what a client has write_timeout to take, so that a slow one is
// not taken for one that takes nothing.
const writePiece = 16 << 10

// write sends p, each piece of it within write_timeout. Most replies fit into
// the socket, and need no deadline.
func (s *session) write(p []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.partial = true
	p, err := s.trySend(p)
	if err != nil {
		return err
	}
	if len(p) > 0 {
		timeout := s.proxy.snapshot.Load().config.Limits.WriteTimeout
		for len(p) > 0 {
			n := min(len(p), writePiece)
			s.nc.SetWriteDeadline(time.Now().Add(timeout))
			if _, err := s.nc.Write(p[:n]); err != nil {
				return explainWrite(err, timeout)
			}
			p = p[n:]
		}
		s.nc.SetWriteDeadline(time.Time{})
	}
	s.partial = false
	return nil
}

// explainWrite names the limit that a write to a client ran into.
func explainWrite(err error, timeout time.Duration) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the client took nothing for %s (limits.write_timeout)", timeout)
	}
	return err
}

// linger ends the connection so that the client reads everything that was
// written: closing with unread bytes would send a reset, which overtakes them.
func (s *session) linger() {
	if closeWrite(s.nc) != nil {
		return
	}
	s.mu.Lock()
	s.nc.SetReadDeadline(time.Now().Add(lingerTime))
	s.mu.Unlock()
	io.CopyN(io.Discard, s.nc, lingerBytes)
}

// endWhenIdle makes the session close: now if it waits for a command, else
// after the one that runs.
func (s *session) endWhenIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	if s.reading {
		s.readUntil(time.Unix(1, 0))
	}
}

// cut ends the session in the middle of what it does, without waiting.
func (s *session) cut(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.gone == nil
	if first {
		s.gone = why
	}
	if s.end != nil {
		s.end(why)
	}
	s.socket.Close()
	for t := s.latest; t != nil; t = t.live.next {
		if first && t.live.killed == nil {
			t.stopWaiting()
		}
		if t.live.conn != nil {
			t.live.conn.Cut()
		}
	}
}

// wasCut returns why the session has been cut, nil if it has not.
func (s *session) wasCut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// printable makes text from a peer fit for a log.
func printable(text string) string {
	if len(text) > 256 {
		text = text[:256] + "..."
	}
	for _, r := range text {
		if !strconv.IsPrint(r) {
			return strconv.Quote(text)
		}
	}
	return text
}
