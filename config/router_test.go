package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRouter(t *testing.T) {
	dir := installed(t)
	src := strings.ReplaceAll(minimal, "/etc/doveadm-proxy", dir) + `
router {
  username_format     = "%%{user | lower}"
  recipient_delimiter = "+-"
  domain_alias "example.com" {
    aliases = ["example.org", "example.net"]
  }
  domain_alias "main.example" {
    aliases = ["other.example"]
  }
}
`
	want := Router{
		UsernameFormat: "%{user | lower}", RecipientDelimiter: "+-",
		DomainAliases: []DomainAlias{{"example.com", []string{"example.org", "example.net"}}, {"main.example", []string{"other.example"}}},
	}
	cfg := mustParse(t, src)
	if d := cmp.Diff(want, cfg.Router); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(want, mustParse(t, string(revealed(t, cfg))).Router); d != "" {
		t.Errorf("printed: %s", d)
	}
}

func TestRouterErrors(t *testing.T) {
	for src, want := range map[string]string{
		`router { username_format = "%h" }`:                                  "Unknown variable %h",
		`router { username_format = "everybody" }`:                           "all users would be the same",
		`router { username_format = "%{user | lower}" }`:                     "%%{",
		"router {\n  domain_alias \"@example.com\" { aliases = [\"b\"] }\n}": "without an @",
		"router {\n  domain_alias \"example.com\" {}\n}":                     "No aliases",
		"router {}\nrouter {}\n":                                             "Second router block",
	} {
		_, diags := Parse("test.hcl", []byte(src))
		var sb strings.Builder
		WriteDiagnostics(&sb, diags, false)
		if !strings.Contains(sb.String(), want) {
			t.Errorf("%s: no %q in %s", src, want, sb.String())
		}
	}
}
