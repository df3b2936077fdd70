package proxy

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// live is what others than its own goroutine see of a task that runs. The
// session's mu guards it. There is no register of commands: who asks looks at
// the sessions, and at the list of tasks that each of them has.
type live struct {
	number     uint64 // of the command in its session
	since      time.Time
	user, name string
	listed     bool
	prev, next *task

	phase   Phase
	shard   string     // as far as it is known
	backend *backend   // likewise
	conn    *pool.Conn // that runs the command
	killed  *killed    // an operator ended the command; nil: none did

	waits context.Context // made when somebody waits on it, and kept: who has it may ask late
	stop  context.CancelCauseFunc
	halt  chan struct{} // likewise, see queues
}

// Phase is what a command that runs is doing.
type Phase string

// The phases.
const (
	PhaseBegins  Phase = "begins"  // nothing is asked of anybody yet
	PhaseHeld    Phase = "held"    // by a pause
	PhaseWaiting Phase = "waiting" // for a route, for its turn, or for a connection
	PhaseRunning Phase = "running" // on a backend
	PhaseReply   Phase = "reply"   // the backend is done, the client takes the reply
)

// list makes the task known to those who ask what runs.
func (s *session) list(t *task, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	t.live = live{number: s.total, since: now, user: t.cmd.User, name: t.cmd.Name, listed: true, phase: PhaseBegins, next: s.latest}
	if s.latest != nil {
		s.latest.live.prev = t
	}
	s.latest = t
}

// unlist ends what list began.
func (s *session) unlist(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &t.live
	if l.prev != nil {
		l.prev.live.next = l.next
	} else {
		s.latest = l.next
	}
	if l.next != nil {
		l.next.live.prev = l.prev
	}
	t.waited()
	t.live = live{number: l.number, waits: l.waits}
}

// hold remembers the connection that runs a task, so that cut and kill reach
// it. It reports false if one of them has been there.
func (s *session) hold(t *task, c *pool.Conn, from *backend) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &t.live
	l.conn, l.backend, l.shard, l.phase = c, from, t.res.shard, PhaseRunning
	return s.gone == nil && l.killed == nil
}

// drop forgets the connection that hold remembered.
func (s *session) drop(t *task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.live.conn, t.live.phase = nil, PhaseReply
}

// SessionStatus is a client connection at one moment.
type SessionStatus struct {
	ID          uint64
	Listener    string
	Client      string // empty: not logged in yet
	Peer        string // address and port; "local" on a UNIX socket
	Certificate string // its subject; empty: none
	TLS         bool
	Minor       doveadm.Minor // of the client's version
	Since       time.Time
	State       SessionState
	IdleSince   time.Time // zero: it is not idle
	Commands    uint64    // begun so far
	Running     []CommandStatus
}

// SessionState is what a session is doing.
type SessionState string

// The states of sessions.
const (
	SessionHandshake SessionState = "handshake" // not logged in yet
	SessionIdle      SessionState = "idle"      // waits for a command
	SessionBusy      SessionState = "busy"      // reads a command, or runs some
	SessionEnding    SessionState = "ending"    // no further command is read
)

// CommandStatus is a command that runs at one moment.
type CommandStatus struct {
	Session uint64
	Number  uint64 // in its session
	Client  string
	Peer    string
	User    string
	Command string
	Since   time.Time
	Phase   Phase
	Shard   string // empty: not known yet
	Backend string // likewise
}

// SessionList returns all sessions, the oldest first.
func (p *Proxy) SessionList() []SessionStatus {
	all := p.sorted()
	list := make([]SessionStatus, 0, len(all))
	for _, s := range all {
		list = append(list, s.status())
	}
	return list
}

// sorted returns the sessions, the oldest first.
func (p *Proxy) sorted() []*session {
	p.mu.Lock()
	all := make([]*session, 0, len(p.sessions))
	for s := range p.sessions {
		all = append(all, s)
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return all
}

func (s *session) status() SessionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SessionStatus{
		ID: s.id, Listener: s.settings.Name, Peer: s.peerName, TLS: s.known.tls, Client: s.known.client,
		Certificate: s.known.subject, Minor: s.known.minor, Since: s.since, Commands: s.total, State: SessionBusy,
	}
	switch {
	case s.ending || s.gone != nil:
		st.State = SessionEnding
	case !s.known.in:
		st.State = SessionHandshake
	case s.reading && s.latest == nil:
		st.State, st.IdleSince = SessionIdle, s.waiting
	}
	for t := s.latest; t != nil; t = t.live.next {
		st.Running = append(st.Running, s.command(t))
	}
	slices.Reverse(st.Running)
	return st
}

// command describes a task that is listed. The caller holds mu.
func (s *session) command(t *task) CommandStatus {
	l := &t.live
	c := CommandStatus{
		Session: s.id, Number: l.number, Client: s.known.client, Peer: s.peerName,
		// The line that a command was read from may be read over when it ends.
		User: strings.Clone(l.user), Command: strings.Clone(l.name),
		Since: l.since, Phase: l.phase, Shard: l.shard,
	}
	if l.backend != nil {
		c.Backend = l.backend.Name()
	}
	return c
}

// Commands returns the commands that run or wait, the oldest first.
func (p *Proxy) Commands() []CommandStatus {
	list := []CommandStatus{}
	if p.commands.Load() == 0 {
		return list
	}
	for _, s := range p.sorted() {
		if s.commands.Load() > 0 {
			list = append(list, s.status().Running...)
		}
	}
	slices.SortStableFunc(list, func(a, b CommandStatus) int { return a.Since.Compare(b.Since) })
	return list
}

// ClientStatus is a client of the configuration at one moment.
type ClientStatus struct {
	Name     string
	Priority string
	Sessions int
	Running  int // commands

	MaxSessions, MaxCommands int // 0: no limit of its own
	Rates                    config.Rates

	// Since the start of the process, or since the client was added.
	Commands uint64
	Failed   uint64 // of Commands: the client got a failure that is not its user's
	Bytes    uint64 // of replies
	Today    int64  // bytes that count against Rates.BytesPerDay
}

// Clients returns the clients in the order of the configuration.
func (p *Proxy) Clients() []ClientStatus {
	snap := p.snapshot.Load()
	running := make(map[string]int)
	for _, c := range p.Commands() {
		running[c.Client]++
	}
	list := make([]ClientStatus, 0, len(snap.config.Clients))
	for i := range snap.config.Clients {
		c := snap.clients[snap.config.Clients[i].Name]
		p.mu.Lock()
		sessions := p.admission.clients[c.Name]
		p.mu.Unlock()
		list = append(list, ClientStatus{
			Name: c.Name, Priority: c.Priority, Sessions: sessions, Running: running[c.Name],
			MaxSessions: c.MaxSessions, MaxCommands: c.MaxCommands, Rates: c.Rates,
			Commands: c.counts.commands.Load(), Failed: c.counts.failed.Load(), Bytes: c.counts.bytes.Load(),
			Today: c.budget.used(time.Now()),
		})
	}
	return list
}
