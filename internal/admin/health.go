package admin

import (
	"context"
	"errors"
	"net/http"
)

func healthVerbs() []verb {
	return []verb{
		{"GET /live", Nobody, "Does the process work? 200 or 503.", (*Server).live},
		{"GET /ready", Nobody, "Does it accept sessions? 200 or 503, with the reason.", (*Server).ready},
	}
}

func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), liveTimeout)
	defer cancel()
	if err := s.proxy.Check(ctx); err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, http.StatusOK, map[string]bool{"live": true})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if !s.proxy.Ready() {
		fail(w, http.StatusServiceUnavailable, errors.New("no new sessions are accepted"))
		return
	}
	answer(w, http.StatusOK, map[string]bool{"ready": true})
}
