package acceptance

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestTLS: clients that must say STARTTLS, before a real Dovecot that speaks TLS
// from the first byte and by STARTTLS, and where it cannot be verified.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t, "tests")
	dir := t.TempDir()
	cert, key := ca.Issue(t, "127.0.0.1", "localhost").Write(t, dir, "server")
	caFile, _ := ca.Write(t, dir, "ca")
	otherCA, _ := certtest.NewCA(t, "others").Write(t, dir, "other")

	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	_, tlsPort, _ := net.SplitHostPort(port.Addr)
	c := startCluster(t, 1, 1, dovecot.Options{Config: fmt.Sprintf(`
ssl = yes
ssl_cert = <%s
ssl_key = <%s
service doveadm {
  inet_listener tls {
    address = 127.0.0.1
    port = %s
    ssl = yes
  }
}
`, cert, key, tlsPort)})
	s := c.servers[0]
	if err := s.Seed(3); err != nil {
		t.Fatal(err)
	}
	direct := cli(t, s.Addr, s.Password, "fetch", "-u", "u1-1", "hdr.subject", "all")

	for _, tt := range []struct{ name, address, mode, ca, fails string }{
		{"implicit", port.Addr, "implicit", caFile, ""},
		{"STARTTLS", s.Addr, "starttls", caFile, ""},
		{"unknown authority", port.Addr, "implicit", otherCA, "ca_file"},
		{"clear text at a TLS port", port.Addr, "off", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var backend strings.Builder
			fmt.Fprintf(&backend, "backend_defaults {\n  password = %q\n  tls {\n    mode = %q\n", s.Password, tt.mode)
			if tt.ca != "" {
				fmt.Fprintf(&backend, "    ca_file = %q\n", tt.ca)
			}
			backend.WriteString("  }\n}\n")
			p := startProxy(t, racy, func(addr string) string {
				return fmt.Sprintf(`
listener "tls" {
  address = %q
  tls {
    cert_file = %q
    key_file  = %q
    mode      = "starttls-required"
  }
}
client "doveadm" {
  password = "{PLAIN}%s"
}
shard "s1" {
  backend "mail1" {
    address = %q
  }
}
`, addr, cert, key, clientPassword, tt.address) + backend.String()
			})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if _, err := dial(ctx, p.Addr, doveadm.MaxMinor); err == nil {
				t.Error("a login in clear text where STARTTLS is required")
			}
			secure := func(nc net.Conn) (net.Conn, error) {
				tc := tls.Client(nc, &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"})
				return tc, tc.HandshakeContext(ctx)
			}
			client, err := doveadm.Dial(ctx, p.Addr, doveadm.ClientOptions{Password: clientPassword, Minor: doveadm.MaxMinor, StartTLS: secure})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			for range 3 {
				fields, err := runCommand(ctx, client, "u1-1", "fetch", "hdr.subject", "all")
				switch {
				case tt.fails == "" && tt.mode != "off":
					if err != nil || !strings.Contains(direct.Stdout, fields[0]) || len(fields) != 4 {
						t.Errorf("fields %q, %v; directly %q", fields, err, direct.Stdout)
					}
				case err == nil:
					t.Errorf("fields %q", fields)
				}
			}
			if tt.fails != "" {
				p.waitLog(tt.fails)
			}
			if tt.fails == "" && tt.mode != "off" {
				if n := len(s.Processes("doveadm-server")); n != 1 {
					t.Errorf("%d connections for three commands", n)
				}
			}
		})
	}
}
