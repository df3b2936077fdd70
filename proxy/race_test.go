//go:build race

package proxy

// UnderRace: the race detector lets a sync.Pool forget things at random, so
// allocations cannot be counted there.
const UnderRace = true
