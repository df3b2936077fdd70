package moves

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// The phases of a move, as they stand in the database.
const (
	phaseCopy    = "copy"    // mail is copied, nobody waits
	phasePrepare = "prepare" // members look often
	phaseHold    = "hold"    // no command of the user begins
)

// row is what the database says of a user.
type row struct {
	user     string
	shard    string // empty: no exception
	from     string // where the user was before
	since    int64  // milliseconds
	revision int64
	move     moveRow // zero: none
}

// moveRow is a move that is under way.
type moveRow struct {
	id, phase, to, moverName string
	since, until             int64
}

// live reports whether there is a move. It may be one whose lease has ended.
func (m moveRow) live() bool { return m.id != "" }

// store is the database.
type store struct {
	db     *sql.DB
	d      dialect
	listen func(ctx context.Context, ready, notified func()) error
}

// schemaVersion is that of the tables. A program that needs others makes them of
// these, step by step.
const schemaVersion = 1

func schema() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS doveadm_proxy_state (
	id       {int} PRIMARY KEY,
	version  {int} NOT NULL,
	revision {int} NOT NULL,
	purged   {int} NOT NULL
){end}`,
		`CREATE TABLE IF NOT EXISTS doveadm_proxy_members (
	id       {id} PRIMARY KEY,
	name     {text} NOT NULL,
	until_ms {int} NOT NULL
){end}`,
		`CREATE TABLE IF NOT EXISTS doveadm_proxy_users (
	username      {user} PRIMARY KEY,
	shard         {text} NOT NULL,
	from_shard    {text} NOT NULL,
	since_ms      {int} NOT NULL,
	revision      {int} NOT NULL,
	move_id       {id} NOT NULL,
	move_phase    {id} NOT NULL,
	move_to       {text} NOT NULL,
	mover         {id} NOT NULL,
	mover_name    {text} NOT NULL,
	move_since_ms {int} NOT NULL,
	move_until_ms {int} NOT NULL
){end}`,
		`CREATE TABLE IF NOT EXISTS doveadm_proxy_answers (
	move_id {id} NOT NULL,
	member  {id} NOT NULL,
	phase   {id} NOT NULL,
	PRIMARY KEY (move_id, member, phase)
){end}`,
	}
}

// prepare makes the tables if they are not there, and looks at their version.
func (s *store) prepare(ctx context.Context) error {
	version, err := s.version(ctx)
	if err != nil {
		if made := s.makeTables(ctx); made != nil {
			return fmt.Errorf("make the tables: %w", made)
		}
		version, err = s.version(ctx)
	}
	switch {
	case err != nil:
		return err
	case version > schemaVersion:
		return fmt.Errorf("the tables doveadm_proxy_* are of version %d, which a newer doveadm-proxy has made; this one knows %d: use the newer one on all machines", version, schemaVersion)
	}
	return nil
}

func (s *store) version(ctx context.Context) (v int, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT version FROM doveadm_proxy_state WHERE id = 1`).Scan(&v)
	return v, err
}

func (s *store) makeTables(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if s.d.ddlLock != "" {
		if _, err := tx.ExecContext(ctx, s.d.ddlLock); err != nil {
			return err
		}
	}
	for _, statement := range schema() {
		if _, err := tx.ExecContext(ctx, s.d.types.Replace(statement)); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, s.d.text(s.d.ignore+` INTO doveadm_proxy_state (id, version, revision, purged) VALUES (1, ?, 0, 0)`+s.d.conflict), schemaVersion)
	if err != nil {
		return err
	}
	return tx.Commit()
}

// exec runs a statement and returns how many rows it concerned.
func (s *store) exec(ctx context.Context, statement string, args ...any) (int64, error) {
	return count(s.db.ExecContext(ctx, s.d.text(statement), args...))
}

func count(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// change is a transaction that gives the state a new revision. Changes come one
// after the other, so that revisions become visible in their order. Its error is
// a *commitError if it may have happened all the same.
func (s *store) change(ctx context.Context, do func(tx change) error) error {
	// Not serializable: the row of the state is locked by every change.
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: s.isolation()})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	c := change{ctx: ctx, tx: tx, d: &s.d}
	if _, err := c.exec(`UPDATE doveadm_proxy_state SET revision = revision + 1 WHERE id = 1`); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, `SELECT revision FROM doveadm_proxy_state WHERE id = 1`).Scan(&c.revision); err != nil {
		return err
	}
	if err := do(c); err != nil {
		return err
	}
	if s.d.notify != "" {
		if _, err := tx.ExecContext(ctx, s.d.notify); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return &commitError{err}
	}
	return nil
}

func (s *store) isolation() sql.IsolationLevel {
	if s.d.ignore == sqliteDialect().ignore {
		return sql.LevelDefault // it has one only
	}
	return sql.LevelReadCommitted
}

// commitError is that of a transaction of which it is not known whether it
// happened.
type commitError struct{ err error }

func (e *commitError) Error() string { return "commit: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }

// change is a transaction under way.
type change struct {
	ctx      context.Context
	tx       *sql.Tx
	d        *dialect
	revision int64
}

func (c change) exec(statement string, args ...any) (int64, error) {
	return count(c.tx.ExecContext(c.ctx, c.d.text(statement), args...))
}

// revisions returns the revision of the state, and the one up to which rows that
// say nothing any more have been taken away.
func (s *store) revisions(ctx context.Context) (now, purged int64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT revision, purged FROM doveadm_proxy_state WHERE id = 1`).Scan(&now, &purged)
	return now, purged, err
}

const userColumns = `username, shard, from_shard, since_ms, revision, move_id, move_phase, move_to, mover_name, move_since_ms, move_until_ms`

// after returns the users with a revision above one.
func (s *store) after(ctx context.Context, revision int64) ([]row, error) {
	found, err := s.db.QueryContext(ctx, s.d.text(`SELECT `+userColumns+` FROM doveadm_proxy_users WHERE revision > ?`), revision)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		r, err := scan(found)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// user returns what is known of one.
func (s *store) user(ctx context.Context, user string) (row, error) {
	r, err := scan(s.db.QueryRowContext(ctx, s.d.text(`SELECT `+userColumns+` FROM doveadm_proxy_users WHERE username = ?`), user))
	if errors.Is(err, sql.ErrNoRows) {
		return row{user: user}, nil
	}
	return r, err
}

func scan(from interface{ Scan(...any) error }) (r row, err error) {
	m := &r.move
	err = from.Scan(&r.user, &r.shard, &r.from, &r.since, &r.revision, &m.id, &m.phase, &m.to, &m.moverName, &m.since, &m.until)
	return r, err
}

// join makes a member, or renews one whose lease has ended.
func (s *store) join(ctx context.Context, id, name string, lease time.Duration) error {
	if _, err := s.exec(ctx, s.d.ignore+` INTO doveadm_proxy_members (id, name, until_ms) VALUES (?, ?, 0)`+s.d.conflict, id, name); err != nil {
		return err
	}
	n, err := s.exec(ctx, `UPDATE doveadm_proxy_members SET until_ms = {now} + ?, name = ? WHERE id = ?`, lease.Milliseconds(), name, id)
	if err == nil && n != 1 {
		err = errors.New("another proxy has removed the row of this one")
	}
	return err
}

// renew renews the lease of a member. It reports false if it has ended.
func (s *store) renew(ctx context.Context, id string, lease time.Duration) (bool, error) {
	n, err := s.exec(ctx, `UPDATE doveadm_proxy_members SET until_ms = {now} + ? WHERE id = ? AND until_ms > {now}`, lease.Milliseconds(), id)
	return n == 1, err
}

// leave ends a member: no command of its runs any more.
func (s *store) leave(ctx context.Context, id string) error {
	_, err := s.exec(ctx, `DELETE FROM doveadm_proxy_members WHERE id = ?`, id)
	return err
}

// bury shortens the lease of a member whose process is dead. What it has begun
// at backends may still run for a moment.
func (s *store) bury(ctx context.Context, id string, after time.Duration) error {
	_, err := s.exec(ctx, `UPDATE doveadm_proxy_members SET until_ms = {now} + ? WHERE id = ? AND until_ms > {now} + ?`, after.Milliseconds(), id, after.Milliseconds())
	return err
}

// member is a proxy as the others see it.
type member struct {
	id, name string
	left     time.Duration // of its lease
}

// silent returns the members with a lease that have not answered in a phase of a
// move.
func (s *store) silent(ctx context.Context, move, phase string) ([]member, error) {
	found, err := s.db.QueryContext(ctx, s.d.text(silentMembers), move, phase)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var all []member
	for found.Next() {
		var m member
		var left int64
		if err := found.Scan(&m.id, &m.name, &left); err != nil {
			return nil, err
		}
		m.left = time.Duration(left) * time.Millisecond
		all = append(all, m)
	}
	return all, found.Err()
}

const silentMembers = `SELECT id, name, until_ms - {now} FROM doveadm_proxy_members WHERE until_ms > {now}
AND id NOT IN (SELECT member FROM doveadm_proxy_answers WHERE move_id = ? AND phase = ?)`

// answer says that a member has done what a phase of a move asks for.
func (s *store) answer(ctx context.Context, move, member, phase string) error {
	_, err := s.exec(ctx, s.d.ignore+` INTO doveadm_proxy_answers (move_id, member, phase) VALUES (?, ?, ?)`+s.d.conflict, move, member, phase)
	if err == nil && s.d.notify != "" {
		_, err = s.db.ExecContext(ctx, s.d.notify)
	}
	return err
}

// ErrBusy says that the user is being moved already.
var ErrBusy = errors.New("the user is being moved already")

// ErrEnded says that a move has come to an end without its mover: its lease was
// not renewed in time.
var ErrEnded = errors.New("the move has ended: its lease in the database was not renewed in time")

// begin takes a user for a move, if no other has it.
func (s *store) begin(ctx context.Context, user string, m moveRow, mover string, lease time.Duration) error {
	return s.change(ctx, func(c change) error {
		if _, err := c.exec(s.d.ignore+` INTO doveadm_proxy_users (username, shard, from_shard, since_ms, revision, move_id, move_phase, move_to, mover, mover_name, move_since_ms, move_until_ms)
VALUES (?, '', '', {now}, 0, '', '', '', '', '', 0, 0)`+s.d.conflict, user); err != nil {
			return err
		}
		n, err := c.exec(`UPDATE doveadm_proxy_users SET revision = ?, move_id = ?, move_phase = ?, move_to = ?, mover = ?, mover_name = ?, move_since_ms = {now}, move_until_ms = {now} + ?
WHERE username = ? AND (move_id = '' OR move_until_ms <= {now})`, c.revision, m.id, m.phase, m.to, mover, m.moverName, lease.Milliseconds(), user)
		if err == nil && n != 1 {
			err = ErrBusy
		}
		return err
	})
}

// enter takes a move to its next phase.
func (s *store) enter(ctx context.Context, user, move, phase string, lease time.Duration) error {
	return s.change(ctx, func(c change) error {
		n, err := c.exec(`UPDATE doveadm_proxy_users SET revision = ?, move_phase = ?, move_until_ms = {now} + ? WHERE username = ? AND move_id = ? AND move_until_ms > {now}`,
			c.revision, phase, lease.Milliseconds(), user, move)
		if err == nil && n != 1 {
			err = ErrEnded
		}
		return err
	})
}

// prolong renews the lease of a move.
func (s *store) prolong(ctx context.Context, user, move string, lease time.Duration) error {
	n, err := s.exec(ctx, `UPDATE doveadm_proxy_users SET move_until_ms = {now} + ? WHERE username = ? AND move_id = ? AND move_until_ms > {now}`, lease.Milliseconds(), user, move)
	if err == nil && n != 1 {
		err = ErrEnded
	}
	return err
}

// errSilent says that members have not answered.
var errSilent = errors.New("a proxy has not answered")

// commit ends a move: the user is on a shard now, or where the routes say if it
// is empty.
func (s *store) commit(ctx context.Context, user, move, from, to string) error {
	return s.change(ctx, func(c change) error {
		// Who came after the hold was written has read it.
		var id, name string
		var left int64
		err := c.tx.QueryRowContext(ctx, s.d.text(silentMembers), move, phaseHold).Scan(&id, &name, &left)
		switch {
		case err == nil:
			return fmt.Errorf("%w: %s", errSilent, name)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		n, err := c.exec(`UPDATE doveadm_proxy_users SET shard = ?, from_shard = ?, since_ms = {now}, revision = ?, move_id = '', move_phase = '', move_to = '', mover = '', mover_name = '', move_since_ms = 0, move_until_ms = 0
WHERE username = ? AND move_id = ? AND move_phase = ? AND move_until_ms > {now}`, to, from, c.revision, user, move, phaseHold)
		if err == nil && n != 1 {
			err = ErrEnded
		}
		if err == nil {
			_, err = c.exec(`DELETE FROM doveadm_proxy_answers WHERE move_id = ?`, move)
		}
		return err
	})
}

// end gives a move up, if it has not ended. The user stays where it is.
func (s *store) end(ctx context.Context, user, move string) (ended bool, err error) {
	return s.endIf(ctx, user, move, "")
}

// endIf is end with a further condition.
func (s *store) endIf(ctx context.Context, user, move, condition string) (ended bool, err error) {
	err = s.change(ctx, func(c change) error {
		n, err := c.exec(`UPDATE doveadm_proxy_users SET revision = ?, move_id = '', move_phase = '', move_to = '', mover = '', mover_name = '', move_since_ms = 0, move_until_ms = 0
WHERE username = ? AND move_id = ?`+condition, c.revision, user, move)
		if err != nil {
			return err
		}
		ended = n == 1
		_, err = c.exec(`DELETE FROM doveadm_proxy_answers WHERE move_id = ?`, move)
		return err
	})
	return ended && err == nil, err
}

// abandoned returns the moves whose lease has ended.
func (s *store) abandoned(ctx context.Context) ([]row, error) {
	found, err := s.db.QueryContext(ctx, s.d.text(`SELECT `+userColumns+` FROM doveadm_proxy_users WHERE move_id <> '' AND move_until_ms <= {now}`))
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		r, err := scan(found)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// purge takes away what says nothing any more: members that are long gone, users
// without an exception or a move, and answers to moves that are over.
func (s *store) purge(ctx context.Context, age time.Duration) error {
	old := age.Milliseconds()
	if _, err := s.exec(ctx, `DELETE FROM doveadm_proxy_members WHERE until_ms < {now} - ?`, old); err != nil {
		return err
	}
	if _, err := s.exec(ctx, `DELETE FROM doveadm_proxy_answers WHERE move_id NOT IN (SELECT move_id FROM doveadm_proxy_users)`); err != nil {
		return err
	}
	var useless int
	const empty = ` FROM doveadm_proxy_users WHERE shard = '' AND move_id = '' AND since_ms < {now} - ?`
	if err := s.db.QueryRowContext(ctx, s.d.text(`SELECT COUNT(*)`+empty), old).Scan(&useless); err != nil || useless == 0 {
		return err
	}
	return s.change(ctx, func(c change) error {
		if _, err := c.exec(`DELETE`+empty, old); err != nil {
			return err
		}
		_, err := c.exec(`UPDATE doveadm_proxy_state SET purged = ? WHERE id = 1`, c.revision)
		return err
	})
}
