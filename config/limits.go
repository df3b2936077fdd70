package config

import "time"

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

func (m *Limits) block() block {
	return block{
		name: "limits",
		doc:  "What bounds the proxy as a whole. The limits of the connections to one backend are in `pool` and `timeouts`.",
		example: `
limits {
  max_sessions  = 2000
  drain_timeout = "1m"
  max_spool     = "20GiB"
  spool_dir     = "/var/tmp"
}`,
		attrs: []attr{
			{
				name: "max_sessions", field: count(&m.MaxSessions, 1), def: `10000`,
				doc: "Client connections at the same time, over all listeners. One more is closed at once. Each takes a file descriptor: `LimitNOFILE=` of the systemd unit has to be larger.",
			},
			{
				name: "handshake_timeout", field: duration(&m.HandshakeTimeout, 1), def: `"5s"`,
				doc: "Time from accepting a connection until the client has logged in.",
			},
			{
				name: "idle_timeout", field: duration(&m.IdleTimeout, 0), def: `"0s"`,
				doc: "Time between two commands of a session, after which it is closed. `0s`: no limit, as with Dovecot.",
			},
			{
				name: "write_timeout", field: duration(&m.WriteTimeout, 1), def: `"60s"`,
				doc: "A client that takes nothing of a reply for so long is gone, and its session is closed.",
			},
			{
				name: "drain_timeout", field: duration(&m.DrainTimeout, 0), def: `"30s"`,
				doc: "Time that running commands have to end after SIGTERM. `TimeoutStopSec=` of the systemd unit has to be longer.",
			},
			{
				name: "max_spool", field: size(&m.MaxSpool), def: `"10GiB"`,
				doc: "What of replies may wait on disk for slow clients, all clients together. A backend never waits for a client: what a client does not take in time goes to `spool_dir`.",
			},
			{
				name: "spool_dir", field: existingDir(&m.SpoolDir), def: `"/var/tmp"`,
				doc: "The directory for what waits. The files have no names in it and are gone when the proxy ends. It should be on a disk, not in memory.",
			},
		},
		later: []later{
			{"max_input", "Remove the attribute. Commands that read input (doveadm save, sieve put) are refused by this version."},
		},
	}
}
