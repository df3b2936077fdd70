// Package postgres runs private instances of PostgreSQL for tests.
package postgres

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/doveadm-proxy/doveadm-proxy/internal/service"
)

// User and Password log in to each instance, as its superuser.
const (
	User     = "tester"
	Password = "sesame"
)

// Server is one instance.
type Server struct{ *service.Service }

// Start starts an instance with one empty database and returns when it serves.
func Start(ctx context.Context) (*Server, error) {
	s, err := service.Start(ctx, service.Options{
		Name: "postgres", User: "postgres", Package: "postgresql",
		Prepare: prepare,
		Command: func(s *service.Service) []string {
			return []string{"postgres", "-D", filepath.Join(s.Dir, "data")}
		},
		Ready: func(ctx context.Context, s *service.Service) error {
			conn, err := pgx.Connect(ctx, dsn(s.Addr))
			if err != nil {
				return err
			}
			return conn.Close(ctx)
		},
		Stop: syscall.SIGQUIT,
	})
	if err != nil {
		return nil, err
	}
	return &Server{s}, nil
}

func prepare(ctx context.Context, s *service.Service) error {
	password, err := s.WriteFile("password", Password+"\n")
	if err != nil {
		return err
	}
	data := filepath.Join(s.Dir, "data")
	if err := s.Run(ctx, "", "initdb", "--no-sync", "--auth=scram-sha-256", "--username="+User, "--pwfile="+password,
		"--encoding=UTF8", "--locale=C", "--no-instructions", "--pgdata="+data); err != nil {
		return err
	}
	_, err = s.WriteFile("data/postgresql.auto.conf", fmt.Sprintf(`
listen_addresses = '127.0.0.1'
port = %s
unix_socket_directories = '%s'
shared_buffers = 16MB
fsync = off
max_connections = 100
`, s.Port, s.Dir))
	return err
}

// DSN is how to connect to the instance.
func (s *Server) DSN() string { return dsn(s.Addr) }

// DSNAt is how to connect to it over another address.
func (s *Server) DSNAt(addr string) string { return dsn(addr) }

func dsn(addr string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", User, Password, addr)
}

// Exec runs statements.
func (s *Server) Exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}
