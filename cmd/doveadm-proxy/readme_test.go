package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// documents are the files for people whose commands, configurations and links
// have to be right.
func documents(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatal("no documents", err)
	}
	texts := make(map[string]string)
	for _, path := range append(paths, "../../README.md", "../../CHANGELOG.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

var (
	fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	link  = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
)

// TestReadmeConfiguration checks that every whole configuration in the README
// is one.
func TestReadmeConfiguration(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"doveadm": "{PLAIN}x", "backends": "y"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	checked := 0
	for _, block := range fence.FindAllStringSubmatch(documents(t)["../../README.md"], -1) {
		if block[1] != "hcl" {
			continue
		}
		checked++
		src := strings.ReplaceAll(block[2], "/etc/doveadm-proxy/secrets", dir)
		if _, diags := config.Parse("README.md", []byte(src)); len(diags) > 0 {
			t.Errorf("%v in\n%s", diags, block[2])
		}
	}
	if checked == 0 {
		t.Error("the README shows no configuration")
	}
}

// TestDocumentedCommands checks that each command line of doveadm-proxy in a
// document names a command and flags that exist.
func TestDocumentedCommands(t *testing.T) {
	checked := 0
	for path, text := range documents(t) {
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			prompted := strings.HasPrefix(block[2], "$ ") // the other lines are output
			for line := range strings.Lines(block[2]) {
				line, prompt := strings.CutPrefix(line, "$ ")
				if prompted && !prompt {
					continue
				}
				line, _, _ = strings.Cut(line, "#")
				line, _, _ = strings.Cut(line, ">")
				words := strings.Fields(line)
				if len(words) < 2 || words[0] != "doveadm-proxy" || block[1] != "" && block[1] != "sh" {
					continue
				}
				checked++
				cmd, rest, err := newRoot().Find(words[1:])
				if err != nil || !strings.HasPrefix(cmd.CommandPath()+" ", "doveadm-proxy "+words[1]+" ") {
					t.Errorf("%s: %s: no such command (%v)", path, strings.TrimSpace(line), err)
					continue
				}
				if err := cmd.ParseFlags(rest); err != nil {
					t.Errorf("%s: %s: %v", path, strings.TrimSpace(line), err)
				}
			}
		}
	}
	if checked < 3 {
		t.Errorf("only %d command lines found", checked)
	}
}

// TestShellBlocks: a block that is marked sh is run by a test as it stands, so
// such blocks are in documents that tests run. Others show no mark.
func TestShellBlocks(t *testing.T) {
	run := map[string]bool{"../../docs/quick-start.md": true, "../../docs/migrating-from-director.md": true} // internal/acceptance
	marks := map[string]bool{"": true, "hcl": true, "json": true, "go": true, "ini": true}
	for path, text := range documents(t) {
		found := false
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			found = found || block[1] == "sh"
			if block[1] == "sh" && !run[path] {
				t.Errorf("%s: no test runs this block; mark it by nothing, or have it run:\n%s", path, block[2])
			}
			if block[1] != "sh" && !marks[block[1]] {
				t.Errorf("%s: a block is marked %q, which says nothing about who runs it", path, block[1])
			}
		}
		if run[path] && !found {
			t.Errorf("%s has nothing that is run", path)
		}
	}
}

// TestDocumentsAreListed: docs/README.md leads to every document.
func TestDocumentsAreListed(t *testing.T) {
	all := documents(t)
	for path := range all {
		if name := filepath.Base(path); strings.Contains(path, "/docs/") && name != "README.md" && !strings.Contains(all["../../docs/README.md"], "("+name+")") {
			t.Errorf("docs/README.md does not mention %s", name)
		}
	}
}

// TestLinks checks that links to files lead to one.
func TestLinks(t *testing.T) {
	checked := 0
	for path, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			checked++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
			}
		}
	}
	if checked == 0 {
		t.Error("no links found")
	}
}

// TestMakeTargets checks that the targets which the README names exist.
func TestMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:^|\x60)make ([a-z-]+)`).FindAllStringSubmatch(documents(t)["../../README.md"], -1) {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
			t.Errorf("the README says make %s, which the Makefile does not have", m[1])
		}
	}
}
