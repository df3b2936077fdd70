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
func (s *Server) serveVerb(v verb, w http.ResponseWriter, r *http.Request) {
	caller := s.identify(r)
	if caller.Role < v.role {
		s.log.Warn("request refused", "caller", caller.who(), "from", caller.From, "role", caller.Role.String(), "request", v.pattern, "needs", v.role.String())
		fail(w, http.StatusForbidden, fmt.Errorf("this needs the role %s, and %s has the role %s%s", v.role, caller.who(), caller.Role, remedy(&caller)))
		return
	}
	v.handle(s, w, r.WithContext(context.WithValue(r.Context(), callerKey{}, &caller)))
}

// remedy says how to get another role.
func remedy(c *Caller) string {
	if c.From == "local" {
		return ""
	}
	return ": use the UNIX socket (address of the admin block)"
}

type callerKey struct{}

// callerOf returns who sent the request of a handler.
func callerOf(ctx context.Context) *Caller { return ctx.Value(callerKey{}).(*Caller) }
