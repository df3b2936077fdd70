package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/moves"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

func moveVerbs() []verb {
	return []verb{
		{"GET /v1/users", Viewer, "The users who were moved, one JSON object a line.", (*Server).movedUsers},
		{"GET /v1/users/{user}", Viewer, "Where a user is, and why.", (*Server).showUser},
		{"POST /v1/users/{user}/refresh", Operator, "Has the lookups asked anew about a user, and answers where the user is then.", (*Server).refreshUser},
		{"POST /v1/lookups/refresh", Operator, "Has the lookups asked anew about all users.", (*Server).refreshAll},
		{"POST /v1/users/{user}/move", Operator, "Moves a user to another shard, with a JSON object a line for each step.", (*Server).moveUser},
		{"POST /v1/users/{user}/forget", Operator, "Moves a user back to where the routes say, likewise.", (*Server).forgetUser},
	}
}

// MovedUser is a user with an exception; a line of GET /v1/users.
type MovedUser struct {
	User  string    `json:"user"`
	Shard string    `json:"shard"`
	From  string    `json:"from,omitempty"` // the shard where the user was
	Since time.Time `json:"since"`
}

// User is where a user is, and why.
type User struct {
	User     string     `json:"user"`            // in normal form
	Shard    string     `json:"shard,omitempty"` // empty: none, or Error says why it is not known
	Route    string     `json:"route,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Error    string     `json:"error,omitempty"`
	Backends []string   `json:"backends,omitempty"` // in the order in which they are asked
	Home     string     `json:"home,omitempty"`     // the shard without an exception
	HomeBy   string     `json:"home_route,omitempty"`
	Asked    []Asked    `json:"asked,omitempty"`
	Moved    *MovedUser `json:"exception,omitempty"`
	Move     *Underway  `json:"move,omitempty"`
	Running  int        `json:"running"` // commands on this proxy
	Waiting  int        `json:"waiting"` // likewise, for the end of a move
}

// Asked is what a route answered about a user; the last one asked decides.
type Asked struct {
	Route  string `json:"route"`
	Shard  string `json:"shard,omitempty"` // or the address of a server; empty: the next route is asked
	Reason string `json:"reason,omitempty"`
	Error  string `json:"error,omitempty"` // it could not find out
}

// Underway is a move that is being made.
type Underway struct {
	ID    string    `json:"id"`
	To    string    `json:"to"`
	By    string    `json:"by"` // the proxy
	Phase string    `json:"phase"`
	Since time.Time `json:"since"`
}

// MoveRequest says how a user is to be moved.
type MoveRequest struct {
	Shard     string `json:"shard,omitempty"` // not of forget
	Copy      bool   `json:"copy,omitempty"`
	MaxHoldMS int64  `json:"max_hold_ms,omitempty"` // 0: as it is configured
}

// MoveStep is a line of the answer to a MoveRequest: a step, or the end.
type MoveStep struct {
	Step   string      `json:"step,omitempty"`
	Detail string      `json:"detail,omitempty"`
	Result *MoveResult `json:"result,omitempty"`
	Error  string      `json:"error,omitempty"` // the end: the user was not moved, unless Unknown
	// Unknown: the database was lost at the very moment, and will say it.
	Unknown bool `json:"unknown,omitempty"`
}

// MoveResult is what a move was like.
type MoveResult struct {
	ID      string  `json:"id"`
	HeldMS  float64 `json:"held_ms"` // new commands had to wait
	TotalMS float64 `json:"total_ms"`
	Waited  int     `json:"waited"` // commands, on this proxy, at its end
}

func (s *Server) movedUsers(w http.ResponseWriter, _ *http.Request) {
	lines := newLines(w)
	err := s.proxy.MovedUsers(func(u proxy.MovedUser) bool {
		return lines.write(MovedUser{u.User, u.Shard, u.From, u.Since}) == nil
	})
	switch {
	case errors.Is(err, proxy.ErrNoMoves):
		fail(w, http.StatusConflict, err)
	case err != nil:
		fail(w, http.StatusServiceUnavailable, err)
	default:
		lines.begin()
	}
}

func (s *Server) showUser(w http.ResponseWriter, r *http.Request) {
	st, err := s.proxy.ShowUser(r.Context(), r.PathValue("user"))
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	u := User{
		User: st.User, Shard: st.Shard, Route: st.Route, Reason: st.Reason, Backends: st.Backends, Home: st.Home, HomeBy: st.HomeRoute,
		Running: st.Moved.Running, Waiting: st.Moved.Waiting,
	}
	switch {
	case errors.Is(st.Err, router.ErrNoRoute):
	case st.Err != nil:
		u.Error = st.Err.Error()
	case st.MovedErr != nil:
		u.Error = "the database of moved users cannot be asked: " + st.MovedErr.Error()
	}
	for _, a := range st.Answers {
		asked := Asked{Route: a.Route, Shard: a.Shard, Reason: a.Reason}
		if a.Err != nil {
			asked.Error = a.Err.Error()
		}
		u.Asked = append(u.Asked, asked)
	}
	if e := st.Moved.Exception; e.Shard != "" {
		u.Moved = &MovedUser{st.User, e.Shard, e.From, e.Since}
	}
	if m := st.Moved.Move; m != nil {
		u.Move = &Underway{m.ID, m.To, m.By, m.Phase, m.Since}
	}
	answer(w, http.StatusOK, u)
}

func (s *Server) refreshUser(w http.ResponseWriter, r *http.Request) {
	if s.refresh(w, r, r.PathValue("user")) {
		s.showUser(w, r)
	}
}

func (s *Server) refreshAll(w http.ResponseWriter, r *http.Request) {
	if s.refresh(w, r, "") {
		answer(w, http.StatusOK, struct{}{})
	}
}

// refresh reports whether it is done; else it has answered.
func (s *Server) refresh(w http.ResponseWriter, r *http.Request, user string) bool {
	err := s.proxy.Refresh(user)
	switch {
	case err == nil:
		s.log.Info("an operator has lookups asked anew", "caller", callerOf(r.Context()).who(), "user", user)
		return true
	case errors.Is(err, proxy.ErrNoLookups):
		fail(w, http.StatusConflict, err)
	default:
		fail(w, http.StatusBadRequest, err)
	}
	return false
}

func (s *Server) moveUser(w http.ResponseWriter, r *http.Request) {
	var req MoveRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil || req.Shard == "" || req.MaxHoldMS < 0 {
		fail(w, http.StatusBadRequest, errors.Join(errors.New(`send {"shard": "NAME"}, and "copy": true if the mail is to be copied first`), err))
		return
	}
	s.move(w, r, req)
}

func (s *Server) forgetUser(w http.ResponseWriter, r *http.Request) {
	var req MoveRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil || req.Shard != "" || req.Copy || req.MaxHoldMS < 0 {
		fail(w, http.StatusBadRequest, errors.Join(errors.New(`send {}, or {"max_hold_ms": NUMBER}`), err))
		return
	}
	s.move(w, r, req)
}

// move moves the user of the request. Whoever asked has to stay until the end:
// if the connection breaks, the move is rolled back.
func (s *Server) move(w http.ResponseWriter, r *http.Request, req MoveRequest) {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Time{}) // it would end the context of the request
	lines := newLines(w)
	user := r.PathValue("user")
	s.log.Info("an operator moves a user", "caller", callerOf(r.Context()).who(), "user", user, "to", req.Shard, "copy", req.Copy)
	result, err := s.proxy.MoveUser(r.Context(), proxy.MoveUser{
		User: user, Shard: req.Shard, Copy: req.Copy, MaxHold: time.Duration(req.MaxHoldMS) * time.Millisecond,
		Report: func(step, detail string) { lines.write(MoveStep{Step: step, Detail: detail}) },
	})
	var unknown *moves.UnknownError
	code := http.StatusServiceUnavailable
	switch {
	case err == nil:
		lines.write(MoveStep{Result: &MoveResult{ID: result.ID, HeldMS: milliseconds(result.Held), TotalMS: milliseconds(result.Total), Waited: result.Waiting}})
		return
	case errors.Is(err, proxy.ErrNoShard):
		code = http.StatusNotFound
	case errors.Is(err, proxy.ErrNoMoves), errors.Is(err, proxy.ErrNothingToDo), errors.Is(err, moves.ErrBusy):
		code = http.StatusConflict
	}
	if !lines.begun {
		fail(w, code, err)
		return
	}
	lines.write(MoveStep{Error: err.Error(), Unknown: errors.As(err, &unknown)})
}

// lineWriter is an answer of one JSON object a line.
type lineWriter struct {
	w     http.ResponseWriter
	json  *json.Encoder
	begun bool
}

func newLines(w http.ResponseWriter) *lineWriter {
	l := &lineWriter{w: w, json: json.NewEncoder(w)}
	l.json.SetEscapeHTML(false)
	return l
}

func (l *lineWriter) begin() {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
		l.w.Header().Set("Cache-Control", "no-store")
		l.w.WriteHeader(http.StatusOK)
	}
}

func (l *lineWriter) write(v any) error {
	l.begin()
	control := http.NewResponseController(l.w)
	control.SetWriteDeadline(time.Now().Add(answerTimeout))
	if err := l.json.Encode(v); err != nil {
		return fmt.Errorf("write a line: %w", err)
	}
	return control.Flush()
}
