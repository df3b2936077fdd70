//go:build race

package pool

// underRace: the race detector lets a sync.Pool forget things at random, so
// allocations cannot be counted there.
const underRace = true
