package markdown_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

func TestTable(t *testing.T) {
	table := markdown.NewTable("a", "b")
	table.Row("x|y", "")
	if diff := cmp.Diff("| a | b |\n|---|---|\n| x\\|y |  |\n", table.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestFilled(t *testing.T) {
	const results = "<!-- test results: begin -->\n"
	const resultsEnd = "<!-- test results: end -->\n"
	const summary = "<!-- test summary: begin -->\n"
	const summaryEnd = "<!-- test summary: end -->\n"
	blocks := map[string]string{"test results": "new\n", "test summary": "short\n"}
	for _, tt := range []struct{ name, document, want, err string }{
		{name: "results", document: "a\n" + results + "old\n" + resultsEnd + "z\n", want: "a\n" + results + "new\n" + resultsEnd + "z\n"},
		{name: "empty place", document: results + resultsEnd, want: results + "new\n" + resultsEnd},
		{name: "summary", document: "a\n" + summary + summaryEnd, want: "a\n" + summary + "short\n" + summaryEnd},
		{
			name:     "both",
			document: summary + "x\n" + summaryEnd + "\n" + results + "y\n" + resultsEnd,
			want:     summary + "short\n" + summaryEnd + "\n" + results + "new\n" + resultsEnd,
		},
		{name: "no place", document: "a\n", err: "has no place for any of"},
		{name: "no end", document: results + "a\n", err: "add the line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "document.md")
			if err := os.WriteFile(path, []byte(tt.document), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := markdown.Filled(path, blocks)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("got %q and error %v, want %q", got, err, tt.want)
			}
		})
	}
}
