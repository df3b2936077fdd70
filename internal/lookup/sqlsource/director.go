package sqlsource

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// director reads and writes the tables of Dovecot's sample Lua director
// (director.lua and director-shard.lua of github.com/dovecot/tools):
//
//	backends(id, hostname, hostip, state)
//	user_backend(backend_id, user)        or user_backend(backend_id, user_hash)
//
// Their keys do not keep a user from getting two backends when two proxies
// assign one at the same time, so assigning takes a lock. The sample itself has
// none: it should not run beside this, or users should have backends before.
type director struct {
	driver string
	column string // with the user, or its hash
	hashed bool
}

func newDirector(c config.SQL) director {
	d := director{driver: c.Driver, column: `"user"`}
	if c.Driver == config.MySQL {
		d.column = "`user`"
	}
	if c.Tables == config.LuaDirectorShard {
		d.column, d.hashed = "user_hash", true
	}
	return d
}

// userHash is what director-shard.lua calculates: it xors the lower 16 bits of
// a CRC-32 with the upper ones, which it has shifted in the wrong direction, so
// that nothing is left of them.
func userHash(user string) int {
	return int(crc32.Update(120254, crc32.IEEETable, []byte(user)) & 0xffff)
}

// backend returns the host name of a user's backend, and assigns one where
// there is none.
func (d director) backend(ctx context.Context, db *sql.DB, user string) (string, error) {
	var key any = user
	if d.hashed {
		key = userHash(user)
	}
	name, err := d.find(ctx, db, key)
	if !errors.Is(err, errNotFound) {
		return name, err
	}
	err = d.locked(ctx, db, fmt.Sprint(key), func(db writer) error {
		// Somebody may have been faster.
		if name, err = d.find(ctx, db, key); !errors.Is(err, errNotFound) {
			return err
		}
		var id any
		if id, name, err = d.choose(ctx, db); err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, d.sql("INSERT INTO user_backend (backend_id, "+d.column+") VALUES (?, ?)"), id, key)
		return err
	})
	return name, err
}

type writer interface {
	querier
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (d director) find(ctx context.Context, db querier, key any) (string, error) {
	return single(ctx, db, d.sql("SELECT backends.hostname FROM backends JOIN user_backend ON backends.id = user_backend.backend_id "+
		"WHERE user_backend."+d.column+" = ?"), key)
}

// choose picks one of the backends with the state 0. The tables for hashes have
// no state in Dovecot's documentation.
func (d director) choose(ctx context.Context, db querier) (id any, name string, err error) {
	rows, err := db.QueryContext(ctx, "SELECT * FROM backends")
	if err != nil {
		return nil, "", err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, "", err
	}
	n := 0
	for rows.Next() {
		var backend struct {
			id    int64
			name  string
			state sql.NullInt64
		}
		into := make([]any, len(columns))
		for i, column := range columns {
			switch strings.ToLower(column) {
			case "id":
				into[i] = &backend.id
			case "hostname":
				into[i] = &backend.name
			case "state":
				into[i] = &backend.state
			default:
				into[i] = new(any)
			}
		}
		if err := rows.Scan(into...); err != nil {
			return nil, "", err
		}
		if backend.state.Int64 != 0 {
			continue
		}
		if n++; rand.IntN(n) == 0 { // each with the same chance in the end
			id, name = backend.id, backend.name
		}
	}
	if err := rows.Err(); err != nil {
		return nil, "", err
	}
	if n == 0 {
		return nil, "", errors.New("no backend in the table backends has the state 0")
	}
	return id, name, nil
}

// locked calls f while no other proxy assigns a backend to the same key.
func (d director) locked(ctx context.Context, db *sql.DB, key string, f func(db writer) error) error {
	sum := sha256.Sum256([]byte("doveadm-proxy lua-director " + key))
	if d.driver == config.MySQL {
		return lockedMySQL(ctx, db, "doveadm-proxy "+hex.EncodeToString(sum[:16]), f)
	}
	tx, err := db.BeginTx(ctx, nil) // of SQLite: immediate, which is a lock of the whole database
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if d.driver == config.Postgres {
		if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(binary.BigEndian.Uint64(sum[:]))); err != nil {
			return err
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// lockedMySQL holds a lock of the server, which belongs to a connection. What f
// writes is there at once, as it is not in a transaction.
func lockedMySQL(ctx context.Context, db *sql.DB, name string, f func(db writer) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	seconds := 60.0
	if deadline, ok := ctx.Deadline(); ok {
		seconds = time.Until(deadline).Seconds()
	}
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK(?, ?)", name, seconds).Scan(&got); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return errors.New("another proxy holds the lock for too long with which backends are assigned")
	}
	err = f(conn)
	if _, released := conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK(?)", name); released != nil {
		// The lock goes with the connection.
		conn.Raw(func(any) error { return driver.ErrBadConn })
		err = errors.Join(err, released)
	}
	return err
}

// sql writes a statement with the placeholders of the driver.
func (d director) sql(statement string) string {
	if d.driver != config.Postgres {
		return statement
	}
	for i := 1; strings.Contains(statement, "?"); i++ {
		statement = strings.Replace(statement, "?", fmt.Sprintf("$%d", i), 1)
	}
	return statement
}
