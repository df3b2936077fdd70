package router

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

var shards = []string{"s1", "s2", "s3"}

func mapFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.map")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newTable(t testing.TB, routes ...config.Route) *Table {
	t.Helper()
	table, err := New(new(Names), routes, shards)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestRoute(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "bob@example.com s3\n@example.org\ts1\n")
	table := newTable(t,
		config.Route{Kind: "match", Match: config.Match{Users: []string{"*@sales.example", "Boss@*"}}, Shard: "s2"},
		config.Route{Kind: "match", Match: config.Match{Users: []string{"b?b@sales.example"}}, Shard: "s3"}, // the first route decides
		config.Route{Kind: "file", Path: path},
		config.Route{Kind: "ring", Shards: []string{"s2"}},
	)
	for user, want := range map[string]Decision{
		"bob@sales.example": {"s2", "match #1", `"*@sales.example" matches the user`, nil},
		"BOB@Sales.Example": {"s2", "match #1", `"*@sales.example" matches the user`, nil},
		"boss@example.com":  {"s2", "match #1", `"Boss@*" matches the user`, nil},
		"Bob@example.com":   {"s3", "file " + path, "the map has a line for the user", nil},
		"eve@EXAMPLE.org":   {"s1", "file " + path, "the map has a line for the user's domain", nil},
		"eve@example.net":   {"s2", "ring", "the consistent hash over s2 gives the user to s2", nil},
	} {
		got, err := table.Route(t.Context(), user)
		if err != nil || got != want {
			t.Errorf("Route(%q) = %+v, %v; want %+v", user, got, err, want)
		}
		answers := table.Explain(t.Context(), user)
		if last := answers[len(answers)-1]; last.Shard != got.Shard || last.Route != got.Route || !strings.HasPrefix(last.Reason, got.Reason) {
			t.Errorf("Explain(%q) ends with %+v, Route says %+v", user, last, got)
		}
	}
}

func TestNoRoute(t *testing.T) {
	t.Parallel()
	empty := newTable(t)
	table := newTable(t, config.Route{Kind: "match", Match: config.Match{Users: []string{"*@sales.example"}}, Shard: "s2"})
	ring := newTable(t, config.Route{Kind: "ring"})
	for _, test := range []struct {
		table *Table
		user  string
	}{
		{empty, "bob"}, {table, "bob"}, {table, "bob@sales.example.com"}, {table, ""}, {ring, ""},
	} {
		d, err := test.table.Route(t.Context(), test.user)
		if !errors.Is(err, ErrNoRoute) || d != (Decision{}) {
			t.Errorf("Route(%q) = %+v, %v; want ErrNoRoute", test.user, d, err)
		}
	}
	if _, err := table.Route(t.Context(), "bob\n"); err == nil || !strings.HasSuffix(err.Error(), `"bob\n"`) {
		t.Errorf("the user is not quoted: %v", err)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "# moved in spring\nbob@example.com s3\n\n@example.org s1\n")
	table := newTable(t,
		config.Route{Kind: "match", Match: config.Match{Users: []string{"*@sales.example"}}, Shard: "s2"},
		config.Route{Kind: "file", Path: path},
		config.Route{Kind: "ring", Shards: []string{"s2"}},
	)
	file := "file " + path
	for user, want := range map[string][]Answer{
		"x@sales.example": {{"match #1", "s2", `"*@sales.example" matches the user`, nil, 0}},
		"Bob@Example.com": {
			{"match #1", "", "it does not match the user", nil, 0},
			{file, "s3", "the map has a line for the user: line 2", nil, 0},
		},
		"eve@example.org": {
			{"match #1", "", "it does not match the user", nil, 0},
			{file, "s1", "the map has a line for the user's domain: line 4", nil, 0},
		},
		"eve": {
			{"match #1", "", "it does not match the user", nil, 0},
			{file, "", "the map has no line for the user or its domain, and no default line (*)", nil, 0},
			{"ring", "s2", "the consistent hash over s2 gives the user to s2", nil, 0},
		},
		"": nil,
	} {
		if diff := cmp.Diff(want, table.Explain(t.Context(), user)); diff != "" {
			t.Errorf("Explain(%q) (-want +got):\n%s", user, diff)
		}
	}
}

// TestNewErrors: everything that is wrong, at once.
func TestNewErrors(t *testing.T) {
	t.Parallel()
	broken := mapFile(t, "bob s9\neve\n")
	_, err := New(new(Names), []config.Route{
		{Kind: "match", Match: config.Match{Users: []string{"*@a"}}, Shard: "s4"},
		{Kind: "match", Shard: "s1"},
		{Kind: "match", Match: config.Match{Users: []string{"", "a\tb", "ok"}}, Shard: ""},
		{Kind: "file", Path: broken},
		{Kind: "file", Path: "/nonexistent/users.map"},
		{Kind: "file", Path: filepath.Dir(broken)},
		{Kind: "sql"},
		{Kind: "redis"},
		{Kind: "ring", Shards: []string{"s1", "s5", "s1"}},
		{Kind: "ring"},
	}, shards)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`route match #1: unknown shard "s4": use one of s1, s2, s3`,
		`route match #2: no pattern in users: write one like "*@example.com"`,
		`route match #3: an empty pattern matches nobody: write "*" for everybody, or remove it`,
		`route match #3: pattern "a\tb" contains a control character, no user name does: remove it`,
		`route match #3: unknown shard "": use one of s1, s2, s3`,
		`route file ` + broken + `: line 1: unknown shard "s9": use one of s1, s2, s3`,
		`route file ` + broken + `: line 2: no shard behind "eve": write "user shard"`,
		`route file /nonexistent/users.map: cannot read the map: open /nonexistent/users.map: no such file or directory`,
		fmt.Sprintf("route file %[1]s: cannot read the map: read %[1]s: is a directory", filepath.Dir(broken)),
		`route sql: unknown driver "": use postgres, mysql or sqlite`,
		`route redis: unknown kind of route: use match, file, sql, ldap, http, dovecot-auth or ring`,
		`route ring: shard "s1" is named twice: it would get no more users by that, remove one`,
		`route ring: unknown shard "s5": use one of s1, s2, s3`,
		`route ring: it decides for every user, so what stands after it (1 of the routes) is never asked: move it to the end`,
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	if _, err := New(new(Names), []config.Route{{Kind: "ring"}}, nil); err == nil || !strings.Contains(err.Error(), "no shards to choose from") {
		t.Errorf("a ring of nothing: %v", err)
	}
}

func TestNamesDefault(t *testing.T) {
	t.Parallel()
	for user, want := range map[string]string{
		"":                  "",
		"alice@example.com": "alice@example.com",
		"Alice@Example.COM": "alice@example.com",
		"[A-Z]@`{":          "[a-z]@`{",
		"ÜBER@Exämple":      "Über@exämple", // as Dovecot: ASCII only
		"\xffA":             "\xffa",
	} {
		if got := new(Names).User(user); got != want {
			t.Errorf("User(%q) = %q; want %q", user, got, want)
		}
	}
}

func TestListIsShort(t *testing.T) {
	t.Parallel()
	many := make([]string, 20)
	for i := range many {
		many[i] = fmt.Sprintf("s%d", i)
	}
	if got, want := list(many), "s0, s1, s2, s3, s4, s5, s6, s7 and 12 more"; got != want {
		t.Errorf("list = %q; want %q", got, want)
	}
}

// benchTable has each kind of route, and users for each.
func benchTable(b *testing.B) *Table {
	var users strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&users, "user%06d@example.com s%d\n", i, i%3+1)
	}
	users.WriteString("@example.org s1\n")
	return newTable(b,
		config.Route{Kind: "match", Match: config.Match{Users: []string{"*@sales.example", "admin-*@*.example"}}, Shard: "s2"},
		config.Route{Kind: "file", Path: mapFile(b, users.String())},
		config.Route{Kind: "ring"},
	)
}

var benchUsers = []struct{ name, user, route string }{
	{"match", "someone@sales.example", "match #1"},
	{"file", "user054321@example.com", "file"},
	{"file-domain", "someone@example.org", "file"},
	{"ring", "someone@example.net", "ring"},
	{"ring-upper", "Someone@Example.Net", "ring"},
}

func BenchmarkRoute(b *testing.B) {
	table := benchTable(b)
	for _, bench := range benchUsers {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, err := table.Route(b.Context(), bench.user); err != nil || !strings.HasPrefix(d.Route, bench.route) {
					b.Fatal(d, err)
				}
			}
		})
	}
}

// TestRouteDoesNotAllocate holds what Route promises.
func TestRouteDoesNotAllocate(t *testing.T) {
	users := mapFile(t, "user@example.com s1\n@example.org s1\n")
	table := newTable(t,
		config.Route{Kind: "match", Match: config.Match{Users: []string{"*@sales.example"}}, Shard: "s2"},
		config.Route{Kind: "file", Path: users},
		config.Route{Kind: "ring"},
	)
	long := strings.Repeat("long", 50) + "@example.net"
	for user, want := range map[string]float64{
		"someone@sales.example": 0, "user@example.com": 0, "someone@example.org": 0, "someone@example.net": 0, long: 0,
		"Someone@Example.Net": 1,
	} {
		if got := testing.AllocsPerRun(100, func() {
			if _, err := table.Route(t.Context(), user); err != nil {
				t.Fatal(err)
			}
		}); got > want {
			t.Errorf("Route(%q) allocates %v times; want %v", user, got, want)
		}
	}
}
