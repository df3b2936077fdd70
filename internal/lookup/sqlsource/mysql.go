package sqlsource

import (
	"database/sql"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func (s *Source) mysql(c config.SQL, l config.Lookup) error {
	settings, err := mysql.ParseDSN(c.DSN.Reveal())
	if err != nil {
		return fmt.Errorf("dsn: %w: write user:password@tcp(host:3306)/database", err)
	}
	settings.Timeout = l.Timeout
	settings.ReadTimeout = l.Timeout
	settings.WriteTimeout = l.Timeout
	settings.InterpolateParams = true // one way to the server and back instead of three
	settings.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(settings)
	if err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	s.open = func() (*sql.DB, error) {
		db := sql.OpenDB(connector)
		limit(db, l)
		return db, nil
	}
	return nil
}

func limit(db *sql.DB, l config.Lookup) {
	db.SetMaxOpenConns(max(1, l.MaxLookups))
	db.SetMaxIdleConns(max(1, l.MaxLookups))
	db.SetConnMaxIdleTime(idleTime)
	db.SetConnMaxLifetime(lifetime)
}
