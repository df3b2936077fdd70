package main

import (
	"fmt"
	"os"
	"strings"
)

// table is a table in Markdown.
type table struct {
	strings.Builder
}

func newTable(header ...string) *table {
	t := &table{}
	t.row(header...)
	t.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	return t
}

func (t *table) row(cells ...string) {
	t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// updated returns a document with texts between its markers, by their names:
//
//	<!-- benchmark results: begin -->
//	<!-- benchmark results: end -->
//
// and the same with "summary". One of the two is enough; it is an error if
// there is none.
func updated(path string, texts map[string]string) (string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	document, found := string(content), false
	for _, name := range []string{"results", "summary"} {
		begin := fmt.Sprintf("<!-- benchmark %s: begin -->\n", name)
		end := fmt.Sprintf("<!-- benchmark %s: end -->\n", name)
		before, rest, ok := strings.Cut(document, begin)
		if !ok {
			continue
		}
		_, after, ok := strings.Cut(rest, end)
		if !ok {
			return "", fmt.Errorf("%s: nothing says where the %s of the benchmark end: add the line %q", path, name, end)
		}
		document, found = before+begin+texts[name]+end+after, true
	}
	if !found {
		return "", fmt.Errorf(`%s has no place for results: add the lines "<!-- benchmark results: begin -->" and "<!-- benchmark results: end -->"`, path)
	}
	return document, nil
}
