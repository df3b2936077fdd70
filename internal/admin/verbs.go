package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// verb is one thing that the endpoint can be asked for or told. The mux is made
// of the table of all verbs and of nothing else, so that there is none without
// a role. Handlers find the Caller by callerOf.
type verb struct {
	pattern string // as http.ServeMux has it: method, space, path
	role    Role   // the least that may
	does    string // for docs/admin-api.md and for refusals: one short sentence
	handle  func(s *Server, w http.ResponseWriter, r *http.Request)
}

// verbs returns the table. Each part stands in the file that has its handlers.
func verbs() []verb {
	return slices.Concat(
		healthVerbs(),
		metricsVerbs(),
		statusVerbs(),
		backendVerbs(),
		moveVerbs(),
		pageVerbs(),
		runningVerbs(),
		pauseVerbs(),
		streamVerbs(),
		reloadVerbs(),
		historyVerbs(),
		logVerbs(),
		profileVerbs(),
	)
}

// changes reports whether the verb is for changing something.
func (v verb) changes() bool {
	method, _, _ := strings.Cut(v.pattern, " ")
	return method != http.MethodGet
}

// routes makes the mux of the table.
func (s *Server) routes(table []verb) http.Handler {
	mux := http.NewServeMux()
	for _, v := range table {
		mux.HandleFunc(v.pattern, func(w http.ResponseWriter, r *http.Request) { s.serveVerb(v, w, r) })
	}
	return mux
}

// serveVerb serves a request of a caller who may send it, and refuses others.
// What changes something, or shows what is in commands, is in the log with the
// caller's name.
func (s *Server) serveVerb(v verb, w http.ResponseWriter, r *http.Request) {
	caller, refused := s.users.identify(r)
	if refused == nil && caller.Role < v.role {
		s.log.Warn("request refused", "caller", caller.who(), "from", caller.From, "role", caller.Role.String(), "request", v.pattern, "needs", v.role.String())
		refused = &refusal{http.StatusForbidden, fmt.Errorf("this needs the role %s, and %s has the role %s%s", v.role, caller.who(), caller.Role, s.users.remedy(&caller))}
		if caller.Name == "" && s.users.challenge != "" {
			refused.code = http.StatusUnauthorized
		}
	}
	if refused != nil {
		if refused.code == http.StatusUnauthorized && s.users.challenge != "" {
			w.Header().Set("WWW-Authenticate", s.users.challenge)
		}
		fail(w, refused.code, refused.err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller))
	if !v.changes() && v.role < Admin {
		v.handle(s, w, r)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody) // which wants the w of package http
	answered := &answered{ResponseWriter: w, code: http.StatusOK}
	v.handle(s, answered, r)
	s.log.Info("request", "caller", caller.who(), "from", caller.From, "role", caller.Role.String(), "request", r.Method+" "+r.URL.EscapedPath(), "code", answered.code)
}

// answered remembers the code of an answer.
type answered struct {
	http.ResponseWriter
	code int
}

func (a *answered) WriteHeader(code int) {
	a.code = code
	a.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// remedy says how to get another role.
func (u *users) remedy(c *Caller) string {
	switch {
	case c.From == "local":
		return ""
	case c.Name == "" && u.challenge != "":
		return ": say who you are, by the password, token or certificate of a user block"
	}
	return ": use the UNIX socket (address of the admin block)"
}

type callerKey struct{}

// callerOf returns who sent the request of a handler.
func callerOf(ctx context.Context) *Caller { return ctx.Value(callerKey{}).(*Caller) }
