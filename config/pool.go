package config

import "time"

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
	MaxBulk        int // connections of MaxOpen that clients of priority bulk may have
	MaxTunnels     int // connections of MaxOpen that carry dsync
	Adaptive       bool
	MinActive      int // Adaptive: commands that may run at the same time whatever was measured
}

func (p *Pool) block() block {
	return block{
		name: "pool",
		doc: "The connections to a backend. They are logged in once and used for many commands. Every open connection, an idle one too, occupies " +
			"one process of the backend's doveadm service until it is closed. Dovecot allows 100 of them (`default_process_limit`, or `process_limit` in `service doveadm`), " +
			"and the connections of all proxies count.",
		example: `
backend_defaults {
  pool {
    max_open     = 16
    max_idle     = 4
    idle_timeout = "1m"
  }
}`,
		attrs: []attr{
			{
				name: "max_open", field: count(&p.MaxOpen, 1), def: `8`,
				doc: "Connections to a backend at the same time: at most so many commands run on it at once, further ones wait.",
			},
			{
				name: "adaptive", field: toggle(&p.Adaptive), def: `false`,
				doc: "`true`: while commands wait, it is measured with how many of them at the same time the backend answers most, and no more are sent to it at once: too many make all of them slower. `false`: always up to `max_open`.",
			},
			{
				name: "min_active", field: count(&p.MinActive, 1), def: `1`,
				doc: "With `adaptive`, so many commands may always run at the same time. At most `max_open`.",
			},
			{
				name: "max_idle", field: count(&p.MaxIdle, 0), def: `8`,
				doc: "Connections that are kept when they have nothing to do. At most `max_open`, and as many where nothing is said. Less than `max_open` closes connections in every quiet moment under load, and each that is opened again is a process start on the backend.",
			},
			{
				name: "min_idle", field: count(&p.MinIdle, 0), def: `0`,
				doc: "Idle connections that are kept open for commands to come. At most `max_idle`.",
			},
			{
				name: "idle_timeout", field: duration(&p.IdleTimeout, 0), def: `"30s"`,
				doc: "An idle connection is closed after this time. `0s`: it is kept.",
			},
			{
				name: "max_lifetime", field: duration(&p.MaxLifetime, 0), def: `"5m"`,
				doc: "A connection is replaced after about this time, because it keeps the configuration that Dovecot had when it began. `0s`: it is kept.",
			},
			{
				name: "max_commands", field: count(&p.MaxCommands, 0), def: `1000`,
				doc: "A connection is replaced after so many commands. 0: no limit.",
			},
			{
				name: "acquire_timeout", field: duration(&p.AcquireTimeout, 0), def: `"10s"`,
				doc: "How long a command waits for a connection before it is answered with a temporary failure. `0s`: no limit.",
			},
			{
				name: "max_waiting", field: count(&p.MaxWaiting, 0), def: `1000`,
				doc: "Commands that wait at the same time. With one more, the newest of the client that has most of them waiting is answered with a temporary failure at once; where clients of priority `bulk` wait, it is one of theirs.",
			},
			{
				name: "max_bulk", field: count(&p.MaxBulk, 1), def: `2`,
				doc: "Connections among `max_open` that clients of `priority = \"bulk\"` may have at the same time, all of them together. At most `max_open`, and a quarter of it where nothing is said. The others stay free for interactive clients, and the backend has time for their commands: what runs at the same time shares its processors and disks. More lets bulk clients be done sooner.",
			},
			{
				name: "max_tunnels", field: count(&p.MaxTunnels, 0), def: `4`,
				doc: "Connections among `max_open` that `doveadm sync` and `doveadm backup` may hold at the same time, for as long as they run. One more waits like any command. `0`: such commands are refused.",
			},
		},
	}
}

// settle fills in what follows from other limits. at is the place of the block
// around the pool.
func (p *Pool) settle(at *place) {
	if !at.inherits("pool.max_idle") {
		p.MaxIdle = p.MaxOpen
	}
	if !at.inherits("pool.max_bulk") {
		p.MaxBulk = max(1, p.MaxOpen/4)
	}
}

// checkPool reports limits that contradict each other. What a backend inherits
// as a whole was reported where it stands.
func (l *loader) checkPool(p Pool, at *place) {
	if p.MinActive > p.MaxOpen && (at.has("pool.min_active") || at.has("pool.max_open")) {
		l.errorf(at.of("pool.min_active", "pool.max_open"), "min_active is larger than max_open",
			"%d commands cannot run at the same time where no more than %d connections may be open. Lower min_active or raise max_open.", p.MinActive, p.MaxOpen)
	}
	if !at.has("pool.max_open") && !at.has("pool.max_idle") && !at.has("pool.min_idle") && !at.has("pool.max_bulk") {
		return
	}
	if p.MaxIdle > p.MaxOpen {
		l.errorf(at.of("pool.max_idle", "pool.max_open"), "max_idle is larger than max_open",
			"%d connections cannot be idle where no more than %d may be open. Lower max_idle or raise max_open.", p.MaxIdle, p.MaxOpen)
	}
	if p.MaxBulk > p.MaxOpen {
		l.errorf(at.of("pool.max_bulk", "pool.max_open"), "max_bulk is larger than max_open",
			"Bulk clients cannot have %d connections where no more than %d may be open. Lower max_bulk or raise max_open.", p.MaxBulk, p.MaxOpen)
	}
	if p.MinIdle > p.MaxIdle {
		l.errorf(at.of("pool.min_idle", "pool.max_idle", "pool.max_open"), "min_idle is larger than max_idle",
			"%d connections cannot be kept idle where no more than %d may be. Lower min_idle, or raise max_idle (and max_open with it).", p.MinIdle, p.MaxIdle)
	}
}
