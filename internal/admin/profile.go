package admin

import (
	"errors"
	"net/http"
	"net/http/pprof"
)

func profileVerbs() []verb {
	return []verb{
		{"GET /debug/pprof/{$}", Admin, "The list of Go's profiles, with `profiling = true`.", (*Server).profile},
		{"GET /debug/pprof/{profile}", Admin, "One of Go's profiles, with `profiling = true`.", (*Server).profile},
	}
}

func (s *Server) profile(w http.ResponseWriter, r *http.Request) {
	if !s.profiling {
		fail(w, http.StatusNotFound, errors.New("there are no profiles: write profiling = true into the admin block"))
		return
	}
	switch r.PathValue("profile") {
	case "cmdline":
		pprof.Cmdline(w, r)
	case "profile":
		pprof.Profile(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	case "trace":
		pprof.Trace(w, r)
	default: // by name, and the list of them
		pprof.Index(w, r)
	}
}
