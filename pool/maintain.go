package pool

import "time"

// refillInterval is how often a pool looks whether it is short of min_idle.
const refillInterval = time.Second

// maintain sweeps when it is time to.
func (p *Pool) maintain() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-timer.C:
		case <-p.wake:
		}
		if next := p.sweep(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		p.breaker.report()
	}
}

// sweepBy makes sure that there is a sweep at t, if t is not zero. The caller
// holds mu.
func (p *Pool) sweepBy(t time.Time) {
	if t.IsZero() || !p.sweepAt.IsZero() && !t.Before(p.sweepAt) {
		return
	}
	p.sweepAt = t
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// sweep closes idle connections whose time is over, keeps min_idle, and by
// unlock serves those who waited for the end of a pause. It returns when to
// sweep again; zero: when there is something idle.
func (p *Pool) sweep() time.Time {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	var next time.Time
	at := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for i := len(p.idle) - 1; i >= 0; i-- {
		l := p.idle[i]
		if why := l.overdue(now); why != "" {
			p.dropIdle(i)
			p.forget(l, why)
		} else {
			at(l.until)
		}
	}
	if p.limits.MinIdle > 0 {
		for !p.closed && len(p.idle)+p.dialing < p.limits.MinIdle && p.opened() < p.limits.MaxOpen &&
			!p.paused() && p.Operator() == Active && p.breaker.state() == Closed {
			p.startDial()
		}
		at(now.Add(refillInterval))
	}
	at(p.pauseUntil)
	if p.waiting() > 0 {
		p.concurrency.look(now)
		at(p.concurrency.block())
	}
	p.sweepAt = next
	return next
}
