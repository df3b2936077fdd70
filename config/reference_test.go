package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const referenceFile = "../docs/configuration.md"

func TestReference(t *testing.T) {
	want := Reference()
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is not what the tables say; run: go generate ./config\n%s", referenceFile, diff)
	}
}

// Every block and attribute has what the reference says of it, and the tables
// do not contradict themselves.
func TestTables(t *testing.T) {
	dir := installed(t)
	t.Setenv("ROUTE_DSN", "postgres://proxy:secret@db.example.com/mail")
	t.Setenv("LDAP_PASSWORD", "secret")
	var walk func(b block)
	walk = func(b block) {
		if b.name != "" && b.doc == "" {
			t.Errorf("block %s has no doc", b.header())
		}
		for _, a := range b.attrs {
			if a.doc == "" || a.field.takes == "" {
				t.Errorf("%s.%s: doc or takes is missing", b.header(), a.name)
			}
			if a.required && a.def != "" {
				t.Errorf("%s.%s is required and has a default", b.header(), a.name)
			}
			if a.sample() == "" {
				t.Errorf("%s.%s has neither a default nor an example", b.header(), a.name)
				continue
			}
			if a.name == "password" {
				t.Setenv("BACKEND_PASSWORD", "x")
				t.Setenv("OLD_PASSWORD", "{PLAIN}old")
			}
			sample := strings.ReplaceAll(a.sample(), "/etc/doveadm-proxy", dir)
			if p := a.field.set(constant(sample)); p != nil {
				t.Errorf("%s.%s: its own example is refused: %s %s", b.header(), a.name, p.summary, p.detail)
			}
		}
		for _, inner := range append(b.blocks, b.kinds...) {
			walk(inner)
		}
	}
	walk(newLoader(nil).root())
}

// The examples of the blocks are one configuration when they are put together.
func TestBlockExamples(t *testing.T) {
	dir := installed(t)
	t.Setenv("MOVES_DSN", "postgres://proxy:secret@db.example/doveadm_proxy")
	t.Setenv("ROUTE_DSN", "postgres://proxy:secret@db.example.com/mail")
	t.Setenv("LDAP_PASSWORD", "secret")
	var walk func(b block)
	walk = func(b block) {
		if b.example != "" {
			src := strings.ReplaceAll(b.example, "/etc/doveadm-proxy", dir)
			l := newLoader(nil)
			s := &source{name: filepath.Join(dir, "example.hcl"), bytes: []byte(src)}
			l.sources = append(l.sources, s)
			l.diags = s.parse(l.root())
			l.blocks(l.root(), l.topLevel(l.root(), s), &place{attrs: map[string]value{}}, "")
			for _, p := range Problems(l.diags) {
				// It stands in backend_defaults, elsewhere.
				if p.Summary == "No password" && b.name != "client" {
					continue
				}
				t.Errorf("example of %s: line %d: %s: %s", b.header(), p.Line, p.Summary, p.Detail)
			}
		}
		for _, inner := range append(b.blocks, b.kinds...) {
			walk(inner)
		}
	}
	walk(newLoader(nil).root())

	cfg, diags := Parse(filepath.Join(dir, "minimal.hcl"), []byte(strings.ReplaceAll(minimal, "/etc/doveadm-proxy", dir)))
	if len(diags) > 0 || cfg == nil {
		t.Errorf("the example of the introduction: %v", diags)
	}
}
