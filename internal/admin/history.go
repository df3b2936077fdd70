package admin

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/history"
)

func historyVerbs() []verb {
	return []verb{
		{"GET /v1/history", Viewer, "Rates, times and pool use of the last hour: ?step=SECONDS (10 or a multiple), ?backend=NAME, which may be repeated.", (*Server).history},
		{"GET /v1/commands/slowest", Viewer, "The slowest commands of the last hour.", (*Server).slowest},
		{"GET /v1/commands/failed", Viewer, "The newest commands of the last hour that no backend answered.", (*Server).failed},
	}
}

// History is what the last hour was like.
type History struct {
	End      time.Time       `json:"end"`  // of the newest sample
	Step     int             `json:"step"` // seconds from sample to sample
	Backends []HistorySeries `json:"backends"`
}

// HistorySeries is the samples of a backend, the oldest first; the last one ends
// at the End of the History. There are as many of each kind, and fewer than fill
// an hour for a proxy or a backend that has not been there for so long.
type HistorySeries struct {
	Name    string `json:"name"`
	MaxOpen int    `json:"max_open"`

	Rate    []float64 `json:"rate"`    // commands a second
	Failed  []float64 `json:"failed"`  // of them, that got no answer of a backend
	P50     []float64 `json:"p50_ms"`  // median of the time that a command took; 0: there was none
	P95     []float64 `json:"p95_ms"`  // the same, 95 of 100
	P99     []float64 `json:"p99_ms"`  // the same, 99 of 100
	InUse   []float64 `json:"in_use"`  // connections; the most of a step
	Waiting []float64 `json:"waiting"` // commands that wait for a connection; the most of a step
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	step := history.Interval
	if text := q.Get("step"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 || time.Duration(n)*time.Second > time.Hour {
			fail(w, http.StatusBadRequest, fmt.Errorf("step=%q: write seconds, from 10 to 3600", text))
			return
		}
		step = time.Duration(n) * time.Second
	}
	h := s.recorder.History(step, q["backend"]...)
	out := History{Step: int(h.Step.Seconds()), Backends: make([]HistorySeries, 0, len(h.Series))}
	if !h.End.IsZero() {
		out.End = *optional(h.End)
	}
	for i := range h.Series {
		in := &h.Series[i]
		line := HistorySeries{Name: in.Backend, MaxOpen: in.MaxOpen}
		for kind, to := range []*[]float64{&line.Rate, &line.Failed, &line.P50, &line.P95, &line.P99, &line.InUse, &line.Waiting} {
			*to = make([]float64, len(in.Samples))
			for j := range in.Samples {
				p := &in.Samples[j]
				(*to)[j] = rounded([...]float64{
					float64(p.Rate), float64(p.Failed), 1e3 * float64(p.P50), 1e3 * float64(p.P95), 1e3 * float64(p.P99), float64(p.InUse), float64(p.Waiting),
				}[kind])
			}
		}
		out.Backends = append(out.Backends, line)
	}
	answer(w, http.StatusOK, out)
}

// rounded leaves three digits behind the point.
func rounded(f float64) float64 { return math.Round(f*1000) / 1000 }

// EndedCommand is a command that has ended.
type EndedCommand struct {
	Ended    time.Time `json:"ended"`
	Session  uint64    `json:"session"`
	Client   string    `json:"client"`
	User     string    `json:"user"`
	Command  string    `json:"command"`
	Backend  string    `json:"backend"` // empty: it got no connection
	Outcome  string    `json:"outcome"`
	Status   string    `json:"status"`
	Reason   string    `json:"reason,omitempty"`
	Wait     float64   `json:"wait_ms"`
	Duration float64   `json:"duration_ms"`
	Bytes    int64     `json:"bytes"`
}

// EndedCommands is the answer with some of them.
type EndedCommands struct {
	Commands []EndedCommand `json:"commands"`
}

func (s *Server) slowest(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, viewCommands(s.proxy.SlowestCommands()))
}

func (s *Server) failed(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, viewCommands(s.proxy.FailedCommands()))
}

func viewCommands(all []history.Command) EndedCommands {
	out := EndedCommands{Commands: make([]EndedCommand, 0, len(all))}
	for i := range all {
		c := &all[i]
		out.Commands = append(out.Commands, EndedCommand{
			Ended: *optional(c.Ended), Session: c.Session, Client: c.Client, User: c.User, Command: c.Name,
			Backend: c.Backend, Outcome: c.Outcome, Status: c.Status, Reason: c.Reason,
			Wait: inMilliseconds(c.Wait), Duration: inMilliseconds(c.Took), Bytes: c.Bytes,
		})
	}
	return out
}

func inMilliseconds(d time.Duration) float64 { return rounded(float64(d) / float64(time.Millisecond)) }
