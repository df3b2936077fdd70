// Package slapd runs private instances of OpenLDAP's server for tests.
package slapd

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-ldap/ldap/v3"

	"github.com/doveadm-proxy/doveadm-proxy/internal/service"
)

// BindDN and Password log in to each instance, as its administrator; all users
// are below Base.
const (
	Base     = "dc=example,dc=com"
	BindDN   = "cn=admin," + Base
	Password = "sesame"
)

// Options say what an instance is like.
type Options struct {
	LDIF              string // entries below Base, which is there
	CertFile, KeyFile string // for StartTLS; empty: it has none
}

// Server is one instance.
type Server struct{ *service.Service }

// Start starts an instance and returns when it serves.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := service.Start(ctx, service.Options{
		Name: "slapd", Package: "slapd",
		Prepare: func(ctx context.Context, s *service.Service) error { return prepare(ctx, s, o) },
		Command: func(s *service.Service) []string {
			return []string{"slapd", "-d", "0", "-f", filepath.Join(s.Dir, "slapd.conf"), "-h", "ldap://" + s.Addr}
		},
		Ready: func(ctx context.Context, s *service.Service) error {
			conn, err := ldap.DialURL("ldap://" + s.Addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			return conn.Bind(BindDN, Password)
		},
		Stop: syscall.SIGTERM,
	})
	if err != nil {
		return nil, err
	}
	return &Server{s}, nil
}

func prepare(ctx context.Context, s *service.Service, o Options) error {
	var tls string
	if o.CertFile != "" {
		tls = fmt.Sprintf("TLSCertificateFile %s\nTLSCertificateKeyFile %s\n", o.CertFile, o.KeyFile)
	}
	conf, err := s.WriteFile("slapd.conf", fmt.Sprintf(`
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile %[1]s/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
%[2]s
database mdb
maxsize 16777216
suffix %[3]q
rootdn %[4]q
rootpw %[5]s
directory %[1]s
dbnosync
`, s.Dir, tls, Base, BindDN, Password))
	if err != nil {
		return err
	}
	ldif := "dn: " + Base + "\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n" + strings.TrimLeft(o.LDIF, "\n")
	return s.Run(ctx, ldif, "slapadd", "-q", "-f", conf)
}

// URL is where the instance listens.
func (s *Server) URL() string { return "ldap://" + s.Addr }

// Modify replaces an attribute of an entry.
func (s *Server) Modify(dn, attribute string, values ...string) error {
	conn, err := ldap.DialURL(s.URL())
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Bind(BindDN, Password); err != nil {
		return err
	}
	change := ldap.NewModifyRequest(dn, nil)
	change.Replace(attribute, values)
	return conn.Modify(change)
}
