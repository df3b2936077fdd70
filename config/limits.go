package config

import "time"

// Limits is the limits block: what bounds the whole proxy.
type Limits struct {
	MaxSessions      int
	MaxPerAddress    int           // sessions of one address; 0: only MaxSessions counts
	MaxMemory        int64         // bytes; 0: the environment variable GOMEMLIMIT, or no limit
	HandshakeTimeout time.Duration // accept to logged in
	IdleTimeout      time.Duration // between two commands of a session; 0: none
	WriteTimeout     time.Duration // a client that takes nothing for so long is gone
	DrainTimeout     time.Duration // SIGTERM to the end of running commands
	OverlapTimeout   time.Duration // the same where the next process serves already
	InputTimeout     time.Duration // of a client's silence inside the input of a command; 0: none
	MaxInput         int64         // bytes of input of one command
	MaxSpool         int64         // bytes of input and reply on disk, all together
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
				doc: "Client connections at the same time, over all listeners. One more gets a log line and is closed after its login (many more are closed at once). Each takes a file descriptor, and the log says at the start if `LimitNOFILE=` of the systemd unit allows fewer.",
			},
			{
				name: "max_sessions_per_address", field: count(&m.MaxPerAddress, 0), def: `0`,
				doc: "Client connections at the same time from one address, UNIX sockets aside. One more is treated as by `max_sessions`. Behind a balancer all clients may have the same address. 0: only `max_sessions` counts.",
			},
			{
				name: "max_memory", field: optionalSize(&m.MaxMemory), example: `"512MiB"`,
				doc: "The memory that the proxy is to live with. Near to it new sessions are refused, as by `max_sessions`, and what slow clients have not read goes to `spool_dir` sooner. Without the attribute the environment variable GOMEMLIMIT says so, if it is set.",
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
				name: "input_timeout", field: duration(&m.InputTimeout, 0), def: `"300s"`,
				doc: "A client that sends nothing for so long inside the input of a command (`save`, `sieve put`) gets `-TEMPFAIL`, and its session is closed. Dovecot's own limit is 300 seconds.",
			},
			{
				name: "max_input", field: size(&m.MaxInput), def: `"1GiB"`,
				doc: "The input of one command, a mail for `save` for instance. More is read and dropped, and the command refused. A backend has to take it within four minutes, because Dovecot reads an input for five minutes at most: 10 GiB need 43 MiB a second.",
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
				name: "overlap_timeout", field: duration(&m.OverlapTimeout, 1), def: `"1h"`,
				doc: "The same for a process that runs as `serve --overlap`, as the systemd unit has it: the next process serves new connections already, and nobody waits for this one. A session that is never silent for ten seconds ends after half of this time, between two commands.",
			},
			{
				name: "max_spool", field: size(&m.MaxSpool), def: `"10GiB"`,
				doc: "What may be on disk at the same time, all clients together: the input of commands (a mail for `save`), which is taken whole before a backend sees it, and what slow clients have not read of replies. A backend never waits for a client.",
			},
			{
				name: "spool_dir", field: existingDir(&m.SpoolDir), def: `"/var/tmp"`,
				doc: "The directory for `max_spool`. The files have no names in it and are gone when the proxy ends. It should be on a disk, not in memory.",
			},
		},
	}
}
