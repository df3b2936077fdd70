package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The whole program runs and its report is complete. What its figures say is
// no matter of a test.
func TestRun(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "doveadm-proxy")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "../../cmd/doveadm-proxy").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	o, err := parse([]string{"-short", "-proxy", binary})
	if err != nil {
		t.Fatal(err)
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

	conditions, results := tables(t, stdout.String())
	var names []string
	for _, row := range conditions {
		names = append(names, row[0])
	}
	if diff := cmp.Diff([]string{"condition", "command", "measured", "machine", "load before", "backends", "proxy", "clients"}, names); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if want := 1 + 2*2*2; len(results) != want { // a header; kept or not, 1 or 8 clients, two ways
		t.Fatalf("%d rows of results, want %d", len(results), want)
	}
	// Some figure, and its spread where it has one. Only direct rows have no
	// ratio and no CPU time of the proxy.
	const number, spread = `[0-9.]*[1-9][0-9.]*`, ` \([0-9.]+–[0-9.]+\)`
	rate, figure, none := number+spread, number, "–"
	const count = "[0-9]+" // 0 is possible in so short a time
	for n, row := range results[1:] {
		patterns := []string{".+directly at the user's backend", "[18]", rate, none, figure, figure, count, count, none}
		if n%2 == 1 {
			patterns = []string{".+through the proxy", "[18]", rate, rate, figure, figure, figure, count, count}
		}
		for column, cell := range row {
			if !regexp.MustCompile("^" + patterns[column] + "$").MatchString(cell) {
				t.Errorf("row %d, %s: %q", n+1, results[0][column], cell)
			}
		}
	}
}

// tables returns the cells of the two tables of a report, and checks that
// their rows are of equal length.
func tables(t *testing.T, text string) (conditions, results [][]string) {
	t.Helper()
	parts := strings.Split(text, "\n\n")
	if len(parts) != 3 {
		t.Fatalf("the report has %d parts, want 2 tables and a sentence", len(parts))
	}
	var found [2][][]string
	for n, part := range parts[:2] {
		for line := range strings.SplitSeq(part, "\n") {
			cells := strings.Split(strings.Trim(line, "|"), "|")
			if len(found[n]) > 0 && len(cells) != len(found[n][0]) {
				t.Fatalf("%d cells instead of %d in %q", len(cells), len(found[n][0]), line)
			}
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			if cells[0] != "---" {
				found[n] = append(found[n], cells)
			}
		}
	}
	return found[0], found[1]
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"-clients 1,x", `"x" is not a number`},
		{"-clients 0", `"0" is not a number`},
		{"-clients 277", "from 1 to 276"},
		{"-rounds 0", "-rounds and -time"},
		{"-time 0s", "-rounds and -time"},
		{"-short -update x.md", "too coarse"},
	} {
		if _, err := parse(strings.Fields(tt.args)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.args, err, tt.want)
		}
	}
}

func TestMissingProxy(t *testing.T) {
	o, err := parse([]string{"-short", "-proxy", "/nowhere/doveadm-proxy"})
	if err != nil {
		t.Fatal(err)
	}
	err = run(t.Context(), o, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("error %v, want one that says how to build the proxy", err)
	}
}
