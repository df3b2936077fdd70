package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestOperatingSections: docs/operating.md has a section for each command, with
// an example of it, and none for a command that there is not.
func TestOperatingSections(t *testing.T) {
	text := documents(t)["../../docs/operating.md"]
	sections := map[string]string{}
	parts := regexp.MustCompile(`(?m)^##+ (.*)\n`).FindAllStringSubmatchIndex(text, -1)
	for i, at := range parts {
		end := len(text)
		if i+1 < len(parts) {
			end = parts[i+1][0]
		}
		if strings.HasPrefix(text[at[0]:], "### ") {
			sections[text[at[2]:at[3]]] = text[at[1]:end]
		}
	}
	commands := 0
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		name := strings.TrimPrefix(cmd.CommandPath(), "doveadm-proxy ")
		if cmd.Hidden || name == "help" || name == "completion" {
			return
		}
		if cmd.Runnable() && name != "ring" && name != "user" { // which only lead to others
			commands++
			section, ok := sections[name]
			switch {
			case !ok:
				t.Errorf("docs/operating.md has no section for %s", name)
			case !regexp.MustCompile("(?m)^(\\$ )?doveadm-proxy " + name + "( |$)").MatchString(section):
				t.Errorf("the section for %s has no example of it", name)
			}
			delete(sections, name)
		}
		for _, inner := range cmd.Commands() {
			walk(inner)
		}
	}
	walk(newRoot())
	for name := range sections {
		t.Errorf("docs/operating.md has a section for %s, which is no command", name)
	}
	if commands < 20 {
		t.Errorf("only %d commands found", commands)
	}
}
