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
	for _, table := range []string{explanationTable(), replacementTable()} {
		if !strings.Contains(string(text), table) {
			t.Errorf("docs/compatibility.md lacks the following, run make compat:\n%s", table)
		}
	}
}
