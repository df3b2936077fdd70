package admin

import (
	"net/http"
	"os"
)

func statusVerbs() []verb {
	return []verb{
		{"GET /v1/status", Viewer, "The process as a whole.", (*Server).status},
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := Status{
		Version: s.options.Version, Config: s.options.Config, PID: os.Getpid(), Started: *optional(s.started),
		Ready: s.proxy.Ready(), Sessions: s.proxy.Sessions(),
		Reload: viewReload(s.proxy.Reloads()), Failures: viewFailures(s.proxy.Failures()),
	}
	for _, b := range s.proxy.Backends() {
		st.Backends++
		if b.Available {
			st.Available++
		}
	}
	answer(w, http.StatusOK, st)
}
