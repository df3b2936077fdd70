// Package sqlsource asks databases where users are.
package sqlsource

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// Connections that nobody used for idleTime are closed, so that a quiet night
// does not end with connections that a firewall forgot; none gets older than
// lifetime, so that they follow a database that moved.
const (
	idleTime = 5 * time.Minute
	lifetime = time.Hour
)

// Source asks one database. Its methods may be called from any goroutine.
type Source struct {
	config  config.SQL
	timeout time.Duration
	open    func() (*sql.DB, error)
	shut    func() // what open opened besides
	args    int    // how often the user stands in the query
	listen  *listener

	// replaced reports whether the database that is open is another one than
	// that which would be opened now.
	replaced func() bool

	mu sync.RWMutex // guards what follows; held for reading while it is used
	db *sql.DB      // nil until it is needed
}

// New returns the source of a configuration. It connects to nothing.
func New(c config.SQL, l config.Lookup) (*Source, error) {
	s := &Source{config: c, timeout: l.Timeout, args: 1, shut: func() {}, replaced: func() bool { return false }}
	var err error
	switch c.Driver {
	case config.Postgres:
		err = s.postgres(c, l)
	case config.MySQL:
		s.args = strings.Count(c.Query, "?")
		err = s.mysql(c, l)
	case config.SQLite:
		s.args = strings.Count(c.Query, "?")
		err = s.sqlite(c, l)
	default:
		err = fmt.Errorf("unknown driver %q: use %s, %s or %s", c.Driver, config.Postgres, config.MySQL, config.SQLite)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// use calls f with the database.
func (s *Source) use(f func(db *sql.DB) error) error {
	s.mu.RLock()
	if s.db == nil || s.replaced() {
		s.mu.RUnlock()
		if err := s.reopen(); err != nil {
			return err
		}
		s.mu.RLock()
	}
	defer s.mu.RUnlock()
	return f(s.db)
}

func (s *Source) reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		if !s.replaced() {
			return nil
		}
		s.db.Close()
		s.db = nil
	}
	var err error
	s.db, err = s.open()
	return err
}

// Lookup asks for a user.
func (s *Source) Lookup(ctx context.Context, user string) (place lookup.Place, found bool, err error) {
	err = s.use(func(db *sql.DB) error {
		if s.config.Tables != "" {
			place.Shard, err = newDirector(s.config).backend(ctx, db, user)
		} else {
			place.Shard, err = s.ask(ctx, db, user)
		}
		return err
	})
	switch {
	case errors.Is(err, errNotFound):
		return lookup.Place{}, false, nil
	case err != nil:
		return lookup.Place{}, false, fmt.Errorf("%s: %w", s.config.Driver, oneLine{err})
	}
	return place, true, nil
}

var errNotFound = errors.New("not found")

// ask runs the query of the configuration.
func (s *Source) ask(ctx context.Context, db *sql.DB, user string) (string, error) {
	args := make([]any, s.args)
	for i := range args {
		args[i] = user
	}
	return single(ctx, db, s.config.Query, args...)
}

// querier is a database, a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// single returns the first column of the one row that a query returns,
// errNotFound if there is none or if it is NULL.
func single(ctx context.Context, db querier, query string, args ...any) (string, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return "", err
	}
	if len(columns) == 0 {
		return "", errors.New("the query returns no column")
	}
	var got sql.NullString
	into := make([]any, len(columns))
	into[0] = &got
	for i := range into[1:] {
		into[i+1] = new(any)
	}
	answer, n := "", 0
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return "", err
		}
		switch {
		case !got.Valid:
			continue
		case got.String == "":
			return "", errors.New("the query returns an empty name")
		case n > 0 && got.String != answer:
			return "", fmt.Errorf("the query returns several rows, with %q and %q: one user is in one place", answer, got.String)
		}
		answer = got.String
		n++
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	if n == 0 {
		return "", errNotFound
	}
	return answer, nil
}

// Close ends all connections.
func (s *Source) Close() {
	if s.listen != nil {
		s.listen.close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		s.db.Close()
		s.shut()
		s.db = nil
	}
}

// Notify makes the source tell of changes, where the configuration names a
// channel.
func (s *Source) Notify(forget func(user string), doubt func()) {
	if s.listen != nil {
		s.listen.start(forget, doubt)
	}
}

// oneLine is an error for a line of a log.
type oneLine struct{ error }

func (e oneLine) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }
func (e oneLine) Unwrap() error { return e.error }
