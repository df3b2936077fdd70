package sqlsource

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func (s *Source) postgres(c config.SQL, l config.Lookup) error {
	settings, err := pgxpool.ParseConfig(c.DSN.Reveal())
	if err != nil {
		// Its text has a part of the DSN in it.
		return errors.New(`dsn is no connection string of PostgreSQL: write postgres://user:password@host:5432/database`)
	}
	settings.MaxConns = int32(max(1, l.MaxLookups))
	settings.MinConns = 0
	settings.MaxConnIdleTime = idleTime
	settings.MaxConnLifetime = lifetime
	settings.ConnConfig.ConnectTimeout = l.Timeout
	// A query that takes too long is cancelled at the server, not only left.
	settings.ConnConfig.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
	if settings.ConnConfig.RuntimeParams["application_name"] == "" {
		settings.ConnConfig.RuntimeParams["application_name"] = "doveadm-proxy"
	}
	var pool *pgxpool.Pool
	s.open = func() (*sql.DB, error) {
		var err error
		if pool, err = pgxpool.NewWithConfig(context.Background(), settings); err != nil {
			return nil, err
		}
		return stdlib.OpenDBFromPool(pool), nil
	}
	s.shut = func() { pool.Close() }
	if c.Channel != "" {
		s.listen = &listener{channel: c.Channel, config: settings.ConnConfig, timeout: l.Timeout}
	}
	return nil
}

// How a listener tries again to connect, and how often it looks whether its
// connection is alive.
const (
	listenAgain     = 100 * time.Millisecond
	listenAgainMost = 5 * time.Second
	listenCheck     = 30 * time.Second
)

// listener waits for notifications over a connection of its own.
type listener struct {
	channel string
	config  *pgx.ConnConfig
	timeout time.Duration

	cancel context.CancelFunc
	run    sync.WaitGroup
}

func (l *listener) start(forget func(user string), doubt func()) {
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(context.Background())
	l.run.Go(func() {
		pause := listenAgain
		for {
			listened := l.listen(ctx, forget, doubt)
			if ctx.Err() != nil {
				return
			}
			if listened {
				// What has changed from now on is not heard of.
				doubt()
				pause = listenAgain
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			pause = min(2*pause, listenAgainMost)
		}
	})
}

func (l *listener) close() {
	if l.cancel != nil {
		l.cancel()
		l.run.Wait()
	}
}

// listen passes notifications on until the connection ends, and reports whether
// there was one.
func (l *listener) listen(ctx context.Context, forget func(user string), doubt func()) (listened bool) {
	within := func(f func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, l.timeout)
		defer cancel()
		return f(ctx)
	}
	var conn *pgx.Conn
	err := within(func(ctx context.Context) (err error) {
		conn, err = pgx.ConnectConfig(ctx, l.config)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "LISTEN "+pgx.Identifier{l.channel}.Sanitize())
		return err
	})
	if conn != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
			defer cancel()
			conn.Close(ctx)
		}()
	}
	if err != nil {
		return false
	}
	// Nobody has listened until now.
	doubt()
	for {
		wait, cancel := context.WithTimeout(ctx, listenCheck)
		got, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			forget(got.Payload)
		case quiet && !conn.IsClosed():
			if within(conn.Ping) != nil {
				return true
			}
		default:
			return true
		}
	}
}
