package config

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// Each file of testdata/error-files says in comments what is to be reported:
// "# ERROR: summary" on the line itself, "# NEXT ERROR:" on the line before,
// "# EOF ERROR:" for the end of the file; WARNING likewise. Nothing else may be
// reported.
func TestErrorFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/error-files/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, diags := Load(file)
			if (cfg == nil) != diags.HasErrors() {
				t.Errorf("Load returned the configuration %v and errors: %v", cfg != nil, diags.HasErrors())
			}
			var got []string
			for _, p := range Problems(diags) {
				got = append(got, fmt.Sprintf("%3d %s: %s", p.Line, p.Severity, p.Summary))
				if p.File != file || p.Column < 1 {
					t.Errorf("%q is at %q, column %d", p.Summary, p.File, p.Column)
				}
				if p.Detail == "" {
					t.Errorf("%q has no remedy", p.Summary)
				}
			}
			if !slices.IsSortedFunc(got, func(a, b string) int { return cmp.Compare(a[:3], b[:3]) }) {
				t.Errorf("not in the order of lines: %q", got)
			}
			slices.Sort(got)
			if diff := gocmp.Diff(expected(string(src)), got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}

			var sb strings.Builder
			if err := WriteDiagnostics(&sb, diags, false); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(sb.String(), "\n  on "+file+" line "); n != len(got) {
				t.Errorf("%d of %d problems are shown with their line:\n%s", n, len(got), &sb)
			}
		})
	}
}

func expected(src string) []string {
	comment := regexp.MustCompile(`# (NEXT |EOF )?(ERROR|WARNING): ([^#]*[^# ])`)
	lines := strings.Split(src, "\n")
	var want []string
	for i, line := range lines {
		for _, m := range comment.FindAllStringSubmatch(line, -1) {
			at := i + 1
			switch m[1] {
			case "NEXT ":
				at++
			case "EOF ":
				at = len(lines)
			}
			want = append(want, fmt.Sprintf("%3d %s: %s", at, strings.ToLower(m[2]), m[3]))
		}
	}
	slices.Sort(want)
	return want
}

func TestTenMistakes(t *testing.T) {
	_, diags := Load("testdata/error-files/ten-mistakes.hcl")
	lines := map[int]bool{}
	for _, p := range Problems(diags) {
		lines[p.Line] = true
	}
	if len(diags) != 10 || len(lines) != 10 {
		t.Errorf("%d problems on %d lines, want 10 on 10", len(diags), len(lines))
	}
}
