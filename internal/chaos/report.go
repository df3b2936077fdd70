package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

// mostShown is how many violations are printed.
const mostShown = 20

func (r *result) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fault\ttimes\tcommands\tfailed\tended\tdoubled\twrong\tlost\tnoticed\trecovery\tmax\t")
	rows := append(slices.Clone(r.Rows), r.None, r.Total)
	for _, row := range rows {
		times, median, longest := "", "", ""
		if row.Times > 0 {
			times = fmt.Sprint(row.Times)
		}
		if n := len(row.Recovery); n > 0 {
			median, longest = milliseconds(row.Recovery[n/2]), milliseconds(row.Recovery[n-1])
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t\n", row.Fault, times, row.Commands, row.Failed, row.Ended,
			row.Violations[ledger.Doubled], row.Violations[ledger.Wrong], row.Violations[ledger.Lost], row.Violations[ledger.Noticed],
			median, longest)
	}
	w.Flush()
	text := leftAligned(b.String())
	b.Reset()
	b.WriteString(text)

	fmt.Fprintf(&b, "\nanswers:")
	for _, answer := range slices.Sorted(maps.Keys(r.Answers)) {
		fmt.Fprintf(&b, " %s %d,", answer, r.Answers[answer])
	}
	fmt.Fprintf(&b, "\nleft at the end: %d descriptors (%d before), %d goroutines, %d connections to backends; memory at most %d MiB of %d MiB\n",
		r.descriptors[1], r.descriptors[0], r.goroutines, r.connections, r.memory>>20, r.limit>>20)
	for _, p := range r.problems {
		fmt.Fprintf(&b, "PROBLEM %s\n", p)
	}
	for n, v := range r.Violations {
		if n == mostShown {
			fmt.Fprintf(&b, "... and %d more\n", len(r.Violations)-n)
			break
		}
		fmt.Fprintf(&b, "VIOLATION %s\n", v)
	}
	verdict := "the ledger balances: zero violations"
	if !r.ok() {
		verdict = fmt.Sprintf("FAILED: %d violations, %d problems", len(r.Violations), len(r.problems))
	}
	fmt.Fprintf(&b, "seed %d, %s: %s\n", r.seed, r.length, verdict)
	return b.String()
}

// leftAligned puts the first column, names of different length, to the left.
func leftAligned(table string) string {
	lines := strings.Split(strings.TrimRight(table, "\n"), "\n")
	width := 0
	cut := func(line string) (name, rest string) {
		trimmed := strings.TrimLeft(line, " ")
		i := strings.Index(trimmed, "  ")
		if i < 0 {
			return trimmed, ""
		}
		lead := len(line) - len(trimmed)
		return trimmed[:i], line[lead+i:]
	}
	for _, line := range lines {
		name, _ := cut(line)
		width = max(width, len(name))
	}
	for n, line := range lines {
		name, rest := cut(line)
		lines[n] = name + strings.Repeat(" ", width-len(name)) + rest
	}
	return strings.Join(lines, "\n") + "\n"
}

func milliseconds(d time.Duration) string { return d.Round(time.Millisecond).String() }
