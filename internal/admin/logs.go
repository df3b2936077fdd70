package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

func logVerbs() []verb {
	return []verb{
		{"GET /v1/events", Viewer, "The newest lines of the log that are not about a command: states, breakers, reloads, refused logins.", (*Server).events},
		{"GET /v1/log-level", Viewer, "The level of the log, and of each of its components.", (*Server).logLevel},
		{"POST /v1/log-level", Operator, `Sets a level until the end of the process: {"component": "pool", "level": "debug"}; no component: all without one of their own; "" as the level: the component goes with the others again.`, (*Server).setLogLevel},
	}
}

// Event is something that happened to the proxy.
type Event struct {
	First     time.Time         `json:"first"`
	Time      time.Time         `json:"time"`  // of the last
	Count     int               `json:"count"` // of those that said the same within a minute
	Level     string            `json:"level"`
	Component string            `json:"component,omitempty"`
	Message   string            `json:"message"`
	Fields    map[string]string `json:"fields,omitempty"` // of the last
}

// Events is the answer with the newest, the last one first.
type Events struct {
	Events []Event `json:"events"`
}

type levelRequest struct {
	Component string  `json:"component"`
	Level     *string `json:"level"`
}

var errNoLogs = errors.New("the log of this process cannot be asked")

func (s *Server) events(w http.ResponseWriter, _ *http.Request) {
	all := Events{Events: []Event{}}
	if s.options.Logs != nil {
		for _, e := range s.options.Logs.Events() {
			all.Events = append(all.Events, Event{
				First: *optional(e.First), Time: *optional(e.Time), Count: e.Count,
				Level: e.Level, Component: e.Component, Message: e.Message, Fields: e.Fields,
			})
		}
	}
	answer(w, http.StatusOK, all)
}

func (s *Server) logLevel(w http.ResponseWriter, _ *http.Request) {
	if s.options.Logs == nil {
		fail(w, http.StatusNotImplemented, errNoLogs)
		return
	}
	answer(w, http.StatusOK, s.options.Logs.Levels())
}

func (s *Server) setLogLevel(w http.ResponseWriter, r *http.Request) {
	if s.options.Logs == nil {
		fail(w, http.StatusNotImplemented, errNoLogs)
		return
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	var req levelRequest
	if err := d.Decode(&req); err != nil || req.Level == nil {
		fail(w, http.StatusBadRequest, errors.Join(errors.New(`send {"component": "pool", "level": "debug"}`), err))
		return
	}
	if err := s.options.Logs.SetLevel(req.Component, *req.Level); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	s.log.Info("log level changed", "component_changed", req.Component, "level", *req.Level, "caller", callerOf(r.Context()).who())
	answer(w, http.StatusOK, s.options.Logs.Levels())
}
