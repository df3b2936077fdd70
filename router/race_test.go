//go:build race

package router

// underRace: the race detector lets a sync.Pool forget things at random, those
// of package regexp too, so allocations cannot be counted there.
const underRace = true
