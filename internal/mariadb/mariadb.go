// Package mariadb runs private instances of MariaDB for tests.
package mariadb

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"syscall"

	_ "github.com/go-sql-driver/mysql" // the driver

	"github.com/doveadm-proxy/doveadm-proxy/internal/service"
)

// User and Password log in to each instance, with all rights. Database is there
// and empty.
const (
	User     = "tester"
	Password = "sesame"
	Database = "test"
)

// Server is one instance.
type Server struct{ *service.Service }

// Start starts an instance and returns when it serves.
func Start(ctx context.Context) (*Server, error) {
	s, err := service.Start(ctx, service.Options{
		Name: "mariadb", User: "mysql", Package: "mariadb-server",
		Prepare: prepare,
		Command: func(s *service.Service) []string {
			return []string{
				"mariadbd", "--no-defaults", "--datadir=" + filepath.Join(s.Dir, "data"), "--bind-address=127.0.0.1", "--port=" + s.Port,
				"--socket=" + filepath.Join(s.Dir, "socket"), "--pid-file=" + filepath.Join(s.Dir, "pid"), "--init-file=" + filepath.Join(s.Dir, "init.sql"),
				"--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2", "--skip-name-resolve",
			}
		},
		Ready: func(ctx context.Context, s *service.Service) error {
			db, err := sql.Open("mysql", dsn(s.Addr))
			if err != nil {
				return err
			}
			defer db.Close()
			return db.PingContext(ctx)
		},
		Stop: syscall.SIGTERM,
	})
	if err != nil {
		return nil, err
	}
	return &Server{s}, nil
}

func prepare(ctx context.Context, s *service.Service) error {
	if _, err := s.WriteFile("init.sql", fmt.Sprintf(
		"CREATE DATABASE IF NOT EXISTS %[3]s CHARACTER SET utf8mb4;\nCREATE USER IF NOT EXISTS '%[1]s'@'127.0.0.1' IDENTIFIED BY '%[2]s';\nGRANT ALL ON *.* TO '%[1]s'@'127.0.0.1';\n",
		User, Password, Database)); err != nil {
		return err
	}
	return s.Run(ctx, "", "mariadb-install-db", "--no-defaults", "--datadir="+filepath.Join(s.Dir, "data"),
		"--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-flush-log-at-trx-commit=0")
}

// DSN is how to connect to the instance.
func (s *Server) DSN() string { return dsn(s.Addr) }

// DSNAt is how to connect to it over another address.
func (s *Server) DSNAt(addr string) string { return dsn(addr) }

func dsn(addr string) string {
	return fmt.Sprintf("%s:%s@tcp(%s)/%s", User, Password, addr, Database)
}

// Exec runs statements, one each.
func (s *Server) Exec(ctx context.Context, statements ...string) error {
	db, err := sql.Open("mysql", s.DSN())
	if err != nil {
		return err
	}
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}
