package config

import (
	"strings"
	"testing"
)

const byAddress = `
listener "main" { address = "127.0.0.1:1" }
client "c" { password = "{PLAIN}secret" }
backend_defaults {
  username = "proxy"
  password = "other"
  pool { max_open = 3 }
}
shard "s1" {
  backend "b1" { address = "mail1.example:1" }
}
shard "s2" {
  backend "b2" { address = "srv:_doveadm._tcp.example.com" }
}
route "dovecot-auth" {
  socket   = "/run/dovecot/auth-userdb"
  port     = 4711
  networks = ["10.0.1.0/24"]
}
`

// TestTargets: routes know the addresses of backends, and servers elsewhere have
// the settings of backend_defaults, also after Print.
func TestTargets(t *testing.T) {
	t.Parallel()
	cfg := mustParse(t, byAddress)
	r := cfg.Routes[0]
	if r.Auth != (DovecotAuth{"unix", "/run/dovecot/auth-userdb", 4711}) || r.Lookup.Backends["mail1.example:1"] != "s1" || len(r.Lookup.Networks) != 1 {
		t.Errorf("the route is %+v", r)
	}
	if e := cfg.Elsewhere; e == nil || e.Username != "proxy" || e.Password.Reveal() != "other" || e.Pool.MaxOpen != 3 || e.Pool.MaxIdle != 3 {
		t.Errorf("servers elsewhere have %+v", e)
	}
	text := revealed(t, cfg)
	if diff := diff(cfg, mustParse(t, string(text))); diff != "" {
		t.Errorf("what was printed loads as another configuration:\n%s\n%s", diff, text)
	}
	for old, remedy := range map[string]string{
		`  password = "other"`:          "No password in backend_defaults",
		`port     = 4711`:               "Wrong value of port",
		`srv:_doveadm._tcp.example.com`: "Wrong value of address",
		`"/run/dovecot/auth-userdb"`:    "Wrong value of socket",
		`networks = ["10.0.1.0/24"]`:    "Wrong value of networks",
	} {
		wrong := map[string]string{
			`  password = "other"`: "", `port     = 4711`: "port = 65536", `srv:_doveadm._tcp.example.com`: "srv:doveadm",
			`"/run/dovecot/auth-userdb"`: `"run/dovecot"`, `networks = ["10.0.1.0/24"]`: `networks = ["10.0.1"]`,
		}[old]
		src := strings.Replace(byAddress, old, wrong, 1)
		if old == `  password = "other"` {
			src = strings.ReplaceAll(src, `:1" }`, `:1"`+"\n  password = \"x\"\n }")
			src = strings.ReplaceAll(src, `.com" }`, `.com"`+"\n  password = \"x\"\n }")
			src = strings.Replace(src, "127.0.0.1:1\"\n  password = \"x\"\n", "127.0.0.1:1\"\n", 1)
		}
		_, diags := Parse("test.hcl", []byte(src))
		found := false
		for _, d := range diags {
			found = found || d.Summary == remedy
		}
		if !found {
			t.Errorf("without %s: %v; want %s", old, diags, remedy)
		}
	}
}
