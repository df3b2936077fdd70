package admin

import (
	"strings"
	"testing"
)

// table is who may do what. A verb is to be written here, too: so that nobody
// changes a role by the way.
var table = map[string]Role{
	"GET /{$}":                           Viewer,
	"GET /v1/whoami":                     Viewer,
	"GET /page/{file}":                   Viewer,
	"GET /live":                          Nobody,
	"GET /ready":                         Nobody,
	"GET /metrics":                       Viewer,
	"GET /v1/status":                     Viewer,
	"GET /v1/history":                    Viewer,
	"GET /v1/events":                     Viewer,
	"GET /v1/log-level":                  Viewer,
	"POST /v1/log-level":                 Operator,
	"GET /v1/commands/slowest":           Viewer,
	"GET /v1/commands/failed":            Viewer,
	"GET /v1/backends":                   Viewer,
	"POST /v1/backends/{name}/state":     Operator,
	"GET /v1/pools":                      Viewer,
	"GET /v1/clients":                    Viewer,
	"GET /v1/sessions":                   Viewer,
	"GET /v1/commands":                   Viewer,
	"GET /v1/pauses":                     Viewer,
	"GET /v1/tail":                       Viewer,
	"GET /v1/trace":                      Admin,
	"GET /v1/plan":                       Operator,
	"POST /v1/backends/{name}/reconnect": Operator,
	"POST /v1/shards/{name}/state":       Operator,
	"POST /v1/sessions/{session}/kill":   Operator,
	"POST /v1/sessions/{session}/commands/{number}/kill": Operator,
	"POST /v1/pause":                Operator,
	"POST /v1/unpause":              Operator,
	"POST /v1/reload":               Admin,
	"GET /login":                    Nobody,
	"GET /debug/pprof/{$}":          Admin,
	"GET /debug/pprof/{profile}":    Admin,
	"GET /v1/users":                 Viewer,
	"GET /v1/users/{user}":          Viewer,
	"POST /v1/users/{user}/refresh": Operator,
	"POST /v1/lookups/refresh":      Operator,
	"POST /v1/users/{user}/move":    Operator,
	"POST /v1/users/{user}/forget":  Operator,
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range verbs() {
		role, ok := table[v.pattern]
		switch {
		case !ok:
			t.Errorf("%s is not in the table of this test", v.pattern)
		case role != v.role:
			t.Errorf("%s is for the role %s, want %s", v.pattern, v.role, role)
		case seen[v.pattern]:
			t.Errorf("%s is there twice", v.pattern)
		case v.changes() && v.role < Operator:
			t.Errorf("%s changes something and is for the role %s", v.pattern, v.role)
		case v.does == "" || v.handle == nil || strings.HasSuffix(v.pattern, "/"):
			t.Errorf("%s is not whole, or for a whole tree", v.pattern)
		}
		seen[v.pattern] = true
	}
	for pattern := range table {
		if !seen[pattern] {
			t.Errorf("%s is gone", pattern)
		}
	}
}

// Exported for the tests of the package from outside.

// Verbs returns the patterns of all verbs and their roles.
func Verbs() map[string]Role { return table }

// Do returns a request of a verb.
func Do(pattern string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	return method, strings.NewReplacer("shards/{name}", "shards/s1", "{name}", "mail1", "{session}", "1", "{number}", "1", "{user}", "u1", "{file}", "page.js", "{profile}", "goroutine", "{$}", "").Replace(path)
}
