package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// TestIdentities: the real command is known by its account, by its certificate
// and by its login, and has the rights of who it is.
func TestIdentities(t *testing.T) {
	t.Parallel()
	servers := make(map[dovecot.Version]*dovecot.Server) // also for the configuration of the command
	for _, version := range dovecot.Versions() {
		servers[version] = dovecottest.Start(t, dovecot.Options{Version: version, Users: []string{"alice", "bob"}})
	}
	server := servers[dovecot.V24]
	dir := server.Dir // every version sees it
	ca := certtest.NewCA(t, "tests")
	ca.Write(t, dir, "ca")
	ca.Issue(t, "127.0.0.1").Write(t, dir, "proxy")
	ca.Issue(t, "robot.example").Write(t, dir, "robot")
	ca.Issue(t, "stranger.example").Write(t, dir, "stranger")
	tls, starttls, socket := reserve(t), reserve(t), filepath.Join(dir, "proxy.sock")
	p := startProxy(t, racy, func(addr string) string {
		files := fmt.Sprintf("cert_file = %q\n    key_file = %q\n    client_ca_file = %q", dir+"/proxy.crt", dir+"/proxy.key", dir+"/ca.crt")
		return fmt.Sprintf(`
listener "main" { address = %q }
listener "local" { address = %q }
listener "tls" {
  address = %q
  tls {
    %s
  }
}
listener "starttls" {
  address = %q
  tls {
    mode = "starttls-required"
    %[4]s
  }
}
client "ops" {
  unix_users = [%[6]q]
  allow {
    commands = ["mailbox list"]
  }
}
client "robot" {
  tls_san = ["dns:robot.example"]
  allow {
    users = ["alice"]
  }
}
client "elsewhere" {
  username = "doveadm"
  networks = ["192.0.2.0/24"]
  password = "{PLAIN}elsewhere"
}
client "here" {
  username = "doveadm"
  password = "{PLAIN}%s"
  allow {
    users = ["bob"]
  }
}
shard "s1" {
  backend "mail1" {
    address  = %q
    password = %q
  }
}
`, addr, "unix:"+socket, tls, files, starttls, fmt.Sprint(os.Getuid()), clientPassword, server.Addr, server.Password)
	})

	for _, version := range dovecot.Versions() {
		inside := func(name string) string {
			path, err := version.Inside(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return path
		}
		secure := func(mode, cert string) []string {
			options := []string{"-o", "doveadm_ssl=" + mode, "-o", "doveadm_port=24245", "-o", "ssl_client_ca_file=" + inside("ca.crt")}
			if version == dovecot.V23 {
				// Its option takes the text itself.
				for _, end := range []string{"cert", "key"} {
					text, err := os.ReadFile(filepath.Join(dir, cert+map[string]string{"cert": ".crt", "key": ".key"}[end]))
					if err != nil {
						t.Fatal(err)
					}
					options = append(options, "-o", "ssl_client_"+end+"="+string(text))
				}
				return options
			}
			return append(options, "-o", "ssl_client_cert_file="+inside(cert+".crt"), "-o", "ssl_client_key_file="+inside(cert+".key"))
		}
		for _, tt := range []struct {
			name    string
			client  dovecot.Client
			user    string
			command string
			exit    int
			logged  string // "" if the session does not get so far
		}{
			{"account", dovecot.Client{Addr: socket}, "alice", "mailbox list", 0, "client=ops user=alice"},
			{"account without the right", dovecot.Client{Addr: socket}, "alice", "quota get", 77, "client=ops user=alice"},
			{"certificate", dovecot.Client{Addr: tls, Options: secure("ssl", "robot")}, "alice", "quota get", 0, "client=robot user=alice"},
			{"certificate, another user", dovecot.Client{Addr: tls, Options: secure("ssl", "robot")}, "bob", "quota get", 77, "client=robot user=bob"},
			{"certificate after STARTTLS", dovecot.Client{Addr: starttls, Password: "any", Options: secure("starttls", "robot")}, "alice", "quota get", 0, "client=robot user=alice"},
			{"another certificate", dovecot.Client{Addr: tls, Password: "any", Options: secure("ssl", "stranger")}, "alice", "quota get", 75, ""},
			{"certificate and login", dovecot.Client{Addr: tls, Password: clientPassword, Options: secure("ssl", "stranger")}, "bob", "quota get", 0, "client=here user=bob"},
			{"login", dovecot.Client{Addr: p.Addr, Password: clientPassword}, "bob", "quota get", 0, "client=here user=bob"},
			{"login, another user", dovecot.Client{Addr: p.Addr, Password: clientPassword}, "alice", "quota get", 77, "client=here user=alice"},
			{"login of another network", dovecot.Client{Addr: p.Addr, Password: "elsewhere"}, "bob", "quota get", 75, ""},
		} {
			tt.client.Version, tt.client.Config = version, servers[version].Config
			before := len(p.Log())
			r := dovecottest.Run(t, tt.client, tt.command, "-u", tt.user)
			if r.ExitCode != tt.exit {
				t.Errorf("%s, %s: %+v, want exit code %d", version, tt.name, r, tt.exit)
			}
			if tt.exit == 77 && !strings.Contains(r.Stderr, "doveadm-proxy: not allowed: no allow block of client") {
				t.Errorf("%s, %s: the command says %q", version, tt.name, r.Stderr)
			}
			for deadline := time.Now().Add(20 * time.Second); !strings.Contains(p.Log()[before:], tt.logged); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s, %s: the log does not have %q: %s", version, tt.name, tt.logged, p.Log()[before:])
				}
			}
		}
	}
}
