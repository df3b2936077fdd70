package moves

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // registers its driver

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// dialect is what differs between the databases. Statements are written with ?
// for arguments and {now} for the milliseconds since 1970.
type dialect struct {
	types    *strings.Replacer // of columns
	now      func() string
	numbered bool   // arguments are $1, $2, ...
	ignore   string // begins an INSERT that may find the row there
	conflict string // ends it
	ddlLock  string // keeps others from making the tables at the same time
	notify   string // tells the other proxies
}

// channel is what PostgreSQL's notifications go over.
const channel = "doveadm_proxy_moves"

// connectTimeout bounds the connection to a database server. Statements have
// bounds of their own.
const connectTimeout = 3 * time.Second

func sqliteDialect() dialect {
	return dialect{
		types:  strings.NewReplacer("{user}", "TEXT", "{id}", "TEXT", "{text}", "TEXT", "{int}", "INTEGER", "{end}", ""),
		now:    func() string { return strconv.FormatInt(time.Now().UnixMilli(), 10) },
		ignore: "INSERT OR IGNORE",
	}
}

func postgresDialect() dialect {
	return dialect{
		types:    strings.NewReplacer("{user}", "TEXT", "{id}", "TEXT", "{text}", "TEXT", "{int}", "BIGINT", "{end}", ""),
		now:      func() string { return "(extract(epoch from clock_timestamp())*1000)::bigint" },
		numbered: true,
		ignore:   "INSERT",
		conflict: " ON CONFLICT DO NOTHING",
		ddlLock:  "SELECT pg_advisory_xact_lock(7310849263)",
		notify:   "SELECT pg_notify('" + channel + "', '')",
	}
}

func mysqlDialect() dialect {
	return dialect{
		types: strings.NewReplacer("{user}", "VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "{id}", "VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin",
			"{text}", "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "{int}", "BIGINT", "{end}", " ENGINE=InnoDB"),
		// The time at which the statement began; the session's zone is UTC.
		now:    func() string { return "CAST(UNIX_TIMESTAMP(NOW(3))*1000 AS SIGNED)" },
		ignore: "INSERT IGNORE",
	}
}

// text makes a statement of the dialect.
func (d *dialect) text(statement string) string {
	if strings.Contains(statement, "{now}") {
		statement = strings.ReplaceAll(statement, "{now}", d.now())
	}
	if !d.numbered {
		return statement
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(statement, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}

// open makes the handle of the database that c describes. Nothing is connected
// yet. listen waits for a notification; it is nil where there are none.
func open(c config.Moves) (db *sql.DB, d dialect, listen func(ctx context.Context, ready, notified func()) error, err error) {
	switch c.Driver {
	case config.MovesPostgres:
		settings, err := pgx.ParseConfig(c.DSN.Reveal())
		if err != nil {
			return nil, d, nil, fmt.Errorf("moves.dsn: %w", hideDSN(err))
		}
		if settings.ConnectTimeout == 0 || settings.ConnectTimeout > connectTimeout {
			settings.ConnectTimeout = connectTimeout
		}
		db = stdlib.OpenDB(*settings)
		return limited(db), postgresDialect(), func(ctx context.Context, ready, notified func()) error {
			return listenPostgres(ctx, settings, ready, notified)
		}, nil
	case config.MovesMySQL:
		settings, err := mysql.ParseDSN(c.DSN.Reveal())
		if err != nil {
			return nil, d, nil, fmt.Errorf("moves.dsn: %w", hideDSN(err))
		}
		if settings.Timeout == 0 || settings.Timeout > connectTimeout {
			settings.Timeout = connectTimeout
		}
		if settings.Params == nil {
			settings.Params = make(map[string]string)
		}
		settings.Params["time_zone"] = "'+00:00'"
		settings.ClientFoundRows = true // as with the others: rows that match, changed or not
		settings.Logger = nobody{}
		connector, err := mysql.NewConnector(settings)
		if err != nil {
			return nil, d, nil, fmt.Errorf("moves.dsn: %w", hideDSN(err))
		}
		return limited(sql.OpenDB(connector)), mysqlDialect(), nil, nil
	}
	// FULL: a move that was reported as done is done after a power failure, too.
	at := url.URL{Scheme: "file", OmitHost: true, Path: c.Path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}, "_txlock": {"immediate"},
	}.Encode()}
	if db, err = sql.Open("sqlite", at.String()); err != nil {
		return nil, d, nil, fmt.Errorf("moves.path: %w", err)
	}
	db.SetMaxOpenConns(2)
	return db, sqliteDialect(), nil, nil
}

// limited keeps the proxies from using up the server's connections.
func limited(db *sql.DB) *sql.DB {
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(2)
	db.SetConnMaxIdleTime(time.Minute)
	return db
}

// nobody is whom the MySQL driver tells what it returns as an error as well.
type nobody struct{}

func (nobody) Print(...any) {}

// hideDSN keeps a DSN that cannot be read, and may hold a password, out of the
// log.
func hideDSN(error) error {
	return errors.New(`it cannot be read: write "postgres://USER:PASSWORD@HOST/DATABASE" for PostgreSQL, "USER:PASSWORD@tcp(HOST:3306)/DATABASE" for MySQL`)
}

// listenPostgres listens until ctx ends or the connection breaks. ready is called
// when it listens, notified for each notification.
func listenPostgres(ctx context.Context, settings *pgx.ConnConfig, ready, notified func()) error {
	conn, err := pgx.ConnectConfig(ctx, settings)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		conn.Close(closing)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	ready()
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		notified()
	}
}
