package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// The test's own program is the null backend or the plain relay, when it is
// started as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "plain" {
		if err := runPlain(os.Args[2:]); err != nil {
			panic(err)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "null" {
		if err := runNull(os.Args[2:]); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// buildProxy returns the path of a proxy of this tree.
func buildProxy(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "doveadm-proxy")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./cmd/doveadm-proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build has it
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// The whole program runs and its report is complete. What its figures say is
// no matter of a test.
func TestRun(t *testing.T) {
	binary := buildProxy(t)
	o, err := parse([]string{"-rounds", "2", "-time", "50ms", "-proxy", binary, "-only", "null-connect-64|null-kept-64|null-pipelined-8|slow-pipelined-8|null-5MB|null-mixed|d23-kept-8"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.works {
		o.works[i].clients = min(o.works[i].clients, 2)
	}
	document := filepath.Join(t.TempDir(), "document.md")
	const before = "# Title\n\n<!-- benchmark results: begin -->\n"
	const after = "<!-- benchmark results: end -->\nEnd.\n"
	if err := os.WriteFile(document, []byte(before+"old\n"+after), 0o644); err != nil {
		t.Fatal(err)
	}
	o.update = []string{document}

	var stdout, progress bytes.Buffer
	if err := run(t.Context(), o, &stdout, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("%s\n%s", &stdout, &progress)
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before+stdout.String()+after, string(content)); diff != "" {
		t.Errorf("document (-want +got):\n%s", diff)
	}
	for _, w := range o.works {
		for _, target := range w.targets {
			if !strings.Contains(stdout.String(), "| "+w.title+" | ") || !strings.Contains(stdout.String(), " | "+target.String()+" | ") {
				t.Errorf("the report says nothing of %s, %s", w.title, target)
			}
		}
	}
}

// The number of commands at the same time is told, for both releases and all
// ways.
func TestConcurrency(t *testing.T) {
	if err := runConcurrency(t.Context(), []string{"-fixed", "1,0"}, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), `"0" is no number of connections`) {
		t.Errorf("-fixed 1,0: error %v", err)
	}
	var out bytes.Buffer
	document := filepath.Join(t.TempDir(), "document.md")
	if err := os.WriteFile(document, []byte("<!-- concurrency: begin -->\n<!-- concurrency: end -->\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := runConcurrency(t.Context(), []string{"-proxy", buildProxy(t), "-rounds", "1", "-time", "300ms", "-settle", "300ms", "-fixed", "1,16", "-update", document}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Dovecot 2.3", "Dovecot 2.4", "| found out, at most 16 |", "| always 1 |", "| always 16 |", "the proxy had found "} {
		if !strings.Contains(string(content), want) {
			t.Errorf("the document does not have %q:\n%s", want, content)
		}
	}
}

// The documents that make bench is to update have the place for it.
func TestDocuments(t *testing.T) {
	for _, path := range []string{"../docs/performance.md", "../README.md"} {
		if _, err := markdown.Filled(path, (&report{}).blocks()); err != nil {
			t.Error(err)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-only nothing", "matches nothing; there are: null-connect-64 null-kept-64"},
		{"-only (", "-only"},
		{"-rounds -1", "-rounds and -time"},
		{"-time -1s", "-rounds and -time"},
		{"x", "unknown argument"},
	} {
		if _, err := parse(strings.Fields(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.args, err, tt.want)
		}
	}
}

func TestMissingProxy(t *testing.T) {
	o, err := parse([]string{"-only", "null-kept-1", "-proxy", "/nowhere/doveadm-proxy"})
	if err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), o, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v, want one that says how to build the proxy", err)
	}
}

// The reply may arrive in any pieces.
func TestFrames(t *testing.T) {
	stream := bytes.Repeat(quotaReply, 3)
	for size := 1; size <= len(stream); size++ {
		var f frames
		replies := 0
		for p := stream; len(p) > 0; {
			n := min(size, len(p))
			got, err := f.read(p[:n], quotaSize)
			if err != nil {
				t.Fatalf("pieces of %d: %v", size, err)
			}
			replies += got
			p = p[n:]
		}
		if replies != 3 {
			t.Errorf("pieces of %d: %d replies, want 3", size, replies)
		}
	}
	for _, reply := range []string{"\n-\n", "\n-NOUSER\n", "a\t\n-TEMPFAIL\n", "a\t\n+\n"} {
		var f frames
		if n, err := f.read(packets(reply), quotaSize); err == nil {
			t.Errorf("%q: %d replies and no error", reply, n)
		}
	}
	// The LF and the status may be packets of their own.
	var f frames
	if n, err := f.read(packets("a\t", "\n", "+\n", "\n", "-\n"), 0); n != 1 || err == nil {
		t.Errorf("%d replies, error %v, want 1 and an error", n, err)
	}
}

// The median ratio is not the ratio of the medians.
func TestReport(t *testing.T) {
	ms := time.Millisecond
	row := &rows{work: work{name: "null-kept-64", title: "something", clients: 64, targets: []target{proxied, haproxy}}}
	row.samples[proxied] = []sample{{rate: 300, p50: ms}, {rate: 50, p50: ms}, {rate: 600, p50: ms}}
	row.samples[haproxy] = []sample{{rate: 100, p50: ms}, {rate: 200, p50: ms}, {rate: 300, p50: ms}}
	row.counts[proxied] = counts{calls: 4.5, allocations: -1}
	r := &report{rows: []*rows{row}, conditions: [][2]string{{"machine", "a machine"}}}
	got := r.full()
	for _, want := range []string{
		"| machine | a machine |",
		"times HAProxy | ≥ 1 | 2.00 (0.25–3.00) | yes |",
		"system calls a command, the proxy | ≤ 4 | 4.50 (4.50–4.50) | no |",
		"| something | 64 | HAProxy, TCP | 200 (100–300) | 2.00 (0.25–3.00) | 1.000 |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "log level warn") {
		t.Errorf("the report has what was not measured:\n%s", got)
	}
}

// The short form leaves out what explains the figures of others; by name
// everything is measured.
func TestChosen(t *testing.T) {
	has := func(short bool, only string, what target) bool {
		list, err := chosen(short, only)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(w work) bool { return slices.Contains(w.targets, what) })
	}
	for _, what := range []target{quiet, looped} {
		if has(true, "", what) || !has(false, "", what) || !has(true, "null-kept-64", what) {
			t.Errorf("%s: short %v, long %v, by name %v", what, has(true, "", what), has(false, "", what), has(true, "null-kept-64", what))
		}
	}
	if !has(true, "", plain) || !has(true, "", proxied) {
		t.Error("the short form lacks what it is about")
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values numbers
		want   string
	}{
		{numbers{7}, "7 (7–7)"},
		{numbers{9, 1}, "5 (1–9)"},
		{numbers{9, 1, 2}, "2 (1–9)"},
	} {
		if got := tt.values.spread(0); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.values, got, tt.want)
		}
	}
}
