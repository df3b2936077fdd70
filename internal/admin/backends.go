package admin

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func backendVerbs() []verb {
	return []verb{
		{"GET /v1/backends", Viewer, "All backends with their states.", (*Server).backends},
		{"GET /v1/pools", Viewer, "The connections to each backend, with what became of them.", (*Server).pools},
		{"POST /v1/backends/{name}/state", Operator, "Takes a backend out of service or back into it.", (*Server).setState},
		{"POST /v1/shards/{name}/state", Operator, "The same for all backends of a shard.", (*Server).setShardState},
		{"POST /v1/backends/{name}/reconnect", Operator, "Replaces the connections to a backend: idle ones now, others after their command.", (*Server).reconnect},
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
	to, ok := wantedState(w, r)
	if !ok {
		return
	}
	name := r.PathValue("name")
	if !s.carryOut(w, name, to) {
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

func (s *Server) setShardState(w http.ResponseWriter, r *http.Request) {
	to, ok := wantedState(w, r)
	if !ok {
		return
	}
	members := func() []proxy.BackendStatus {
		return slices.DeleteFunc(s.proxy.Backends(), func(b proxy.BackendStatus) bool { return b.Shard != r.PathValue("name") })
	}
	before := members()
	if len(before) == 0 {
		fail(w, http.StatusNotFound, fmt.Errorf("%w: %q", proxy.ErrNoShard, r.PathValue("name")))
		return
	}
	for _, b := range before {
		if !s.carryOut(w, b.Name, to) {
			return
		}
	}
	all := Backends{Backends: []Backend{}}
	for _, b := range members() {
		all.Backends = append(all.Backends, view(&b))
	}
	answer(w, http.StatusOK, all)
}

func wantedState(w http.ResponseWriter, r *http.Request) (pool.Operator, bool) {
	const example = `{"state": "active"}, or with "draining" or "down"`
	var req stateRequest
	if !decode(w, r, &req, example) {
		return 0, false
	}
	if req.State == nil {
		fail(w, http.StatusBadRequest, errors.New("send "+example))
		return 0, false
	}
	return *req.State, true
}

// carryOut does what an operator wants, and answers if that fails.
func (s *Server) carryOut(w http.ResponseWriter, backend string, to pool.Operator) bool {
	err := s.proxy.SetOperator(backend, to)
	if err != nil && !errors.Is(err, proxy.ErrNoBackend) {
		s.log.Error("an operator's wish was not carried out", "backend", backend, "state", to.String(), "error", err)
	}
	if err != nil {
		s.done(w, "", err)
	}
	return err == nil
}

func (s *Server) reconnect(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	s.done(w, "the connections to "+name+" are replaced: idle ones now, others after their command", s.proxy.Reconnect(name))
}

// Pool is the connections to a backend. The counts are since the start, or the
// last change of the backend's block.
type Pool struct {
	Shard   string `json:"shard"`
	Backend string `json:"backend"`

	InUse       int `json:"in_use"`
	BulkInUse   int `json:"bulk_in_use"` // of in_use: by bulk clients
	Idle        int `json:"idle"`
	Dialing     int `json:"dialing"`
	Waiting     int `json:"waiting"`      // commands
	BulkWaiting int `json:"bulk_waiting"` // of waiting
	MaxOpen     int `json:"max_open"`
	MaxIdle     int `json:"max_idle"`
	MaxBulk     int `json:"max_bulk"`
	MaxWaiting  int `json:"max_waiting"`

	Commands          uint64            `json:"commands"`
	Waits             uint64            `json:"waits"`   // commands that had to wait or dial
	WaitMS            float64           `json:"wait_ms"` // of all of them
	TimedOut          uint64            `json:"timed_out"`
	QueueFull         uint64            `json:"queue_full"`
	RejectedByBreaker uint64            `json:"rejected_by_breaker"`
	Dials             uint64            `json:"dials"`
	DialMS            float64           `json:"dial_ms"`     // of all that succeeded
	Resumed           uint64            `json:"tls_resumed"` // of dials
	DialErrors        uint64            `json:"dial_errors"`
	NoGreeting        uint64            `json:"no_greeting"` // of dial_errors
	Closed            map[string]uint64 `json:"closed"`      // connections, by reason
}

// Pools is the answer with all of them, shard by shard.
type Pools struct {
	Pools []Pool `json:"pools"`
}

func (s *Server) pools(w http.ResponseWriter, _ *http.Request) {
	all := Pools{Pools: []Pool{}}
	for _, b := range s.proxy.Backends() {
		st := &b.Stat
		p := Pool{
			Shard: b.Shard, Backend: b.Name, InUse: st.InUse, BulkInUse: st.BulkInUse, Idle: st.Idle, Dialing: st.Dialing, Waiting: st.Waiting,
			BulkWaiting: st.BulkWaiting, MaxOpen: b.Limits.MaxOpen, MaxIdle: b.Limits.MaxIdle, MaxBulk: b.Limits.MaxBulk, MaxWaiting: b.Limits.MaxWaiting,
			Commands: st.Acquired, Waits: st.Waits, WaitMS: milliseconds(st.WaitTime), TimedOut: st.TimedOut, QueueFull: st.QueueFull,
			RejectedByBreaker: st.RejectedByBreaker, Dials: st.Dials, DialMS: milliseconds(st.DialTime), Resumed: st.Resumed,
			DialErrors: st.DialErrors, NoGreeting: st.NoGreeting, Closed: map[string]uint64{},
		}
		for why, n := range st.Closed {
			p.Closed[string(why)] = n
		}
		all.Pools = append(all.Pools, p)
	}
	answer(w, http.StatusOK, all)
}
