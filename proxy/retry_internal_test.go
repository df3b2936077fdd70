package proxy

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRetryBudget compares the budget at random with a list of everything that
// happened.
func TestRetryBudget(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type event struct {
			slot  int64
			retry bool
		}
		var events []event
		b := new(retryBudget)
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		slot := func() int64 { return now.UnixNano() / int64(retrySlot) }
		refused := 0
		rt.Repeat(map[string]func(*rapid.T){
			"commands": func(rt *rapid.T) {
				for range rapid.IntRange(1, 200).Draw(rt, "n") {
					b.command(now)
					events = append(events, event{slot(), false})
				}
			},
			"retries": func(rt *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(rt, "n") {
					commands, retries := 0, 0
					for _, e := range events {
						switch {
						case e.slot <= slot()-retrySlots:
						case e.retry:
							retries++
						default:
							commands++
						}
					}
					want := retries < 10 || retries < commands/10
					ok, n := b.retry(now)
					if ok != want {
						rt.Fatalf("%d commands and %d retries in the window: %v, want %v", commands, retries, ok, want)
					}
					if ok {
						refused = 0
						events = append(events, event{slot(), true})
					} else {
						refused++
					}
					if n != refused {
						rt.Fatalf("%d refused, want %d", n, refused)
					}
				}
			},
			"time": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 80).Draw(rt, "seconds")) * time.Second)
			},
			"clock set back": func(rt *rapid.T) {
				b.command(now)
				b.command(now.Add(-time.Hour))
				events = append(events, event{slot(), false}, event{slot(), false})
			},
		})
	})
}
