package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUpdated(t *testing.T) {
	const results = "<!-- benchmark results: begin -->\n"
	const resultsEnd = "<!-- benchmark results: end -->\n"
	const summary = "<!-- benchmark summary: begin -->\n"
	const summaryEnd = "<!-- benchmark summary: end -->\n"
	texts := map[string]string{"results": "new\n", "summary": "short\n"}
	for _, tt := range []struct{ name, document, want, err string }{
		{name: "results", document: "a\n" + results + "old\n" + resultsEnd + "z\n", want: "a\n" + results + "new\n" + resultsEnd + "z\n"},
		{name: "empty place", document: results + resultsEnd, want: results + "new\n" + resultsEnd},
		{name: "summary", document: "a\n" + summary + summaryEnd, want: "a\n" + summary + "short\n" + summaryEnd},
		{
			name:     "both",
			document: summary + "x\n" + summaryEnd + "\n" + results + "y\n" + resultsEnd,
			want:     summary + "short\n" + summaryEnd + "\n" + results + "new\n" + resultsEnd,
		},
		{name: "no place", document: "a\n", err: "has no place for results"},
		{name: "no end", document: results + "a\n", err: "add the line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "document.md")
			if err := os.WriteFile(path, []byte(tt.document), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := updated(path, texts)
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

// The document that make bench is to update has the place for it.
func TestDocument(t *testing.T) {
	if _, err := updated("../../docs/performance.md", nil); err != nil {
		t.Error(err)
	}
}
