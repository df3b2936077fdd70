package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func runningVerbs() []verb {
	return []verb{
		{"GET /v1/clients", Viewer, "The clients of the configuration, with what they have and did.", (*Server).clients},
		{"GET /v1/sessions", Viewer, "The connections of clients.", (*Server).sessions},
		{"GET /v1/commands", Viewer, "What runs now, since when, for whom and where.", (*Server).commands},
		{"POST /v1/sessions/{session}/kill", Operator, "Ends a session and its commands; the client is told.", (*Server).killSession},
		{"POST /v1/sessions/{session}/commands/{number}/kill", Operator, "Ends a command; the client is told, and the session goes on.", (*Server).killCommand},
	}
}

// Session is a connection of a client.
type Session struct {
	ID          uint64     `json:"id"`
	Listener    string     `json:"listener"`
	Client      string     `json:"client,omitempty"` // nothing before the login
	Peer        string     `json:"peer"`             // address and port, or local
	TLS         bool       `json:"tls"`
	Certificate string     `json:"certificate,omitempty"`
	Version     string     `json:"version,omitempty"` // of the protocol that the client speaks
	Since       time.Time  `json:"since"`
	State       string     `json:"state"` // handshake, idle, busy, ending
	IdleSince   *time.Time `json:"idle_since,omitempty"`
	Commands    uint64     `json:"commands"` // begun so far
	Running     []Command  `json:"running"`
}

// Sessions is the answer with all of them, the oldest first.
type Sessions struct {
	Sessions []Session `json:"sessions"`
}

// Command is a command that runs or waits. Its ID is what kill takes.
type Command struct {
	ID      string    `json:"id"` // session, dot, number in the session
	Session uint64    `json:"session"`
	Number  uint64    `json:"number"`
	Client  string    `json:"client"`
	Peer    string    `json:"peer"`
	User    string    `json:"user"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
	Phase   string    `json:"phase"` // begins, held, waiting, running, reply
	Shard   string    `json:"shard,omitempty"`
	Backend string    `json:"backend,omitempty"`
}

// Commands is the answer with all of them, the oldest first.
type Commands struct {
	Commands []Command `json:"commands"`
}

// ClientState is a client of the configuration.
type ClientState struct {
	Name        string `json:"name"`
	Priority    string `json:"priority"`
	Sessions    int    `json:"sessions"`
	Running     int    `json:"running"`                // commands
	MaxSessions int    `json:"max_sessions,omitempty"` // nothing: no limit of its own
	MaxCommands int    `json:"max_commands,omitempty"` // likewise

	RateLimit      int   `json:"rate_limit,omitempty"` // commands a second
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	BytesPerDay    int64 `json:"bytes_per_day,omitempty"`
	BytesToday     int64 `json:"bytes_today,omitempty"` // counted if there is a limit of them

	// Since the start of the process.
	Commands uint64 `json:"commands"`
	Failed   uint64 `json:"failed"` // of commands: not for a reason of the client or its user
	Bytes    uint64 `json:"bytes"`  // of replies
}

// Clients is the answer with all of them, in the order of the configuration.
type Clients struct {
	Clients []ClientState `json:"clients"`
}

// Done is the answer of what has been done and has nothing else to say.
type Done struct {
	Done string `json:"done"` // in words
}

func moment(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

func viewCommand(c *proxy.CommandStatus) Command {
	return Command{
		ID: fmt.Sprintf("%d.%d", c.Session, c.Number), Session: c.Session, Number: c.Number, Client: c.Client, Peer: c.Peer, User: c.User,
		Command: c.Command, Since: moment(c.Since), Phase: string(c.Phase), Shard: c.Shard, Backend: c.Backend,
	}
}

func (s *Server) clients(w http.ResponseWriter, _ *http.Request) {
	all := Clients{Clients: []ClientState{}}
	for _, c := range s.proxy.Clients() {
		all.Clients = append(all.Clients, ClientState{
			Name: c.Name, Priority: c.Priority, Sessions: c.Sessions, Running: c.Running, MaxSessions: c.MaxSessions, MaxCommands: c.MaxCommands,
			RateLimit: c.Rates.Commands, BytesPerSecond: c.Rates.BytesPerSecond, BytesPerDay: c.Rates.BytesPerDay, BytesToday: c.Today,
			Commands: c.Commands, Failed: c.Failed, Bytes: c.Bytes,
		})
	}
	answer(w, http.StatusOK, all)
}

func (s *Server) sessions(w http.ResponseWriter, _ *http.Request) {
	all := Sessions{Sessions: []Session{}}
	for _, c := range s.proxy.SessionList() {
		one := Session{
			ID: c.ID, Listener: c.Listener, Client: c.Client, Peer: c.Peer, TLS: c.TLS, Certificate: c.Certificate, Since: moment(c.Since),
			State: string(c.State), IdleSince: optional(c.IdleSince), Commands: c.Commands, Running: []Command{},
		}
		if c.Client != "" {
			one.Version = fmt.Sprintf("1.%d", c.Minor)
		}
		for _, r := range c.Running {
			one.Running = append(one.Running, viewCommand(&r))
		}
		all.Sessions = append(all.Sessions, one)
	}
	answer(w, http.StatusOK, all)
}

func (s *Server) commands(w http.ResponseWriter, _ *http.Request) {
	all := Commands{Commands: []Command{}}
	for _, c := range s.proxy.Commands() {
		all.Commands = append(all.Commands, viewCommand(&c))
	}
	answer(w, http.StatusOK, all)
}

// number returns a number of the path, 0 for what is none: no session and no
// command has it.
func number(r *http.Request, name string) uint64 {
	n, _ := strconv.ParseUint(r.PathValue(name), 10, 64)
	return n
}

func (s *Server) killSession(w http.ResponseWriter, r *http.Request) {
	err := s.proxy.KillSession(number(r, "session"), callerOf(r.Context()).who())
	s.killed(w, "the session "+r.PathValue("session")+" is ended", err)
}

func (s *Server) killCommand(w http.ResponseWriter, r *http.Request) {
	err := s.proxy.KillCommand(number(r, "session"), number(r, "number"), callerOf(r.Context()).who())
	s.killed(w, "the command "+r.PathValue("session")+"."+r.PathValue("number")+" is ended", err)
}

func (s *Server) killed(w http.ResponseWriter, done string, err error) {
	switch {
	case errors.Is(err, proxy.ErrReplying):
		fail(w, http.StatusConflict, err)
	case err != nil:
		fail(w, http.StatusNotFound, err)
	default:
		answer(w, http.StatusOK, Done{done})
	}
}
