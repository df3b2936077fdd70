package proxy

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
	"github.com/doveadm-proxy/doveadm-proxy/internal/history"
)

// classes is how many classes of commands there are.
const classes = int(doveadm.ClassSlow) + 1

// meters count what becomes of sessions and commands, from the start to the end
// of the process: they do not belong to a snapshot. What counts is found when
// the snapshot is built, so that a command only adds to atomics: it takes no
// lock, allocates nothing and looks nothing up.
type meters struct {
	nowhere   backendMeter // commands that went to no backend
	elsewhere backendMeter // servers that only referrals name, all of them

	logins   [loginResults]atomic.Uint64
	badLines [badLineKinds]atomic.Uint64
	refused  [connRefusals]atomic.Uint64 // connections
	panics   atomic.Uint64

	commands history.Commands
	failures failures

	mu       sync.Mutex // guards what follows
	backends map[string]*backendMeter
	clients  map[string]*clientMeter
	routes   map[string]*atomic.Uint64 // commands that a route decided about
}

// backendMeter counts the commands for a backend.
type backendMeter struct {
	classes        [classes]classMeter
	replies        [replyKinds]atomic.Uint64 // those of outcome answered
	output         atomic.Uint64             // bytes of replies
	input          atomic.Uint64             // bytes of inputs
	retries        atomic.Uint64             // commands sent again
	retriesRefused atomic.Uint64             // not sent again, because there were too many
	referrals      atomic.Uint64             // commands that it sent elsewhere, where the proxy went
	failovers      atomic.Uint64             // commands that another backend of the shard ran in its place
}

// classMeter counts the commands of a class.
type classMeter struct {
	outcomes  [outcomes]atomic.Uint64
	wait      histogram.Histogram // for a connection
	firstByte histogram.Histogram // from there to the first byte of the reply
	total     histogram.Histogram // from the end of the request to the end of the reply
}

// clientMeter counts what a client does.
type clientMeter struct {
	outcomes [outcomes]atomic.Uint64
}

// replyKind is the status of a reply that arrived whole.
type replyKind uint8

const (
	replyOK replyKind = iota
	replyNoUser
	replyNotFound
	replyTempFail
	replyNoPerm
	replyUsage
	replyFailed // without a code, or with one that nobody knows
	replyKinds  = iota
)

var replyWords = [replyKinds]string{"ok", "nouser", "notfound", "tempfail", "noperm", "usage", "failed"}

func (k replyKind) String() string { return replyWords[k] }

func kindOf(s doveadm.Status) replyKind {
	switch {
	case s.OK:
		return replyOK
	case s.Code == doveadm.CodeNoUser:
		return replyNoUser
	case s.Code == doveadm.CodeNotFound:
		return replyNotFound
	case s.Code == doveadm.CodeTempFail:
		return replyTempFail
	case s.Code == doveadm.CodeNoPerm:
		return replyNoPerm
	case s.Code == doveadm.CodeUsage:
		return replyUsage
	}
	return replyFailed
}

// loginResult is how a handshake with a client ended. The words of those that
// the audit log has are the same there.
type loginResult uint8

const (
	loggedIn     loginResult = iota
	loginWrong               // name or password
	loginClear               // in clear text, where that is not allowed
	loginLimit               // right, but there are too many sessions
	loginPenalty             // refused without a look at the password (login_defence)
	loginBusy                // too many passwords were to be checked
	loginAlien               // what connects is no doveadm client
	loginTLS                 // the TLS handshake
	loginLate                // not within handshake_timeout
	loginGone                // the client went away
	loginError               // anything else
	loginResults = iota
)

var loginWords = [loginResults]string{"ok", "wrong", "clear-text", "limit", "penalty", "busy", "protocol", "tls", "timeout", "gone", "error"}

func (r loginResult) String() string { return loginWords[r] }

// badLine is what is wrong with a line that is no command.
type badLine uint8

const (
	lineEmpty badLine = iota
	lineNUL
	lineFlag
	lineLong
	badLineKinds = iota
)

var badLineWords = [badLineKinds]string{"no-command", "nul", "unknown-flag", "too-long"}

func (b badLine) String() string { return badLineWords[b] }

// connRefusal is why a connection is not let in.
type connRefusal uint8

const (
	refusedEnding    connRefusal = iota
	refusedSessions              // limits.max_sessions
	refusedListener              // max_sessions of the listener
	refusedAddress               // limits.max_sessions_per_address
	refusedResources             // files or memory
	connRefusals     = iota
)

var connRefusalWords = [connRefusals]string{"shutting-down", "max-sessions", "listener", "address", "resources"}

func (r connRefusal) String() string { return connRefusalWords[r] }

func newMeters() *meters {
	return &meters{backends: make(map[string]*backendMeter), clients: make(map[string]*clientMeter), routes: make(map[string]*atomic.Uint64)}
}

// backend returns the meter of a backend by its name.
func (m *meters) backend(name string) *backendMeter { return meterOf(&m.mu, m.backends, name) }

// client returns the meter of a client by its name.
func (m *meters) client(name string) *clientMeter { return meterOf(&m.mu, m.clients, name) }

// route returns the counter of a route by its name.
func (m *meters) route(name string) *atomic.Uint64 { return meterOf(&m.mu, m.routes, name) }

func meterOf[M any](mu *sync.Mutex, all map[string]*M, name string) *M {
	mu.Lock()
	defer mu.Unlock()
	found, ok := all[name]
	if !ok {
		found = new(M)
		all[name] = found
	}
	return found
}

// keep forgets what a snapshot has no more.
func (m *meters) keep(s *snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.backends {
		if _, ok := s.pools[name]; !ok {
			delete(m.backends, name)
		}
	}
	for name := range m.routes {
		if _, ok := s.decided[name]; !ok {
			delete(m.routes, name)
		}
	}
	for name := range m.clients {
		if _, ok := s.clients[name]; !ok {
			delete(m.clients, name)
		}
	}
}

// count adds a command that has ended to everything that counts it.
func (t *task) count(c client, now time.Time, took time.Duration) {
	m := t.session.proxy.meters
	o := t.res.outcome
	at := t.res.meter
	if at == nil {
		at = &m.nowhere
	}
	class := &at.classes[t.request.info.Class()]
	class.outcomes[o].Add(1)
	if c.meter != nil {
		c.meter.outcomes[o].Add(1)
	}
	if t.res.meter != nil {
		class.wait.Observe(t.res.wait)
		if t.res.backend != "" {
			class.total.Observe(took)
		}
		if t.res.firstByte > 0 {
			class.firstByte.Observe(t.res.firstByte)
		}
		at.output.Add(uint64(t.res.bytes))
		at.input.Add(uint64(t.read))
	}
	if m.commands.IsSlow(now, took) {
		m.commands.AddSlow(t.forHistory(now, took))
	}
	if o == answered {
		kind := kindOf(t.res.status)
		at.replies[kind].Add(1)
		if kind > replyNotFound { // the others are ordinary answers
			m.failures.add(t.failure("reply", kind.String(), now))
		}
		return
	}
	m.commands.AddFailed(t.forHistory(now, took))
	m.failures.add(t.failure("command", o.String(), now))
}

// forHistory returns what others may see of the command. Its strings are its
// own: those of the command live in a buffer that is used again.
func (t *task) forHistory(now time.Time, took time.Duration) *history.Command {
	return &history.Command{
		Ended: now, Session: t.session.id,
		Client: printable(strings.Clone(t.session.client)), User: printable(strings.Clone(t.cmd.User)), Name: printable(strings.Clone(t.cmd.Name)),
		Backend: t.res.backend, Outcome: t.res.outcome.String(), Status: t.res.status.String(), Reason: printable(t.res.reason),
		Wait: t.res.wait, Took: took, Bytes: t.res.bytes,
	}
}

func (t *task) failure(kind, what string, now time.Time) Failure {
	return Failure{
		Kind: kind, What: what, At: now,
		Client: printable(strings.Clone(t.session.client)), User: printable(strings.Clone(t.cmd.User)), Command: printable(strings.Clone(t.cmd.Name)),
		Backend: t.res.on(), Reason: printable(t.res.reason), Status: t.res.status.String(),
	}
}
