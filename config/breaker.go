package config

import "time"

// Breaker holds a backend's circuit breaker settings.
type Breaker struct {
	Failures int           // consecutive failures that open it
	Open     time.Duration // how long it stays open
	Probes   int           // commands let through while half-open
}

func (b *Breaker) block() block {
	return block{
		name: "breaker",
		doc: "The circuit breaker of a backend. When connections to the backend keep failing, it opens: commands for the users of this backend are " +
			"answered with a temporary failure at once instead of waiting for timeouts. After a while a command is let through as a probe. " +
			"What a backend answers, `-NOUSER` for example, is no failure.",
		example: `
backend_defaults {
  breaker {
    failures = 3
    open     = "30s"
  }
}`,
		attrs: []attr{
			{
				name: "failures", field: count(&b.Failures, 1), def: `5`,
				doc: "Failures in a row (no connection, no greeting, no login, a connection lost, a timeout) after which it opens.",
			},
			{
				name: "open", field: duration(&b.Open, 1), def: `"10s"`,
				doc: "Time until a probe is let through.",
			},
			{
				name: "probes", field: count(&b.Probes, 1), def: `1`,
				doc: "Commands that are let through as probes. When all of them work the breaker closes; when one fails it opens again.",
			},
		},
	}
}
