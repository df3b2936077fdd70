package config

import (
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Where moved users are kept.
const (
	MovesSQLite   = "sqlite"
	MovesPostgres = "postgres"
	MovesMySQL    = "mysql"
)

// Moves is the moves block: users who are not where the routes say. The zero
// value is without them.
type Moves struct {
	Driver string // empty: there is no block
	Path   string // of SQLite's file
	DSN    Secret
	Name   string // of this proxy, for people; empty: that of the machine
	Lease  time.Duration
	Poll   time.Duration

	AnswerTimeout time.Duration // of the proxies, before anybody waits
	HoldTimeout   time.Duration // for which a command waits
	MaxHold       time.Duration // for which a user is on hold
	MaxWaiting    int           // commands of one user
	MaxPasses     int           // of a copy, before the hold
	CopyTimeout   time.Duration // of all these passes
	SyncOptions   []string
}

func (m *Moves) block() block {
	return block{
		name: "moves",
		doc: "Users who were moved from one shard to another by hand (`user move`, `user migrate`). They stand in a database, which is asked before all routes, from memory. " +
			"Without the block users cannot be moved so. [moving-users.md](moving-users.md) has more. Changes of `driver`, `path`, `dsn`, `name` and `lease`, and of the block being there, count from the next start.",
		example: `
moves {
  driver = "postgres"
  dsn    = env("MOVES_DSN")
}`,
		attrs: []attr{
			{
				name: "driver", field: choice(&m.Driver, MovesSQLite, MovesPostgres, MovesMySQL), def: `"sqlite"`,
				doc: "`sqlite`: a file, for one proxy, or several on the same machine. `postgres` and `mysql` (MariaDB, too): a database that any number of proxies share. The tables, whose names begin with `doveadm_proxy_`, are made by the proxy.",
			},
			{
				name: "path", field: path(&m.Path, anywhere), def: `"/var/lib/doveadm-proxy/moves.db"`,
				doc: "The file of `sqlite`, on a local disk. Beside it there is a directory of the same name with `.members` behind it.",
			},
			{
				name: "dsn", secret: true, field: secretText(&m.DSN, new(string), "text"), example: `"postgres://proxy:secret@db.example/doveadm_proxy"`,
				doc: "How to reach `postgres` (`postgres://USER:PASSWORD@HOST/DATABASE`) or `mysql` (`USER:PASSWORD@tcp(HOST:3306)/DATABASE`). It is kept as secret as a password.",
			},
			{
				name: "name", field: text(&m.Name), example: `"proxy1"`,
				doc: "What this proxy is called in messages about moves. Without the attribute: the name of the machine.",
			},
			{
				name: "lease", field: duration(&m.Lease, 1), def: `"5m"`,
				doc: "With `postgres` and `mysql`: how long a proxy that cannot reach the database goes on. After that it answers all commands with `-TEMPFAIL`, because users may have been moved meanwhile. Until then no user can be moved, because the proxies must not disagree about where a user is; so long moves have to wait after a proxy has crashed. All proxies should have the same.",
			},
			{
				name: "poll", field: duration(&m.Poll, 1), def: `"1s"`,
				doc: "How often the database is looked at. PostgreSQL tells of changes at once. While a user is being moved all proxies look fifty times a second.",
			},
			{
				name: "answer_timeout", field: duration(&m.AnswerTimeout, 1), def: `"5s"`,
				doc: "How long a move waits for all proxies to answer, before any command has to wait. It has to be longer than `poll`.",
			},
			{
				name: "max_hold", field: duration(&m.MaxHold, 1), def: `"2s"`,
				doc: "How long new commands of a user may have to wait for the end of a move: for running commands to end, and for the last part of the mail to be copied and compared. A move that takes longer is rolled back. `--max-hold` says otherwise for one move.",
			},
			{
				name: "hold_timeout", field: duration(&m.HoldTimeout, 1), def: `"10s"`,
				doc: "How long a command waits for the end of a move, before it gets `-TEMPFAIL`. It should be longer than `max_hold`.",
			},
			{
				name: "max_waiting", field: count(&m.MaxWaiting, 0), def: `100`,
				doc: "Commands of one user that wait for the end of a move. More get `-TEMPFAIL` at once.",
			},
			{
				name: "max_passes", field: count(&m.MaxPasses, 1), def: `5`,
				doc: "`user migrate`: how often the mail is copied while commands go on. It ends earlier when a pass is short enough to be made with the commands waiting.",
			},
			{
				name: "copy_timeout", field: duration(&m.CopyTimeout, 1), def: `"6h"`,
				doc: "`user migrate`: how long these passes may take.",
			},
			{
				name: "sync_options", field: texts(&m.SyncOptions), example: `["-N"]`,
				doc: "`user migrate`: options for Dovecot's `doveadm backup`, which copies the mail. `-N` copies all namespaces.",
			},
		},
	}
}

func (l *loader) movesBlock(b *hclsyntax.Block) {
	at := l.block(l.moves.block(), b, nil)
	m := &l.moves
	switch {
	case m.Driver == MovesSQLite && at.has("dsn"):
		l.errorf(at.of("dsn"), "dsn of a file", `The driver "sqlite" has a path. Remove the attribute, or write driver = "postgres" or driver = "mysql".`)
	case m.Driver != MovesSQLite && !at.has("dsn"):
		l.missingIn(b.Range(), b.DefRange(), "No dsn", `The proxy has to know how to reach the database: dsn = env("MOVES_DSN")`)
	case m.Driver != MovesSQLite && at.has("path"):
		l.errorf(at.of("path"), "path of a database server", `Only the driver "sqlite" has one. Remove the attribute.`)
	}
	if m.Driver != MovesSQLite {
		m.Path = ""
	}
	if m.AnswerTimeout <= m.Poll {
		l.errorf(at.header, "answer_timeout is not longer than poll", "A proxy may look into the database only after %s (poll), so that a move would be given up before. Write a longer answer_timeout, or a shorter poll.", formatDuration(m.Poll))
	}
	if m.HoldTimeout <= m.MaxHold {
		l.warnf(at.header, "hold_timeout is not longer than max_hold", "Commands that wait for a move would fail before it is given up. Write a longer hold_timeout, or a shorter max_hold.")
	}
}
