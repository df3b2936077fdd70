package router

import (
	"context"

	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// Source knows users outside of this process. Lookups of one source may run
// side by side.
type Source interface {
	// Lookup asks for a user in normal form. It reports false if the source
	// does not know the user, which leaves it to the next route. Whenever that
	// is not certain, it returns an error: also for an answer that makes no
	// sense. Errors hold no secrets, clients see them. Lookup returns soon
	// after ctx, which has a deadline, ends.
	Lookup(ctx context.Context, user string) (lookup.Place, bool, error)
	// Close ends what the source has open. No Lookup runs then, or follows.
	Close()
}

// notifier is a Source that hears of changes.
type notifier interface {
	// Notify makes the source call, from then on until Close, forget for each
	// user whose answer has changed, with "" for all of them, and doubt when it
	// may have missed changes: then the cache has nothing but stale answers. It
	// is called once, before the first Lookup.
	Notify(forget func(user string), doubt func())
}
