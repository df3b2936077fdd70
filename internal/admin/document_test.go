package admin

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

var update = flag.Bool("update", false, "write docs/admin-api.md")

const apiFile = "../../docs/admin-api.md"

// speech is what a verb takes and answers. Verbs that are not about JSON have
// their answer in words.
type speech struct {
	takes, answers any
	parameters     string // of the URL
	words          string
}

// speeches are those of all verbs. That the types are the right ones is shown by
// TestSpeeches, which asks a proxy.
var speeches = map[string]speech{
	"GET /{$}":                           {words: "HTML"},
	"GET /page/{file}":                   {words: "its file"},
	"GET /login":                         {words: "goes on to `/`, or 401"},
	"GET /debug/pprof/{$}":               {words: "HTML"},
	"GET /debug/pprof/{profile}":         {words: "as package `net/http/pprof` has it: `?seconds=`, `?debug=1`"},
	"GET /v1/whoami":                     {answers: Self{}},
	"GET /live":                          {words: `{"live": true}`},
	"GET /ready":                         {words: `{"ready": true}`},
	"GET /metrics":                       {words: "text, see [metrics.md](metrics.md)"},
	"GET /v1/status":                     {answers: Status{}},
	"GET /v1/history":                    {answers: History{}, parameters: "`step`, `backend`"},
	"GET /v1/events":                     {answers: Events{}},
	"GET /v1/log-level":                  {answers: logs.Levels{}},
	"POST /v1/log-level":                 {takes: levelRequest{}, answers: logs.Levels{}},
	"GET /v1/commands/slowest":           {answers: EndedCommands{}},
	"GET /v1/commands/failed":            {answers: EndedCommands{}},
	"GET /v1/backends":                   {answers: Backends{}},
	"POST /v1/backends/{name}/state":     {takes: stateRequest{}, answers: Backend{}},
	"GET /v1/pools":                      {answers: Pools{}},
	"GET /v1/clients":                    {answers: Clients{}},
	"GET /v1/sessions":                   {answers: Sessions{}},
	"GET /v1/commands":                   {answers: Commands{}},
	"GET /v1/pauses":                     {answers: Pauses{}},
	"GET /v1/tail":                       {answers: Ended{}, parameters: "`client`, `user` and `command` (globs), `shard`, `backend`, `outcome`, `failed=true`, `min_duration=500ms`"},
	"GET /v1/trace":                      {answers: Wire{}, parameters: "`client`, `user`, `for=1m`, `max_bytes`"},
	"GET /v1/plan":                       {answers: Plan{}},
	"POST /v1/backends/{name}/reconnect": {answers: Done{}},
	"POST /v1/shards/{name}/state":       {takes: stateRequest{}, answers: Backends{}},
	"POST /v1/sessions/{session}/kill":   {answers: Done{}},
	"POST /v1/sessions/{session}/commands/{number}/kill": {answers: Done{}},
	"POST /v1/pause":                {takes: PauseRequest{}, answers: Done{}},
	"POST /v1/unpause":              {takes: Scope{}, answers: Done{}},
	"GET /v1/users":                 {answers: MovedUser{}},
	"GET /v1/users/{user}":          {answers: User{}},
	"POST /v1/users/{user}/refresh": {answers: User{}},
	"POST /v1/lookups/refresh":      {},
	"POST /v1/users/{user}/move":    {takes: MoveRequest{}, answers: MoveStep{}},
	"POST /v1/users/{user}/forget":  {takes: MoveRequest{}, answers: MoveStep{}},
	"POST /v1/reload":               {answers: ReloadResult{}},
}

// TestAPIDocument: docs/admin-api.md says what the verbs and their types are.
func TestAPIDocument(t *testing.T) {
	want := apiDocument(t)
	if *update {
		if err := os.WriteFile(apiFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(apiFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is not what the verbs and types say; run: go test ./internal/admin -run TestAPIDocument -update\n%s", apiFile, diff)
	}
}

const apiHead = `# The admin endpoint over HTTP

<!-- Written by go test ./internal/admin -run TestAPIDocument -update; do not edit. -->

What ` + "`doveadm-proxy status`" + ` and all other commands for a running proxy say to it, for scripts: HTTP with JSON, at the addresses of the
` + "[`admin`](configuration.md#admin)" + ` block. By default that is a UNIX socket:

` + "```" + `
curl --unix-socket /run/doveadm-proxy/admin.sock http://localhost/v1/backends
curl --unix-socket /run/doveadm-proxy/admin.sock http://localhost/v1/backends/mail1/state -d '{"state": "draining"}' -H 'Content-Type: application/json'
` + "```" + `

**Version.** The schema of this page is version 1, the ` + "`/v1`" + ` in the paths. Within it fields and verbs are added; none is taken away or gets another
meaning. A reader has to ignore fields that it does not know. What would break that is to get paths of its own (` + "`/v2`" + `).

**Answers** are JSON with the code 200. One that is no success has another code and is ` + "`{\"error\": \"...\"}`" + `, in words for people: 400 the request is
wrong, 401 the caller is not known, 403 the role is not enough, 404 there is no such thing, 409 too late for it, 429 too many readers of streams, 501 this process cannot, 503 not now.
` + "`/v1/reload` and `/v1/plan`" + ` answer 200 also where the configuration is refused: see ` + "`ok`" + ` there.

**Roles.** %s. Each may do what those before it may.

**Lines.** The answers of ` + "`/v1/tail`, `/v1/trace`, `/v1/users`, `.../move` and `.../forget`" + ` are one JSON object a line. A tail has no end of its own; in it and in a trace a line
` + "`{}`" + ` is a sign of life, at least every 10 seconds.

Times are RFC 3339 in UTC. Names in a path are escaped as in any URL.

## Verbs

`

func apiDocument(t *testing.T) string {
	var b strings.Builder
	var roles []string
	for _, r := range Roles() {
		roles = append(roles, "`"+r.String()+"`")
	}
	fmt.Fprintf(&b, apiHead, strings.Join(roles, ", "))
	b.WriteString("| request | role | does | takes | answers |\n|---|---|---|---|---|\n")
	table := verbs()
	slices.SortFunc(table, func(a, b verb) int { return strings.Compare(pathOf(a)+" "+a.pattern, pathOf(b)+" "+b.pattern) })
	d := newTypeDocument(t)
	for _, v := range table {
		s, ok := speeches[v.pattern]
		if !ok {
			t.Errorf("%s: say in the table of this test what it takes and answers", v.pattern)
		}
		takes, answers := s.parameters, s.words
		if s.takes != nil {
			takes = d.link(reflect.TypeOf(s.takes))
		}
		if s.answers != nil {
			answers = d.link(reflect.TypeOf(s.answers))
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s |\n", strings.Replace(v.pattern, "{$}", "", 1), v.role, cell(v.does), takes, answers)
	}
	b.WriteString("\n## Types\n\nA field that is marked *optional* is left out where there is nothing to say.\n")
	d.write(&b)
	return b.String()
}

func pathOf(v verb) string {
	_, path, _ := strings.Cut(v.pattern, " ")
	return path
}

func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", `\|`), "\n", " ")
}

// typeDocument collects types, those that occur first first.
type typeDocument struct {
	t     *testing.T
	types []reflect.Type
	// comments of types, and of fields under Type.Field, by the package's path.
	comments map[string]map[string]string
}

func newTypeDocument(t *testing.T) *typeDocument {
	return &typeDocument{t: t, comments: map[string]map[string]string{}}
}

// names of types that are not exported.
var typeNames = map[string]string{"stateRequest": "StateRequest", "levelRequest": "LevelRequest"}

func nameOf(typ reflect.Type) string {
	if name, ok := typeNames[typ.Name()]; ok {
		return name
	}
	return typ.Name()
}

// link names a type, and has structs described.
func (d *typeDocument) link(typ reflect.Type) string {
	switch typ {
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[Duration]():
		return `duration, as "30s"`
	case reflect.TypeFor[Role]():
		return "text: " + strings.Join(roleNames(), ", ")
	case reflect.TypeFor[pool.Operator]():
		return "text: " + words(pool.Active, pool.Draining, pool.Down)
	case reflect.TypeFor[pool.Health]():
		return "text"
	}
	switch typ.Kind() {
	case reflect.Pointer:
		return d.link(typ.Elem())
	case reflect.Slice:
		return "list of " + d.link(typ.Elem())
	case reflect.Map:
		return "object, text to " + d.link(typ.Elem())
	case reflect.Struct:
		if !slices.Contains(d.types, typ) {
			d.types = append(d.types, typ)
		}
		return fmt.Sprintf("[%s](#%s)", nameOf(typ), strings.ToLower(nameOf(typ)))
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "number"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "whole number"
	}
	d.t.Errorf("no word for the type %s", typ)
	return ""
}

func words(all ...fmt.Stringer) string {
	var texts []string
	for _, s := range all {
		texts = append(texts, s.String())
	}
	return strings.Join(texts, ", ")
}

func (d *typeDocument) write(b *strings.Builder) {
	for i := 0; i < len(d.types); i++ { // grows
		typ := d.types[i]
		fmt.Fprintf(b, "\n### %s\n\n", nameOf(typ))
		if text := d.comment(typ, ""); text != "" {
			fmt.Fprintf(b, "%s\n\n", text)
		}
		b.WriteString("| field | type | meaning |\n|---|---|---|\n")
		for _, f := range reflect.VisibleFields(typ) {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous || name == "-" {
				continue
			}
			if name == "" {
				d.t.Errorf("%s.%s has no name in JSON", typ, f.Name)
			}
			kind := d.link(f.Type)
			if strings.Contains(options, "omit") {
				kind += ", *optional*"
			}
			owner := typ
			if len(f.Index) > 1 {
				owner = typ.FieldByIndex(f.Index[:1]).Type
			}
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, kind, cell(d.comment(owner, f.Name)))
		}
	}
}

// comment returns that of a type or of its field.
func (d *typeDocument) comment(typ reflect.Type, field string) string {
	in, ok := d.comments[typ.PkgPath()]
	if !ok {
		in = commentsIn(d.t, filepath.Join("../..", strings.TrimPrefix(typ.PkgPath(), "github.com/doveadm-proxy/doveadm-proxy")))
		d.comments[typ.PkgPath()] = in
	}
	return in[strings.TrimSuffix(typ.Name()+"."+field, ".")]
}

// commentsIn reads the comments of the types of a package.
func commentsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no source in %s: %v", dir, err)
	}
	found := map[string]string{}
	line := func(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				typ := spec.(*ast.TypeSpec)
				found[typ.Name.Name] = line(g.Doc)
				s, ok := typ.Type.(*ast.StructType)
				if !ok {
					continue
				}
				for _, f := range s.Fields.List {
					text := line(f.Comment)
					if text == "" && f.Doc != nil && strings.HasPrefix(line(f.Doc), firstName(f)+" ") {
						text = line(f.Doc) // not a heading of several fields
					}
					for _, name := range f.Names {
						found[typ.Name.Name+"."+name.Name] = text
					}
				}
			}
		}
	}
	return found
}

func firstName(f *ast.Field) string {
	if len(f.Names) == 0 {
		return ""
	}
	return f.Names[0].Name
}

// Speeches are for the test that asks a proxy: what each GET of JSON answers,
// nil for the others.
func Speeches() map[string]reflect.Type {
	all := map[string]reflect.Type{}
	for pattern, s := range speeches {
		method, at, _ := strings.Cut(pattern, " ")
		if s.answers != nil && method == http.MethodGet && at != "/v1/tail" && at != "/v1/trace" && !strings.HasPrefix(at, "/v1/users") {
			all[at] = reflect.TypeOf(s.answers)
		}
	}
	return all
}
