package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestRemote steers a proxy as from another machine: over TLS, as a user of its
// admin endpoint.
func TestRemote(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t, "authority")
	dir := t.TempDir()
	cert, key := ca.Issue(t, "localhost").Write(t, dir, "server")
	caFile, _ := ca.Write(t, dir, "ca")
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("alice's secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	p := startProxy(t, racy, func(addr string) string {
		return fmt.Sprintf(`
listener "main" {
  address = %q
}
client "doveadm" {
  password = "{PLAIN}x"
}
shard "s1" {
  backend "mail1" {
    address  = "127.0.0.1:1"
    password = "x"
  }
}
route "ring" {}
admin {
  address    = %q
  state_file = "%s/operator.json"
  tls {
    cert_file = %q
    key_file  = %q
  }
  user "alice" {
    role     = "operator"
    password = "{PLAIN}alice's secret"
  }
}
`, addr, port.Addr, dir, cert, key)
	})
	env := append(os.Environ(), "DOVEADM_PROXY_ADMIN=https://"+strings.Replace(port.Addr, "127.0.0.1", "localhost", 1),
		"DOVEADM_PROXY_ADMIN_USER=alice", "DOVEADM_PROXY_ADMIN_SECRET_FILE="+password)
	run := func(want int, text string, args ...string) {
		t.Helper()
		out, code := runBinary(t, racy, env, args...)
		if code != want || !strings.Contains(out, text) {
			t.Errorf("%q: exit code %d, want %d; %q, want %q in it", args, code, want, out, text)
		}
		if strings.Contains(out, "secret") {
			t.Errorf("%q prints the secret: %q", args, out)
		}
	}
	run(75, "is not trusted", "whoami")
	env = append(env, "DOVEADM_PROXY_ADMIN_CA_FILE="+caFile)
	run(0, "alice, role operator\n", "whoami")
	run(0, "mail1: draining", "drain", "mail1")
	p.waitLog("caller=alice")
	run(0, ",mail1,draining,", "backends", "--csv")
	run(1, "role", "reload")
	if err := os.WriteFile(password, []byte("no longer\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(1, "wrong name, password or token", "status")
}
