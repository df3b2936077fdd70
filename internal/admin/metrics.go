package admin

import (
	"errors"
	"net/http"
)

func metricsVerbs() []verb {
	return []verb{
		{"GET /metrics", Viewer, "Metrics in the text format of Prometheus.", (*Server).metrics},
	}
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	if s.options.Metrics == nil {
		fail(w, http.StatusNotImplemented, errors.New("this process has no metrics"))
		return
	}
	s.options.Metrics.ServeHTTP(w, r)
}
