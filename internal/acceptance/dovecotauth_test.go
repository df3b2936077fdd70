package acceptance

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// TestDovecotAuth: a real passdb says where users are: on a backend, on a server
// that no shard names, under another name, where commands may not go, nowhere.
func TestDovecotAuth(t *testing.T) {
	t.Parallel()
	mail := dovecottest.Start(t, dovecot.Options{Name: "mail", Version: dovecot.V23, Users: []string{"alice"}})
	free := dovecottest.Start(t, dovecot.Options{Name: "free", Version: dovecot.V24, Users: []string{"bob"}, Password: mail.Password})
	if err := free.Seed(2); err != nil {
		t.Fatal(err)
	}
	auth := dovecottest.Start(t, dovecot.Options{Name: "auth", Version: dovecot.V23, Config: `
passdb {
  driver = passwd-file
  args = username_format=%u {{.Dir}}/proxied
}
`})
	at := func(s *dovecot.Server) string {
		host, port, err := net.SplitHostPort(s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		return "proxy=y host=" + host + " port=" + port
	}
	lines := fmt.Sprintf("alice:{PLAIN}x::::::%s\nrobert:{PLAIN}x::::::%s destuser=bob\nfar:{PLAIN}x::::::proxy=y host=192.0.2.1\nmad:{PLAIN}x::::::proxy=y host=192.0.2.1 port=x\n",
		at(mail), at(free))
	if err := os.WriteFile(filepath.Join(auth.Dir, "proxied"), []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, racy, func(addr string) string {
		return fmt.Sprintf(`
listener "main" { address = %q }
client "doveadm" { password = "{PLAIN}%s" }
backend_defaults { password = %q }
shard "s1" {
  backend "mail1" { address = %q }
}
route "dovecot-auth" {
  socket   = %q
  networks = ["127.0.0.0/8"]
}
`, addr, clientPassword, mail.Password, mail.Addr, filepath.Join(auth.Dir, "run", "auth-userdb"))
	})
	for _, version := range []dovecot.Version{dovecot.V23, dovecot.V24} {
		run := func(user string, args ...string) dovecot.Result {
			return dovecottest.Run(t, dovecot.Client{Version: version, Addr: p.Addr, Password: clientPassword}, args[0], append([]string{"-u", user}, args[1:]...)...)
		}
		if r := run("alice", "fetch", "hdr.subject", "all"); r.ExitCode != 0 {
			t.Errorf("doveadm %s, alice: %+v", version, r)
		}
		direct := dovecottest.Run(t, dovecot.Client{Version: version, Addr: free.Addr, Password: free.Password}, "fetch", "-u", "bob", "hdr.subject", "all")
		if r := run("robert", "fetch", "hdr.subject", "all"); r.ExitCode != 0 || r.Stdout != direct.Stdout || !strings.Contains(r.Stdout, "message 1 for bob") {
			t.Errorf("doveadm %s, robert: %+v, directly as bob %+v", version, r, direct)
		}
		if r := run("far", "fetch", "hdr.subject", "all"); r.ExitCode != 75 || !strings.Contains(r.Stderr, "no backend has this address") {
			t.Errorf("doveadm %s, far: %+v", version, r)
		}
		if r := run("mad", "fetch", "hdr.subject", "all"); r.ExitCode != 75 {
			t.Errorf("doveadm %s, mad: %+v", version, r)
		}
		if r := run("nobody", "fetch", "hdr.subject", "all"); r.ExitCode != 67 {
			t.Errorf("doveadm %s, nobody: %+v", version, r)
		}
	}
	p.waitLog("user=alice command=fetch outcome=answered status=\"+\" shard=s1 backend=mail1")
	p.waitLog("backend=" + free.Addr)
}
