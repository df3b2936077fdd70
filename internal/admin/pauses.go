package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func pauseVerbs() []verb {
	return []verb{
		{"GET /v1/pauses", Viewer, "What holds new commands.", (*Server).pauses},
		{"POST /v1/pause", Operator, "Holds new commands for a backend, a shard, or all.", (*Server).pause},
		{"POST /v1/unpause", Operator, "Lets them go on.", (*Server).unpause},
	}
}

// Duration is a time in JSON as the configuration writes it: "30s".
type Duration time.Duration

// MarshalText returns the text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads the text.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Scope names a shard or a backend, or, without either, everything.
type Scope struct {
	Shard   string `json:"shard,omitempty"`
	Backend string `json:"backend,omitempty"`
}

// PauseRequest says what to hold, and within which bounds. What is left out of
// the bounds has a default.
type PauseRequest struct {
	Scope
	For        Duration `json:"for,omitempty"`         // then the pause ends by itself: "5m", at most an hour
	Hold       Duration `json:"hold,omitempty"`        // of one command: "30s", at most as long as the pause
	MaxWaiting int      `json:"max_waiting,omitempty"` // commands that are held at the same time: 1000, at most 100000
}

// Pause is a pause that there is.
type Pause struct {
	Scope
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until"`
	Hold       Duration  `json:"hold"`
	MaxWaiting int       `json:"max_waiting"`
	By         string    `json:"by"`
	Waiting    int       `json:"waiting"` // commands that are held now
	Held       uint64    `json:"held"`    // in all
	Refused    uint64    `json:"refused"` // got a temporary failure
}

// Pauses is the answer with all of them, the oldest first.
type Pauses struct {
	Pauses []Pause `json:"pauses"`
}

// The bounds of a pause. A client waits without a sign of life while it is held.
const (
	defaultPause      = 5 * time.Minute
	maxPause          = time.Hour
	defaultHold       = 30 * time.Second
	defaultMaxWaiting = 1000
	maxMaxWaiting     = 100000
)

func (s *Server) pauses(w http.ResponseWriter, _ *http.Request) {
	all := Pauses{Pauses: []Pause{}}
	for _, p := range s.proxy.Pauses() {
		all.Pauses = append(all.Pauses, Pause{
			Scope: Scope(p.Scope), Since: moment(p.Since), Until: moment(p.Until), Hold: Duration(p.Hold), MaxWaiting: p.MaxWaiting,
			By: p.By, Waiting: p.Waiting, Held: p.Held, Refused: p.Refused,
		})
	}
	answer(w, http.StatusOK, all)
}

func (s *Server) pause(w http.ResponseWriter, r *http.Request) {
	req := PauseRequest{For: Duration(defaultPause), MaxWaiting: defaultMaxWaiting}
	if !decode(w, r, &req, `{"shard": "s1", "for": "5m", "hold": "30s", "max_waiting": 1000}`) {
		return
	}
	if req.Hold == 0 {
		req.Hold = min(Duration(defaultHold), req.For)
	}
	var wrong error
	switch {
	case req.Shard != "" && req.Backend != "":
		wrong = errors.New("name a shard or a backend, not both")
	case req.For <= 0 || req.For > Duration(maxPause):
		wrong = fmt.Errorf("for is above 0 and at most %s", maxPause)
	case req.Hold <= 0 || req.Hold > req.For:
		wrong = errors.New("hold is above 0 and at most as long as for")
	case req.MaxWaiting <= 0 || req.MaxWaiting > maxMaxWaiting:
		wrong = fmt.Errorf("max_waiting is above 0 and at most %d", maxMaxWaiting)
	}
	if wrong != nil {
		fail(w, http.StatusBadRequest, wrong)
		return
	}
	scope := proxy.Scope(req.Scope)
	err := s.proxy.Pause(proxy.Pause{
		Scope: scope, For: time.Duration(req.For), Hold: time.Duration(req.Hold), MaxWaiting: req.MaxWaiting, By: callerOf(r.Context()).who(),
	})
	s.done(w, fmt.Sprintf("new commands for %s are held for %s at most", scope, time.Duration(req.For)), err)
}

func (s *Server) unpause(w http.ResponseWriter, r *http.Request) {
	var req Scope
	if !decode(w, r, &req, `{"shard": "s1"}`) {
		return
	}
	scope := proxy.Scope(req)
	s.done(w, fmt.Sprintf("new commands for %s go on", scope), s.proxy.Unpause(scope, callerOf(r.Context()).who()))
}

// done answers what the proxy made of a request.
func (s *Server) done(w http.ResponseWriter, text string, err error) {
	switch {
	case errors.Is(err, proxy.ErrNoBackend), errors.Is(err, proxy.ErrNoShard), errors.Is(err, proxy.ErrNoPause):
		fail(w, http.StatusNotFound, err)
	case err != nil:
		fail(w, http.StatusInternalServerError, fmt.Errorf("nothing was changed: %w", err))
	default:
		answer(w, http.StatusOK, Done{text})
	}
}

// decode reads the body of a request. If it is none of that form it answers so,
// with an example.
func decode(w http.ResponseWriter, r *http.Request, v any, example string) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		fail(w, http.StatusBadRequest, errors.Join(errors.New("send "+example), err))
		return false
	}
	return true
}
