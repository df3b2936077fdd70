package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func reloadVerbs() []verb {
	return []verb{
		{"POST /v1/reload", Admin, "Reads the configuration again, and says when and how that ended.", (*Server).reload},
		{"GET /v1/plan", Operator, "What a reload would change.", (*Server).plan},
	}
}

// Problem is what is wrong in the configuration.
type Problem = config.Problem

// ReloadResult is how a reload ended. The code of HTTP is 200 also if nothing was
// taken over: the question was answered.
type ReloadResult struct {
	OK       bool      `json:"ok"`              // taken over, wholly
	Problems []Problem `json:"problems"`        // also warnings
	Error    string    `json:"error,omitempty"` // why it was not, where no problem says so
}

// Plan is what a reload would change.
type Plan struct {
	OK        bool           `json:"ok"` // a reload would be taken over, as far as can be told before
	Problems  []Problem      `json:"problems"`
	Error     string         `json:"error,omitempty"`
	Changes   []proxy.Change `json:"changes"`
	PoolsKept int            `json:"pools_kept"` // backends whose connections stay
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	if s.options.Reload == nil {
		fail(w, http.StatusNotImplemented, errors.New("this process cannot reload"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	result, err := s.options.Reload(ctx)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, err)
		return
	}
	if result.Problems == nil {
		result.Problems = []Problem{}
	}
	answer(w, http.StatusOK, result)
}

func (s *Server) plan(w http.ResponseWriter, _ *http.Request) {
	cfg, diags := config.Load(s.options.Config)
	p := Plan{Problems: config.Problems(diags), Changes: []proxy.Change{}}
	if p.Problems == nil {
		p.Problems = []Problem{}
	}
	if !diags.HasErrors() {
		changes, kept, err := s.proxy.Plan(cfg)
		p.PoolsKept, p.OK = kept, err == nil
		p.Changes = append(p.Changes, changes...)
		if err != nil {
			p.Error = err.Error()
		}
	}
	answer(w, http.StatusOK, p)
}
