package doveadm_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net"
	"net/http/httptest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Both sides of STARTTLS. Verifying is crypto/tls's business, and so is the
// name that the certificate is for.
func ExampleClientOptions_startTLS() {
	// A certificate for example.com, from where there is one in the library.
	certificates := httptest.NewTLSServer(nil)
	defer certificates.Close()
	authority := x509.NewCertPool()
	authority.AddCert(certificates.Certificate())

	client, server := net.Pipe()
	go func() {
		defer server.Close()
		conn := doveadm.NewServerConn(server, 0)
		conn.StartTLS = func(nc net.Conn) (net.Conn, error) {
			tc := tls.Server(nc, &tls.Config{Certificates: certificates.TLS.Certificates})
			return tc, tc.Handshake()
		}
		err := conn.Handshake(func(_, password string) (bool, error) {
			_, encrypted := conn.NetConn().(*tls.Conn)
			return encrypted && password == "secret", nil // no login in clear text
		})
		if err != nil {
			conn.RefuseLogin()
			return
		}
		var cmd doveadm.Command
		if conn.ReadCommand(&cmd) == nil {
			conn.NetConn().Write(conn.AppendEnd(nil, doveadm.Status{OK: true}))
		}
	}()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := doveadm.NewClientConn(client, doveadm.ClientOptions{
		Password: "secret",
		Minor:    doveadm.MaxMinor,
		StartTLS: func(nc net.Conn) (net.Conn, error) {
			tc := tls.Client(nc, &tls.Config{RootCAs: authority, ServerName: "example.com"})
			return tc, tc.HandshakeContext(ctx)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	reply, err := conn.Do(ctx, &doveadm.Command{User: "alice", Name: "purge"})
	if err != nil {
		log.Fatal(err)
	}
	err = reply.Close()
	fmt.Println(tls.VersionName(conn.NetConn().(*tls.Conn).ConnectionState().Version), reply.Status(), err)
	// Output:
	// TLS 1.3 + <nil>
}
