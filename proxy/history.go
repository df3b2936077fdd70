package proxy

import (
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/history"
)

// Readings returns what a history.Recorder wants to know of all backends.
func (p *Proxy) Readings() []history.Reading {
	snap := p.snapshot.Load()
	var all []history.Reading
	for _, c := range snap.config.Shards {
		for _, b := range snap.shards[c.Name].members {
			stat := b.Stat()
			r := history.Reading{Backend: b.Name(), InUse: stat.InUse, MaxOpen: b.limits.MaxOpen, Waiting: stat.Waiting}
			for i := range b.meter.classes {
				class := &b.meter.classes[i]
				for o := answered; o < outcomes; o++ {
					n := class.outcomes[o].Load()
					r.Commands += n
					if o.failed() {
						r.Failed += n
					}
				}
				times := class.total.Counts()
				r.Times.Add(&times)
			}
			all = append(all, r)
		}
	}
	return all
}

// SlowestCommands returns the slowest of the last hour, that which took longest
// first.
func (p *Proxy) SlowestCommands() []history.Command { return p.meters.commands.Slowest(time.Now()) }

// FailedCommands returns those of the last hour that no backend answered, the
// newest first.
func (p *Proxy) FailedCommands() []history.Command { return p.meters.commands.Failed(time.Now()) }
