package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// TestManPages: mandoc finds nothing to warn of in any page, and the page of the
// configuration has every block and attribute.
func TestManPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1790000000")
	dir := t.TempDir()
	if err := writeManPages(newRoot(), dir); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	out, err := exec.Command("mandoc", append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("mandoc (not installed? make deps): %v\n%s", err, out)
	}
	page, err := os.ReadFile(filepath.Join(dir, "doveadm-proxy.hcl.5"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(config.Reference(), -1)
	if len(rows) < 50 {
		t.Fatalf("the reference has only %d attributes", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(string(page), ".TP\n\\fB"+row[1]+"\\fR\n") {
			t.Errorf("doveadm-proxy.hcl(5) has no entry for %s", row[1])
		}
	}
	if !strings.Contains(string(page), "2026-09-21") {
		t.Error("the page does not have the date of SOURCE_DATE_EPOCH")
	}
	if strings.Contains(string(page), "](") || strings.Contains(string(page), "|---") {
		t.Error("Markdown is left in doveadm-proxy.hcl(5)")
	}
}

// TestContainerfile: what the recipe copies is there, and it builds by the
// Makefile. No container is built here.
func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile("../../Containerfile")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	copied, built := 0, 0
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		switch {
		case len(words) > 2 && words[0] == "COPY" && !strings.HasPrefix(words[1], "--"):
			for _, path := range words[1 : len(words)-1] {
				copied++
				if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
					t.Error(err)
				}
			}
		case len(words) > 2 && words[0] == "RUN" && words[1] == "make":
			built++
			if !strings.Contains(string(makefile), "\n"+words[2]+":") {
				t.Errorf("the Makefile has no target %s", words[2])
			}
		case len(words) > 1 && words[0] == "HEALTHCHECK" && !strings.Contains(line, "doveadm-proxy\", \"status\""):
			t.Errorf("health is checked by %s", line)
		}
	}
	if copied == 0 || built == 0 || !strings.Contains(string(text), "\nUSER 64245") || !strings.Contains(string(text), "\nHEALTHCHECK ") {
		t.Errorf("%d files copied, %d times built; it must have a user that is not root, and a health check:\n%s", copied, built, text)
	}
}
