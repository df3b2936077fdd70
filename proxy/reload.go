package proxy

import (
	"sync"
	"time"
)

// ReloadState is what became of the reloads.
type ReloadState struct {
	Loaded time.Time // when the configuration in use was taken over
	Reload uint64    // how many reloads took theirs over
	Failed uint64    // how many did not
	At     time.Time // of the last one; zero: there was none
	Err    string    // why the last one took nothing over; empty: it did, or there was none
}

// reloadState is behind ReloadState.
type reloadState struct {
	mu sync.Mutex // guards what follows; nothing else is done under it
	ReloadState
}

// note takes the result of a reload.
func (r *reloadState) note(err error) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.At = now
	if err != nil {
		r.Failed++
		r.Err = err.Error()
		return
	}
	r.Reload++
	r.Loaded, r.Err = now, ""
}

// Reloads returns what became of the reloads.
func (p *Proxy) Reloads() ReloadState {
	p.reloads.mu.Lock()
	defer p.reloads.mu.Unlock()
	return p.reloads.ReloadState
}

// ReloadFailed tells of a reload that did not get as far as Reload, because the
// configuration could not be read. Those that did are known.
func (p *Proxy) ReloadFailed(err error) {
	p.reloads.note(err)
	p.meters.failures.add(Failure{Kind: "reload", What: "config", At: time.Now(), Reason: err.Error()})
}
