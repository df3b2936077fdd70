// Package lookup has the words that routes and the sources they ask share.
package lookup

import "time"

// Place is where a source says that a user is.
type Place struct {
	// Shard is the name of a shard. Whether there is one of this name is not
	// for the source to know.
	Shard string
	// Target is the server in place of a shard, or how the shard is to be spoken
	// to. It does not change.
	Target *Target
	// TTL bounds how long the answer may be kept; 0: the source does not say.
	TTL time.Duration
}
