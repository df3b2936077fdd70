package proxy

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := func(b *budget, want string) {
			t.Helper()
			got := ""
			if err := b.begin(t.Context()); err != nil {
				got = err.Error()
			}
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		b := newBudget(config.Rates{}, nil)
		for range 1000 {
			begin(b, "")
			b.charge(1 << 40)
		}

		b = newBudget(config.Rates{Commands: 10}, nil)
		for range 10 {
			begin(b, "")
		}
		begin(b, "rate_limit of the client, 10 commands a second")
		time.Sleep(100 * time.Millisecond)
		begin(b, "")
		begin(b, "rate_limit") // a refused one takes nothing
		if newBudget(config.Rates{Commands: 10}, b) != b {
			t.Error("a reload forgets the budget")
		}

		b = newBudget(config.Rates{Commands: 10, Burst: 20, Wait: time.Second}, nil)
		start := time.Now()
		for range 30 {
			begin(b, "")
		}
		if took := time.Since(start); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("30 commands of 10 a second after 20 at once took %s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.begin(ctx); err == nil {
			t.Error("who is cut goes on waiting")
		}

		b = newBudget(config.Rates{BytesPerSecond: 1000}, nil)
		begin(b, "")
		b.charge(5500)
		begin(b, "bytes_per_second")
		time.Sleep(4499 * time.Millisecond)
		begin(b, "bytes_per_second")
		time.Sleep(2 * time.Millisecond)
		begin(b, "")

		b = newBudget(config.Rates{BytesPerDay: 1000}, nil)
		b.charge(999)
		begin(b, "")
		b.charge(1)
		begin(b, "bytes_per_day")
		b = newBudget(config.Rates{BytesPerDay: 1000, Commands: 5}, b)
		begin(b, "bytes_per_day")
		b = newBudget(config.Rates{BytesPerDay: 2000}, b)
		begin(b, "")
		b.charge(1000)
		begin(b, "bytes_per_day")
		time.Sleep(24 * time.Hour)
		begin(b, "")
	})
}
