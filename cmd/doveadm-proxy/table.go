package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table is what is printed for people, and as CSV for scripts. What stands in
// it is plain: people get control characters of it as question marks.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

// row adds a row.
func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// text prints it for people.
func (t *table) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(t.head, "\t"))
	for _, row := range t.rows {
		shown := make([]string, len(row))
		for i, cell := range row {
			if shown[i] = clean(cell); cell == "" {
				shown[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(shown, "\t"))
	}
	return tw.Flush()
}

// csv prints it for scripts. The names of the columns are in lower case, with
// underscores.
func (t *table) csv(w io.Writer) error {
	cw := csv.NewWriter(w)
	head := make([]string, len(t.head))
	for i, name := range t.head {
		head[i] = strings.ReplaceAll(strings.ToLower(name), " ", "_")
	}
	cw.Write(head)
	cw.WriteAll(t.rows)
	return cw.Error()
}

// bytesOf is a number of bytes for people.
func bytesOf(n uint64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/step, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if f < step {
			break
		}
		f, unit = f/step, next
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
