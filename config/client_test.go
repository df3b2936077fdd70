package config

import (
	"net/netip"
	"strings"
	"testing"
)

const rights = `
listener "a" {
  address = "127.0.0.1:1"
  tls {
    cert_file      = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file       = "/etc/doveadm-proxy/tls/proxy.key"
    client_ca_file = "/etc/doveadm-proxy/tls/ca.crt"
  }
}
listener "b" { address = "unix:/run/b" }
client "one" {
  username   = "doveadm"
  password   = "{PLAIN}x"
  listeners  = ["a", "b"]
  networks   = ["10.0.0.0/8"]
  allow {
    commands = ["read", "mailbox create", "sieve *"]
    users    = ["@example.com", "*-test@*"]
  }
  allow {
    users_file = "/etc/doveadm-proxy/panel.users"
    networks   = ["10.1.0.0/16"]
    shards     = ["s"]
    backends   = ["b"]
    dangerous  = ["files", "hosts", "programs", "users", "settings", "unknown"]
  }
  deny {
    commands = ["expunge"]
  }
}
client "two" {
  username    = "doveadm"
  password    = "{PLAIN}x"
  tls_subject = "CN=two"
  allow {}
}
client "three" { tls_san = ["dns:three.example", "uri:spiffe://a/b", "email:a@b", "ip:10.0.0.1"] }
client "four" {
  unix_users  = ["root", "4711"]
  unix_groups = ["root"]
}
client "five" {
  password = "{PLAIN}x"
  deny {}
}
shard "s" {
  backend "b" {
    address  = "h:1"
    password = "y"
  }
}
`

// What a client block says arrives, and is printed as it was.
func TestClient(t *testing.T) {
	dir := installed(t)
	cfg := mustParse(t, strings.ReplaceAll(rights, "/etc/doveadm-proxy", dir))
	ten := netip.MustParsePrefix("10.0.0.0/8")
	want := []Client{
		{
			Name: "one", Username: "doveadm", Password: NewSecret("{PLAIN}x"), Listeners: []string{"a", "b"}, Networks: []netip.Prefix{ten}, Priority: PriorityInteractive, PipelineDepth: 16,
			Allow: []Rule{
				{Commands: []string{"read", "mailbox create", "sieve *"}, Users: []string{"@example.com", "*-test@*"}},
				{
					UsersFile: dir + "/panel.users", Networks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Shards: []string{"s"}, Backends: []string{"b"},
					Dangerous: []string{"files", "hosts", "programs", "users", "settings", "unknown"},
				},
			},
			Deny: []Rule{{Commands: []string{"expunge"}}},
		},
		{Name: "two", Username: "doveadm", Password: NewSecret("{PLAIN}x"), TLSSubject: "CN=two", Priority: PriorityInteractive, PipelineDepth: 16, Allow: []Rule{{}}},
		{Name: "three", TLSNames: []string{"dns:three.example", "uri:spiffe://a/b", "email:a@b", "ip:10.0.0.1"}, Priority: PriorityInteractive, PipelineDepth: 16},
		{Name: "four", UnixUsers: []Account{{"root", 0}, {"4711", 4711}}, UnixGroups: []Account{{"root", 0}}, Priority: PriorityInteractive, PipelineDepth: 16},
		{Name: "five", Password: NewSecret("{PLAIN}x"), Priority: PriorityInteractive, PipelineDepth: 16, Deny: []Rule{{}}},
	}
	if diff := diff(&Config{Clients: want}, &Config{Clients: cfg.Clients}); diff != "" {
		t.Error(diff)
	}
	for i, evident := range []bool{false, false, true, true, false} {
		if got := cfg.Clients[i].SelfEvident(); got != evident {
			t.Errorf("%s: SelfEvident is %v", cfg.Clients[i].Name, got)
		}
	}
	text := revealed(t, cfg)
	if diff := diff(cfg, mustParse(t, string(text))); diff != "" {
		t.Errorf("what was printed loads as another configuration:\n%s\n%s", diff, text)
	}
}
