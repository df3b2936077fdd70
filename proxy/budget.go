package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// budget is what a client has left of its rates. It outlives a reload that
// leaves them as they are.
type budget struct {
	rates    config.Rates
	commands *rate.Limiter // nil: no limit
	bytes    *rate.Limiter // nil: no limit; may be in debt

	mu    sync.Mutex // guards what follows
	day   int64      // in days since 1970, UTC
	today int64      // bytes of it
	muted muted
}

// newBudget returns the budget of a client who had was, or nil, before.
func newBudget(r config.Rates, was *budget) *budget {
	if was != nil && was.rates == r {
		return was
	}
	b := &budget{rates: r}
	if was != nil {
		was.mu.Lock()
		b.day, b.today = was.day, was.today
		was.mu.Unlock()
	}
	if r.Commands > 0 {
		b.commands = rate.NewLimiter(rate.Limit(r.Commands), max(r.Burst, r.Commands))
	}
	if r.BytesPerSecond > 0 {
		b.bytes = rate.NewLimiter(rate.Limit(r.BytesPerSecond), int(r.BytesPerSecond))
	}
	return b
}

// begin takes the place of a command in the rates, for which it may wait, or
// says why there is none.
func (b *budget) begin(ctx context.Context) error {
	now := time.Now()
	switch {
	case b.rates.BytesPerDay > 0 && b.used(now) >= b.rates.BytesPerDay:
		return fmt.Errorf("bytes_per_day of the client is used up: it begins anew at 00:00 UTC")
	case b.bytes != nil && b.bytes.TokensAt(now) < 0:
		return fmt.Errorf("bytes_per_second of the client is reached: try again later")
	case b.commands == nil:
		return nil
	}
	place := b.commands.ReserveN(now, 1)
	wait := place.DelayFrom(now)
	if wait > b.rates.Wait {
		place.CancelAt(now)
		return fmt.Errorf("rate_limit of the client, %d commands a second, is reached: try again later", b.rates.Commands)
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// used returns the bytes of the day that it is.
func (b *budget) used(now time.Time) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if day := now.Unix() / 86400; day != b.day {
		b.day, b.today = day, 0
	}
	return b.today
}

// charge takes the bytes of a command, which are known when it has ended. The
// next commands pay for what was too much.
func (b *budget) charge(bytes int64) {
	now := time.Now()
	if b.rates.BytesPerDay > 0 {
		b.used(now)
		b.mu.Lock()
		b.today += bytes
		b.mu.Unlock()
	}
	if b.bytes == nil {
		return
	}
	for left := bytes; left > 0; {
		n := min(left, b.rates.BytesPerSecond)
		b.bytes.ReserveN(now, int(n))
		left -= n
	}
}

// mayLog reports whether a refusal is worth a line, and how many were not
// before it.
func (b *budget) mayLog() (log bool, unsaid int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.muted.mayLog(time.Now())
}
