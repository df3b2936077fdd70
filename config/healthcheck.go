package config

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// HealthCheck says how a backend is looked at when nobody uses it.
type HealthCheck struct {
	Interval time.Duration // between two checks, less up to a tenth; 0: there are none
	Timeout  time.Duration // of one check
	Fall     int           // failed checks in a row after which a backend is failing
	Rise     int           // good checks in a row after which it is up again
	User     string        // runs a command for this mail user; empty: greeting and login are enough
}

// checkInterval is the default.
const checkInterval = 10 * time.Second

func (h *HealthCheck) block() block {
	return block{
		name: "health_check",
		doc: "Looks at a backend from time to time, over a connection of its own that does not count in `max_open`: greeting and login, and a command if there is a `user`. " +
			"A backend that fails is used only when the others of its shard cannot be; the last one is never taken away by this. Without the block there are no checks: " +
			"only what becomes of commands tells. A backend that answers commands while it has no process left to greet a check (its `process_limit`) is full, not failing.",
		example: `
backend_defaults {
  health_check {
    interval = "5s"
    user     = "health@example.com"
  }
}`,
		attrs: []attr{
			{
				name: "interval", field: duration(&h.Interval, 0), def: `"10s"`,
				doc: "From the begin of one check to the next, less up to a tenth by chance. A check that still waits is not joined by another. Each check is one connection, and a process start on the backend. `0s`: no checks, for a backend that shall have none of those in `backend_defaults`.",
			},
			{
				name: "timeout", field: duration(&h.Timeout, 1), def: `"5s"`,
				doc: "A check that takes longer has failed.",
			},
			{
				name: "fall", field: count(&h.Fall, 1), def: `3`,
				doc: "Checks that fail in a row until the backend is `failing`.",
			},
			{
				name: "rise", field: count(&h.Rise, 1), def: `2`,
				doc: "Checks that work in a row until a failing backend is `up`. For a new one the first is enough.",
			},
			{
				name: "user", field: text(&h.User), example: `"health@example.com"`,
				doc: "Each check also runs `mailbox status messages INBOX` for this user, who has to exist on the backend: that notices a backend which lets the proxy in and cannot reach its user database or its storage.",
			},
		},
	}
}

// settle decides whether there are checks: those of b, which is written at at,
// or of the block it started from.
func (h *HealthCheck) settle(b *hclsyntax.Block, at *place) {
	written := slices.ContainsFunc(b.Body.Blocks, func(inner *hclsyntax.Block) bool { return inner.Type == "health_check" })
	switch {
	case at.inherits("health_check.interval"):
	case written:
		h.Interval = checkInterval
	case at.parent == nil:
		h.Interval = 0
	}
}
