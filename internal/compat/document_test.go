package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// The documents have places for what "make compat" fills in, and say what this
// program would say of explanations and replacements.
func TestDocuments(t *testing.T) {
	for _, path := range documents {
		if _, err := markdown.Filled(filepath.Join("../..", path), new(matrix).blocks()); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for row := range strings.Lines(new(matrix).explanationTable()) {
		row, _ = strings.CutSuffix(row, " 0 |\n") // the number of comparisons
		if !strings.Contains(string(text), row) {
			t.Errorf("docs/compatibility.md lacks %q: run make compat", row)
		}
	}
	if !strings.Contains(string(text), replacementTable()) {
		t.Errorf("docs/compatibility.md does not say what is not compared: run make compat")
	}
}
