package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
)

// The databases of SQL.Driver.
const (
	Postgres = "postgres"
	MySQL    = "mysql"
	SQLite   = "sqlite"
)

// The tables of SQL.Tables.
const (
	LuaDirector      = "lua-director"
	LuaDirectorShard = "lua-director-shard"
)

// SQL is what a route of the kind sql asks.
type SQL struct {
	Driver  string
	DSN     Secret // how to connect
	Query   string // returns the shard; empty: Tables say what is asked
	Tables  string
	Channel string // of PostgreSQL's notifications; empty: none
}

func (s *SQL) attrs() []attr {
	return []attr{
		{
			name: "driver", field: choice(&s.Driver, Postgres, MySQL, SQLite), required: true, example: `"postgres"`,
			doc: "The kind of database. `mysql` is MariaDB, too.",
		},
		{
			name: "dsn", secret: true, field: secretText(&s.DSN, new(string), "a data source name"), required: true, example: `env("ROUTE_DSN")`,
			doc: "How to connect. PostgreSQL: `postgres://user:password@host:5432/database?sslmode=verify-full` or `host=… user=… password=…`; several hosts are tried in turn. " +
				"MySQL: `user:password@tcp(host:3306)/database?tls=true`. SQLite: the path of the file. As it holds a password it is never shown.",
		},
		{
			name: "query", field: statement(&s.Query), example: `"SELECT shard FROM mailbox WHERE username = $1"`,
			doc: "The query. The user, in normal form, is its parameter: `$1` with PostgreSQL, each `?` with MySQL and SQLite. It returns one row whose first column is the name of a shard; no row, or NULL, leaves the user to the next route. Rows with different shards are an error.",
		},
		{
			name: "tables", field: choice(&s.Tables, LuaDirector, LuaDirectorShard), example: `"lua-director"`,
			doc: "Instead of `query`: the tables of Dovecot's sample Lua director, `backends` and `user_backend`, for users (`lua-director`) or for 65,536 hashes of users (`lua-director-shard`). The host name of the backend is the name of the shard. " +
				"A user without a backend gets one of those with the `state` 0 by chance, as the sample does it; several proxies agree on it.",
		},
		{
			name: "channel", field: text(&s.Channel), example: `"mailbox_moved"`,
			doc: "With PostgreSQL: a channel to listen on. A notification with a user as its payload makes the proxy forget what it knows of this user, one without a payload what it knows of all. When the connection that listens is lost, and again when it is back, all that is known counts as too old: it is asked for again, and good for no more than `stale`.",
		},
	}
}

// statement is a text that may have several lines. An empty variable is one
// that was not set.
func statement(to *string) field {
	return field{
		takes: "text",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			switch {
			case !ok:
				return wrong("")
			case strings.TrimSpace(s) == "":
				return wrong("It is empty.")
			case !utf8.ValidString(s) || strings.ContainsRune(s, 0):
				return wrong("It is not UTF-8, or has a NUL byte in it.")
			}
			*to = strings.TrimSpace(s)
			return nil
		},
		get: func() cty.Value { return optional(*to) },
	}
}

// checkSQL finds what is wrong with the attributes taken together.
func (l *loader) checkSQL(s *SQL, at *place) {
	switch {
	case at.has("query") && at.has("tables"):
		l.errorf(at.of("tables"), "query and tables", "Each of them says what is asked. Remove one of the two.")
	case !at.has("query") && !at.has("tables"):
		l.missingIn(at.whole, at.header, "No query", "The block needs it, or tables. For example: query = \"SELECT shard FROM mailbox WHERE username = %s\"", s.parameter())
	case s.Query != "" && s.Driver != "" && !strings.Contains(s.Query, s.parameter()):
		l.errorf(at.of("query"), "Query without the user", "Each user would get the same answer. Write %s where the user belongs.", s.parameter())
	}
	if at.has("channel") && s.Driver != "" && s.Driver != Postgres {
		l.errorf(at.of("channel"), "No notifications", "Only PostgreSQL has them. Remove channel; a short cache.ttl lets changes arrive soon, too.")
	}
}

// parameter is how the user stands in a query.
func (s *SQL) parameter() string {
	if s.Driver == Postgres {
		return "$1"
	}
	return "?"
}

func (s *SQL) block(l *Lookup) block {
	return block{
		name: "route", kind: "sql", label: "kind", many: true,
		doc: "Users by a database. The query is yours; what it returns is kept for a while (see `cache`).",
		example: fmt.Sprintf(`
route "sql" {
  driver = "postgres"
  dsn    = env("ROUTE_DSN")
  query  = %q
}`, "SELECT shard FROM mailbox WHERE username = $1"),
		attrs:  append(s.attrs(), l.attrs()...),
		blocks: l.blocks(),
	}
}
