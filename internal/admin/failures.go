package admin

import (
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// Failure is one way in which something went wrong: how often since the start,
// and the last time. Kind and What are the words of the log and of the metrics.
type Failure struct {
	Kind  string `json:"kind"` // command, reply, login, line, connection, reload
	What  string `json:"what"`
	Count uint64 `json:"count"`

	At      time.Time `json:"at"` // as all that follows, of the last one
	Peer    string    `json:"peer,omitempty"`
	Client  string    `json:"client,omitempty"`
	User    string    `json:"user,omitempty"`
	Command string    `json:"command,omitempty"`
	Backend string    `json:"backend,omitempty"`
	Status  string    `json:"status,omitempty"` // that the client got
	Reason  string    `json:"reason,omitempty"`
}

// Reload is what became of the reloads.
type Reload struct {
	Loaded time.Time  `json:"loaded"` // when the configuration in use was taken over
	At     *time.Time `json:"at,omitempty"`
	Ok     bool       `json:"ok"` // the last one took its configuration over, or there was none
	Error  string     `json:"error,omitempty"`
}

func viewFailures(all []proxy.Failure) []Failure {
	out := make([]Failure, 0, len(all))
	for _, f := range all {
		out = append(out, Failure{
			Kind: f.Kind, What: f.What, Count: f.Count, At: *optional(f.At), Peer: f.Peer, Client: f.Client,
			User: f.User, Command: f.Command, Backend: f.Backend, Status: f.Status, Reason: f.Reason,
		})
	}
	return out
}

func viewReload(r proxy.ReloadState) Reload {
	return Reload{Loaded: *optional(r.Loaded), At: optional(r.At), Ok: r.Err == "", Error: r.Err}
}

// dialCauses are the dials that failed, by the step at which they did.
func dialCauses(s *pool.Stat) map[string]uint64 {
	var causes map[string]uint64
	for cause, n := range s.Causes {
		if n > 0 {
			if causes == nil {
				causes = make(map[string]uint64)
			}
			causes[pool.DialCause(cause).String()] = n
		}
	}
	return causes
}
