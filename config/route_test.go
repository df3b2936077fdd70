package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sites has two shards, with three backends.
const sites = `
listener "main" {
  address = "127.0.0.1:24245"
}
client "doveadm" {
  password = "{PLAIN}a"
}
backend_defaults {
  password = "b"
}
shard "s1" {
  backend "b1" {
    address = "10.0.1.1:24245"
  }
  backend "b2" {
    address = "10.0.1.2:24245"
    standby = true
  }
}
shard "s2" {
  weight = 50
  backend "b3" {
    address = "[2001:db8::1]:24245"
  }
}
`

func TestRing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		src  string
		want Route
	}{
		{`route "ring" {}`, Route{Kind: "ring", Shards: []string{"s1", "s2"}, Ring: Ring{Algorithm: "rendezvous", Weights: []int{100, 50}}}},
		{`route "ring" { algorithm = "director" }`, Route{Kind: "ring", Shards: []string{"s1", "s2"}, Ring: Ring{
			Algorithm: "director", UsernameHash: "%Lu",
			Servers: []RingServer{{netip.MustParseAddr("10.0.1.1"), "s1", 100, "", false}, {netip.MustParseAddr("2001:db8::1"), "s2", 50, "", false}},
		}}},
		{"route \"ring\" {\nalgorithm = \"director\"\nserver \"10.0.1.2\" {\nvhosts = 0\n}\nserver \"10.9.9.9\" {\nshard = \"s2\"\n}\n}", Route{Kind: "ring", Shards: []string{"s1", "s2"}, Ring: Ring{
			Algorithm: "director", UsernameHash: "%Lu",
			Servers: []RingServer{{netip.MustParseAddr("10.0.1.2"), "s1", 0, "", false}, {netip.MustParseAddr("10.9.9.9"), "s2", 50, "", false}},
		}}},
	} {
		cfg := mustParse(t, sites+test.src)
		got := cfg.Routes[0]
		got.Lookup = Lookup{}
		if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s:\n%s", test.src, diff)
		}
		if diff := diff(cfg, mustParse(t, string(revealed(t, cfg)))); diff != "" {
			t.Errorf("%s: what was printed loads as another configuration:\n%s", test.src, diff)
		}
	}
}

func TestRouteErrors(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		`route "ring" { algorithm = "jump" }`:                                                                             "Wrong value of algorithm",
		`route "ring" { tag = "eu" }`:                                                                                     "tag without a director",
		"route \"ring\" {\nserver \"10.0.1.1\" {}\n}":                                                                     "Servers without a director",
		"route \"ring\" {\nalgorithm = \"director\"\nserver \"mail1\" {}\n}":                                              "Not an address",
		"route \"ring\" {\nalgorithm = \"director\"\nserver \"10.9.9.9\" {}\n}":                                           "Server of no shard",
		"route \"ring\" {\nalgorithm = \"director\"\nserver \"10.0.1.1\" {}\nserver \"10.0.1.1\" {}\n}":                   "Second server of this address",
		"route \"ring\" {\nalgorithm = \"director\"\nserver \"10.0.1.1\" {\nvhosts = 1001\n}\n}":                          "Too many vhosts",
		"route \"ring\" {\nalgorithm = \"director\"\nserver \"10.0.1.1\" {\nshard = \"s9\"\n}\n}":                         "Unknown shard \"s9\"",
		"route \"ring\" {\nalgorithm = \"director\"\nshards = [\"s1\"]\nserver \"10.0.1.1\" {}\n}":                        "Shards beside servers",
		"shard \"s3\" {\nbackend \"b4\" {\naddress = \"mail4:1\"\n}\n}\nroute \"ring\" { algorithm = \"director\" }":      "Backend without an IP address",
		"shard \"s3\" {\nweight = 0\nbackend \"b4\" {\naddress = \"mail4:1\"\n}\n}\nroute \"ring\" { shards = [\"s3\"] }": "No shard with a weight",
		`route "match" { shard = "s1" }`:                                                                                  "No users",
		"route \"match\" {\nregex = [\"a(\"]\nshard = \"s1\"\n}":                                                          "missing closing )",
		"route \"ring\" {}\nroute \"match\" {\nusers = [\"a\"]\nshard = \"s1\"\n}":                                        "Route after a ring",
	} {
		_, diags := Parse("test.hcl", []byte(sites+src))
		var sb strings.Builder
		WriteDiagnostics(&sb, diags, false)
		if !strings.Contains(sb.String(), want) {
			t.Errorf("%s: no %q in %s", src, want, sb.String())
		}
	}
	mustParse(t, sites+"route \"ring\" {\ndomains = [\"a\"]\n}\nroute \"ring\" {}")
}
