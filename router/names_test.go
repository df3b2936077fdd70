package router

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func newNames(t testing.TB, c config.Router) *Names {
	t.Helper()
	n, err := NewNames(c)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func aliasFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "domains")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNamesUser(t *testing.T) {
	t.Parallel()
	aliases := []config.DomainAlias{{Domain: "Example.com", Aliases: []string{"example.org", "Example.net"}}}
	for _, test := range []struct {
		config     config.Router
		user, want string
	}{
		{config.Router{}, "Alice+x@Example.org", "alice+x@example.org"},
		{config.Router{UsernameFormat: "%Lu"}, "Alice@B", "alice@b"},
		{config.Router{UsernameFormat: "%u"}, "Alice@B", "Alice@B"},
		{config.Router{UsernameFormat: "%Ln"}, "Alice@B", "alice"},
		{config.Router{UsernameFormat: "%{user | username | lower}"}, "Alice@B", "alice"},
		{config.Router{RecipientDelimiter: "+-"}, "Alice-x+y@B", "alice@b"},
		{config.Router{RecipientDelimiter: "+-"}, "alice+x", "alice"},
		{config.Router{RecipientDelimiter: "+"}, "+x@b", "+x@b"}, // nobody would be left
		{config.Router{RecipientDelimiter: "+"}, "alice@b+c", "alice@b+c"},
		{config.Router{DomainAliases: aliases}, "Alice@EXAMPLE.ORG", "alice@example.com"},
		{config.Router{DomainAliases: aliases}, "alice@sub.example.org", "alice@sub.example.org"},
		{config.Router{DomainAliases: aliases}, "alice", "alice"},
		{config.Router{DomainAliases: aliases, RecipientDelimiter: "+", UsernameFormat: "%Ud/%Ln"}, "Alice+x@example.net", "EXAMPLE.COM/alice"},
		{config.Router{DomainAliasFile: aliasFile(t, "# aliases\n\nexample.org  example.com # one\n")}, "a@example.org", "a@example.com"},
	} {
		if got := newNames(t, test.config).User(test.user); got != test.want {
			t.Errorf("%+v: User(%q) = %q; want %q", test.config, test.user, got, test.want)
		}
	}
}

func TestNamesPattern(t *testing.T) {
	t.Parallel()
	aliases := []config.DomainAlias{{Domain: "example.com", Aliases: []string{"example.org"}}}
	for _, test := range []struct {
		config        config.Router
		pattern, want string
	}{
		{config.Router{}, "*@Example.org", "*@example.org"},
		{config.Router{DomainAliases: aliases}, "*@Example.org", "*@example.com"},
		{config.Router{DomainAliases: aliases}, "*@*.org", "*@*.org"},
		{config.Router{UsernameFormat: "%u"}, "A*@B", "A*@B"},
		{config.Router{UsernameFormat: "%Uu"}, "a*@b", "A*@B"},
		{config.Router{UsernameFormat: "%Ln"}, "Adm*", "adm*"},
		{config.Router{UsernameFormat: "%Ln"}, "Admin@B", "admin"},
		{config.Router{RecipientDelimiter: "+"}, "Admin+x@B", "admin@b"},
	} {
		if got, err := newNames(t, test.config).Pattern(test.pattern); got != test.want || err != nil {
			t.Errorf("%+v: Pattern(%q) = %q, %v; want %q", test.config, test.pattern, got, err, test.want)
		}
	}
	if _, err := newNames(t, config.Router{UsernameFormat: "%Ln"}).Pattern("*@b"); err == nil || !strings.Contains(err.Error(), "leaves no @") {
		t.Errorf("a pattern that cannot match: %v", err)
	}
}

func TestNamesErrors(t *testing.T) {
	t.Parallel()
	_, err := NewNames(config.Router{
		UsernameFormat:  "%h",
		DomainAliases:   []config.DomainAlias{{Domain: "a.example", Aliases: []string{"b.example"}}, {Domain: "b.example", Aliases: []string{"c.example", "@x"}}},
		DomainAliasFile: aliasFile(t, "one\nd.example d.example\nb.example other.example\n"),
	})
	for _, want := range []string{"unknown variable %h", `an @ in "@x"`, "domains:1: 1 words", `domains:2: "d.example" stands for itself`, `domains:3: "b.example" stands for "a.example" and for "other.example"`, `write "c.example a.example"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

// A user in normal form finds what a map says, however the map writes it.
func TestNamesInMap(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "Alice+old@example.org s1\n@EXAMPLE.net s2\n* s3\n")
	names := newNames(t, config.Router{
		RecipientDelimiter: "+",
		DomainAliases:      []config.DomainAlias{{Domain: "example.com", Aliases: []string{"example.org"}}, {Domain: "main.example", Aliases: []string{"example.net"}}},
	})
	table, err := New(names, []config.Route{{Kind: "file", Path: path}}, shards)
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"alice@example.com": "s1", "ALICE+new@Example.org": "s1", "bob@main.example": "s2", "bob+x@example.net": "s2", "bob@b": "s3"} {
		if d, err := table.Route(t.Context(), user); err != nil || d.Shard != want {
			t.Errorf("Route(%q) = %+v, %v; want %s", user, d, err, want)
		}
	}
	_, err = New(newNames(t, config.Router{UsernameFormat: "%Ln"}), []config.Route{{Kind: "file", Path: path}}, shards)
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a domain in the map of users without: %v", err)
	}
	_, err = New(newNames(t, config.Router{UsernameFormat: "%Ld"}), []config.Route{{Kind: "file", Path: mapFile(t, "alice s1\n")}}, shards)
	if err == nil || !strings.Contains(err.Error(), "makes nothing of") {
		t.Errorf("an empty normal form: %v", err)
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	names := newNames(t, config.Router{RecipientDelimiter: "+", DomainAliases: []config.DomainAlias{{Domain: "example.com", Aliases: []string{"example.org"}}}})
	for _, n := range []*Names{new(Names), names, newNames(t, config.Router{UsernameFormat: "%Ln@%Ld"})} {
		if allocs := testing.AllocsPerRun(100, func() { n.User("alice.a.rather.long.name.that.no.buffer.on.the.stack.has@example.com") }); allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	}
}
