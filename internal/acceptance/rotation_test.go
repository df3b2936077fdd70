package acceptance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// TestRotation replaces every secret there is, one after the other, while
// clients log in and run commands: not one of them fails.
//
// Dovecot closes its own socket for user lookups for some milliseconds when it
// reloads, and answers -TEMPFAIL to whom that hits, with or without a proxy. Only
// such an answer of its own, only while it reloads, may be asked for again.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, lines ...string) string {
		t.Helper()
		// Renamed into place, as careful tools do.
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var servers []*dovecot.Server
	var shards strings.Builder
	for i, v := range dovecot.Versions() {
		n := i + 1
		s := dovecottest.Start(t, dovecot.Options{Version: v, Name: fmt.Sprint("mail", n), Password: "backend-first", Users: []string{fmt.Sprintf("u%d-1", n)}})
		servers = append(servers, s)
		fmt.Fprintf(&shards, `
shard "s%d" {
  backend "mail%[1]d" {
    address       = %q
    password_file = %q
  }
}
route "match" {
  users = ["u%[1]d-*"]
  shard = "s%[1]d"
}
`, n, s.Addr, put(fmt.Sprint("backend", n), "backend-first"))
	}
	firstCA, secondCA := certtest.NewCA(t, "first"), certtest.NewCA(t, "second")
	cert, key := firstCA.Issue(t, "127.0.0.1").Write(t, dir, "server")
	p := startProxy(t, racy, func(addr string) string {
		return fmt.Sprintf(`
listener "main" {
  address = %q
  tls {
    cert_file = %q
    key_file  = %q
    mode      = "implicit"
  }
}
client "doveadm" {
  password_file = %q
}
backend_defaults {
  pool {
    max_lifetime = "100ms"
    max_commands = 10
  }
}
`, addr, cert, key, put("client", "{PLAIN}client-first")) + shards.String()
	})

	roots := x509.NewCertPool()
	roots.AddCert(firstCA.Leaf)
	roots.AddCert(secondCA.Leaf)
	var password atomic.Value
	password.Store("client-first")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	login := func() (*doveadm.ClientConn, error) {
		nc, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots}}).DialContext(ctx, "tcp", p.Addr)
		if err != nil {
			return nil, err
		}
		nc.SetDeadline(time.Now().Add(time.Minute))
		return doveadm.NewClientConn(nc, doveadm.ClientOptions{Password: password.Load().(string), Minor: doveadm.MaxMinor})
	}

	var done, logins, again atomic.Int64
	var reloading atomic.Bool
	var load errgroup.Group
	for i := range 6 {
		load.Go(func() error {
			var c *doveadm.ClientConn
			for n := 0; ctx.Err() == nil; n++ {
				if c == nil || i%2 == 0 { // the others stay for a while
					var err error
					if c, err = login(); err != nil {
						if ctx.Err() != nil {
							return nil
						}
						cancel()
						return fmt.Errorf("login after %d commands: %w", done.Load(), err)
					}
					logins.Add(1)
				}
				c.NetConn().SetDeadline(time.Now().Add(time.Minute))
				fields, err := runCommand(context.Background(), c, fmt.Sprintf("u%d-1", n%2+1), "mailbox list", "INBOX")
				var answer *doveadm.StatusError
				if reloading.Load() && errors.As(err, &answer) && answer.Status.Code == doveadm.CodeTempFail {
					again.Add(1)
					c.Close()
					c = nil
					continue
				}
				if err != nil || len(fields) != 1 || fields[0] != "INBOX" {
					cancel()
					return fmt.Errorf("command %d: %q, %w", done.Load(), fields, err)
				}
				done.Add(1)
				if i%2 == 0 || n%20 == 19 {
					c.Close()
					c = nil
				}
			}
			if c != nil {
				c.Close()
			}
			return nil
		})
	}
	// goOn waits for commands that began after now.
	goOn := func() {
		t.Helper()
		for want := done.Load() + 30; done.Load() < want && ctx.Err() == nil; {
			time.Sleep(5 * time.Millisecond)
		}
	}
	// taken waits for the proxy to have seen the n-th change of a file.
	taken := func(what, file string, n int) {
		t.Helper()
		seen := func() (count int) {
			for line := range strings.Lines(p.Log()) {
				if strings.Contains(line, what+" have changed: new connections use them") && strings.Contains(line, file) {
					count++
				}
			}
			return count
		}
		for deadline := time.Now().Add(time.Minute); seen() < n && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the change %d of %s was not taken", n, file)
			}
		}
		goOn()
	}

	goOn()
	// The client's: both are valid, the client changes, the old one goes.
	put("client", "{PLAIN}client-second", "{PLAIN}client-first")
	taken("Password files", "client", 1)
	p.waitLog("login with the old password")
	password.Store("client-second")
	goOn()
	put("client", "{PLAIN}client-second")
	taken("Password files", "client", 2)

	// The backends'.
	for i, s := range servers {
		file := fmt.Sprint("backend", i+1)
		put(file, "backend-second", "backend-first")
		taken("Password files", file, 1)
		p.waitLog("backend refuses the new password and takes the old one: its doveadm_password is still to be changed: backend=" + s.Name)
		config, err := os.ReadFile(s.Config)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.Config, append(config, "doveadm_password = backend-second\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		reloading.Store(true)
		if err := s.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		p.waitLog("backend takes the new password: the old one is not used any more, remove it when all backends do: backend=" + s.Name)
		goOn()
		reloading.Store(false)
		put(file, "backend-second")
		taken("Password files", file, 2)
	}

	// Key and certificate, which are never replaced at the same moment.
	second := secondCA.Issue(t, "127.0.0.1")
	put("server.key", strings.TrimSpace(string(second.KeyPEM)))
	goOn()
	put("server.crt", strings.TrimSpace(string(second.CertPEM)))
	taken("TLS files", "server.crt", 1)

	cancel()
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commands in %d logins; %d answered by a Dovecot that reloaded", done.Load(), logins.Load(), again.Load())
	if n := strings.Count(p.Log(), "outcome=answered status=-TEMPFAIL"); n != int(again.Load()) {
		t.Errorf("%d commands failed, %d of them by the answer of a Dovecot", again.Load(), n)
	}
	for line := range strings.Lines(p.Log()) {
		if strings.Contains(line, "command:") && !strings.Contains(line, "outcome=answered") || strings.Contains(line, "cannot connect") {
			t.Errorf("logged: %s", line)
		}
	}

	// What was replaced is of no use any more.
	ctx = t.Context()
	password.Store("client-first")
	if c, err := login(); err == nil {
		c.Close()
		t.Error("the old password of the client is still taken")
	}
	for _, s := range servers {
		if _, err := doveadm.Dial(ctx, s.Addr, doveadm.ClientOptions{Password: "backend-first"}); err == nil {
			t.Errorf("the old password of %s is still taken", s.Name)
		}
	}
	nc, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := tls.Client(nc, &tls.Config{RootCAs: firstCA.Pool(), ServerName: "127.0.0.1"}).HandshakeContext(ctx); err == nil {
		t.Error("the old certificate is still served")
	}
	for _, secret := range []string{"client-first", "client-second", "backend-first", "backend-second"} {
		if strings.Contains(p.Log(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}
