// Package markdown writes tables, and puts what programs have found into
// documents that people write.
package markdown

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// Table is a table in Markdown. Its String is complete after each row.
type Table struct {
	strings.Builder
}

// NewTable returns a table without rows.
func NewTable(header ...string) *Table {
	t := &Table{}
	t.Row(header...)
	t.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	return t
}

// Row adds a row. What would end a cell is escaped.
func (t *Table) Row(cells ...string) {
	t.WriteString("|")
	for _, c := range cells {
		t.WriteString(" " + strings.ReplaceAll(c, "|", `\|`) + " |")
	}
	t.WriteString("\n")
}

// Filled returns the document of a path with texts between markers, which have
// the names of the blocks:
//
//	<!-- NAME: begin -->
//	<!-- NAME: end -->
//
// A document need not have a place for every block; it is an error if it has
// none for any, or one without an end.
func Filled(path string, blocks map[string]string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	document, found := string(content), false
	names := slices.Sorted(maps.Keys(blocks))
	for _, name := range names {
		begin, end := marker(name, "begin"), marker(name, "end")
		before, rest, ok := strings.Cut(document, begin)
		if !ok {
			continue
		}
		_, after, ok := strings.Cut(rest, end)
		if !ok {
			return "", fmt.Errorf("%s: nothing says where the %s end: add the line %q", path, name, end)
		}
		document, found = before+begin+blocks[name]+end+after, true
	}
	if !found {
		return "", fmt.Errorf("%s has no place for any of %q: add the lines %q and %q", path, names, marker(names[0], "begin"), marker(names[0], "end"))
	}
	return document, nil
}

// Fill writes what Filled returns into the document.
func Fill(path string, blocks map[string]string) error {
	text, err := Filled(path, blocks)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func marker(name, what string) string { return fmt.Sprintf("<!-- %s: %s -->\n", name, what) }
