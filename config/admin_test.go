package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

// TestAdminForOtherHosts: a port that they reach needs TLS and somebody who is
// known there.
func TestAdminForOtherHosts(t *testing.T) {
	dir := t.TempDir()
	cert, key := certtest.NewCA(t, "authority").Issue(t, "proxy").Write(t, dir, "proxy")
	tls := fmt.Sprintf("tls {\n cert_file = %q\n key_file = %q\n", cert, key)
	user := func(how string) string { return "user \"a\" {\n role = \"viewer\"\n " + how + "\n}\n" }
	for _, test := range []struct{ admin, problem string }{
		{"", "Admin endpoint open to other hosts"},
		{user(`password = "{PLAIN}x"`), "Admin endpoint open to other hosts"},
		{tls + "}\n", "Admin endpoint that nobody may use"},
		{tls + "}\n" + user(`tls_subject = "CN=a"`), "Admin endpoint that nobody may use"},
		{tls + "}\n" + user(`password = "{PLAIN}x"`), ""},
		{tls + "}\n" + user(`token = "{SHA256}x"`), ""},
		{tls + fmt.Sprintf("client_ca_file = %q\n}\n", cert) + user(`tls_subject = "CN=a"`), ""},
	} {
		_, diags := Parse("proxy.hcl", []byte(`
listener "main" { address = "127.0.0.1:0" }
client "c" { password = "{PLAIN}x" }
shard "s" {
  backend "b" {
    address  = "127.0.0.1:1"
    password = "x"
  }
}
admin {
  address = "0.0.0.0:9124"
`+test.admin+`}
`))
		var got []string
		for _, p := range Problems(diags) {
			if p.Severity == "error" {
				got = append(got, p.Summary)
			}
		}
		if strings.Join(got, "; ") != test.problem && (test.problem == "" || len(got) == 0 || got[0] != test.problem) {
			t.Errorf("%s: %q, want %q", test.admin, got, test.problem)
		}
	}
}
