package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func backendVerbs() []verb {
	return []verb{
		{"GET /v1/backends", Viewer, "All backends with their states.", (*Server).backends},
		{"POST /v1/backends/{name}/state", Operator, "Takes a backend out of service or back into it.", (*Server).setState},
	}
}

func (s *Server) backends(w http.ResponseWriter, _ *http.Request) {
	all := Backends{Backends: []Backend{}}
	for _, b := range s.proxy.Backends() {
		all.Backends = append(all.Backends, view(&b))
	}
	answer(w, http.StatusOK, all)
}

func (s *Server) setState(w http.ResponseWriter, r *http.Request) {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	var req stateRequest
	if err := d.Decode(&req); err != nil || req.State == nil {
		fail(w, http.StatusBadRequest, errors.Join(errors.New(`send {"state": "active"}, or with "draining" or "down"`), err))
		return
	}
	name := r.PathValue("name")
	err := s.proxy.SetOperator(name, *req.State)
	switch {
	case errors.Is(err, proxy.ErrNoBackend):
		fail(w, http.StatusNotFound, err)
		return
	case err != nil:
		s.log.Error("an operator's wish was not carried out", "backend", name, "state", req.State.String(), "error", err)
		fail(w, http.StatusInternalServerError, fmt.Errorf("nothing was changed: %w", err))
		return
	}
	all := s.proxy.Backends()
	i := slices.IndexFunc(all, func(b proxy.BackendStatus) bool { return b.Name == name })
	if i < 0 { // a reload has taken it away meanwhile
		fail(w, http.StatusNotFound, proxy.ErrNoBackend)
		return
	}
	answer(w, http.StatusOK, view(&all[i]))
}
