// Package config turns HCL files into checked plain values. It builds no live
// object: no connection, route or listener exists because a configuration was
// loaded. What it returns is complete (every default filled in) and consistent
// (every reference resolved), so that its readers need no checks of their own.
package config

import (
	"io/fs"
	"time"
)

// Config is one whole, valid configuration. It is not changed after Load
// returned it and may be read from any goroutine.
type Config struct {
	Log       Log
	Listeners []Listener // in the order they are written
	Clients   []Client
	Shards    []Shard
	Routes    []Route // in the order they are asked
	Limits    Limits
}

// Log is the log block.
type Log struct {
	Level  string // trace, debug, info, warn or error
	Format string // text or json
}

// Listener is one listener block.
type Listener struct {
	Name        string
	Network     string      // "tcp" or "unix"
	Address     string      // host:port, or the path of the socket
	Mode        fs.FileMode // of a UNIX socket
	Client      string      // sessions start authenticated as this client; empty: they log in
	MaxSessions int         // 0: only limits.max_sessions counts
}

// Client is one client block: who may log in to the proxy.
type Client struct {
	Name     string
	Password Secret // in Dovecot's form, {SCHEME}data
}

// Shard is one shard block: the backends that serve the same mail.
type Shard struct {
	Name     string
	Backends []Backend // in the order of preference
}

// Backend is one Dovecot server with backend_defaults merged in. Its name is
// unique in the whole configuration.
type Backend struct {
	Name     string
	Address  string // host:port
	Username string
	Password Secret
	Pool     Pool
	Breaker  Breaker
	Timeouts Timeouts
}

// Pool holds the limits of a backend's connection pool.
type Pool struct {
	MaxOpen        int
	MaxIdle        int
	MinIdle        int
	IdleTimeout    time.Duration // 0: none
	MaxLifetime    time.Duration // 0: none
	MaxCommands    int           // 0: no limit
	AcquireTimeout time.Duration // 0: none
	MaxWaiting     int
}

// Breaker holds a backend's circuit breaker settings.
type Breaker struct {
	Failures int           // consecutive failures that open it
	Open     time.Duration // how long it stays open
	Probes   int           // commands let through while half-open
}

// Timeouts are the deadlines of a backend's connections by phase; 0: none.
type Timeouts struct {
	Connect   time.Duration // TCP connection
	Handshake time.Duration // greeting and login
	Reply     time.Duration // between two reads of a reply
	Write     time.Duration // one write of a request
}

// Route is one route block. Kind says which fields have a meaning.
type Route struct {
	Kind   string   // match, file or ring
	Users  []string // match: globs on the user
	Shard  string   // match
	Path   string   // file: "user shard" a line
	Shards []string // ring; all shards of the configuration if none is named
}

// Limits is the limits block: what bounds the whole proxy.
type Limits struct {
	MaxSessions      int
	HandshakeTimeout time.Duration // accept to logged in
	IdleTimeout      time.Duration // between two commands of a session; 0: none
	WriteTimeout     time.Duration // a client that takes nothing for so long is gone
	DrainTimeout     time.Duration // SIGTERM to the end of running commands
	MaxSpool         int64         // bytes of reply that slow clients may hold on disk, all together
	SpoolDir         string
}
