package config

//go:generate go test -run=^TestReference$ . -update

import (
	"fmt"
	"slices"
	"strings"
)

// Reference returns the description of the configuration in Markdown:
// docs/configuration.md of the source.
func Reference() string {
	var sb strings.Builder
	sb.WriteString(strings.TrimLeft(introduction, "\n"))
	root := newLoader(nil).root()
	sb.WriteString("\n## Blocks\n\n| block | how many | for |\n|---|---|---|\n")
	for _, b := range root.blocks {
		many := "at most one"
		if b.many {
			many = "any number"
		}
		first, _, _ := strings.Cut(b.doc, ". ")
		fmt.Fprintf(&sb, "| [`%s`](#%s) | %s | %s |\n", b.name, b.name, many, strings.TrimSuffix(first, "."))
	}
	seen := map[string]bool{}
	for _, b := range root.blocks {
		writeBlock(&sb, b, 2, seen)
	}
	return sb.String()
}

// writeBlock writes the section of a block and of those in it. Blocks that
// may stand in several others have one section, in the first.
func writeBlock(sb *strings.Builder, b block, level int, seen map[string]bool) {
	fmt.Fprintf(sb, "\n%s %s\n\n%s\n", strings.Repeat("#", level), b.title(), b.doc)
	if b.example != "" {
		fmt.Fprintf(sb, "\n```hcl\n%s\n```\n", strings.TrimSpace(b.example))
	}
	if len(b.attrs) > 0 {
		sb.WriteString("\n| attribute | takes | default | meaning |\n|---|---|---|---|\n")
		for _, a := range b.attrs {
			fmt.Fprintf(sb, "| `%s` | %s | %s | %s |\n", a.name, a.field.takes, a.otherwise(), a.meaning())
		}
	}
	if len(b.later) > 0 {
		fmt.Fprintf(sb, "\nNot supported by this version, and refused: %s.\n", list(quotedNames(b.later)))
	}
	for _, kind := range b.kinds {
		writeBlock(sb, kind, level+1, seen)
	}
	var links []string
	for _, inner := range b.blocks {
		links = append(links, fmt.Sprintf("[`%s`](#%s)", inner.name, strings.ReplaceAll(inner.title(), " ", "-")))
	}
	if len(links) > 0 {
		fmt.Fprintf(sb, "\nBlocks in it: %s.\n", list(links))
	}
	for _, inner := range b.blocks {
		if !seen[inner.title()] {
			seen[inner.title()] = true
			writeBlock(sb, inner, level+1, seen)
		}
	}
}

func quotedNames(all []later) []string {
	var names []string
	for _, l := range all {
		names = append(names, "`"+l.name+"`")
	}
	slices.Sort(names)
	return names
}

func (b block) title() string {
	switch {
	case b.kind != "":
		return b.header()
	case b.in != "":
		return b.name + " in " + b.in
	}
	return b.name
}

// otherwise says what holds without the attribute.
func (a attr) otherwise() string {
	switch {
	case a.required:
		return "required"
	case a.def == "":
		return ""
	}
	return "`" + a.def + "`"
}

func (a attr) meaning() string {
	if a.example == "" {
		return a.doc
	}
	return fmt.Sprintf("%s Example: `%s`", a.doc, a.example)
}
