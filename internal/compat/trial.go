package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// verdict on one trial.
type verdict int

const (
	equal       verdict = iota // the client sees the same either way
	explained                  // it sees exactly what the explanations say
	unexplained                // anything else
	verdicts
)

// trial is one case that one client runs directly and through the proxy.
type trial struct {
	client  client
	backend dovecot.Version
	cmd     *command // with its placeholders filled
	user    string
	before  string // state of the user's mail

	// directly runs another case without the proxy.
	directly func(c command) observation
}

// finding is what came out of a trial.
type finding struct {
	cell         cell
	title        string // of the case
	verdict      verdict
	explanations []explanationID // of those that change what is expected
	report       string          // of what is unexplained
}

// String tells of a difference.
func (f finding) String() string {
	by := ""
	for _, id := range f.explanations {
		by += fmt.Sprintf(" (explained by: %s)", id)
	}
	return fmt.Sprintf("%s on Dovecot %s: %s%s\n%s", f.cell.client, f.cell.backend, f.title, by, f.report)
}

// judge compares what a client has seen through the proxy with what it has
// seen without, changed as the explanations say.
func (t *trial) judge(explanations []*explanation, direct, proxied observation) finding {
	f := finding{cell: cell{t.client, t.backend}, title: t.cmd.title}
	want := direct
	for _, e := range explanations {
		if !e.covers(t, direct) {
			continue
		}
		changed := want
		changed.Logs = slices.Clone(want.Logs)
		e.apply(t, &changed)
		if !changed.equal(want) {
			f.explanations = append(f.explanations, e.id)
			want = changed
		}
	}
	switch {
	case !proxied.equal(want):
		f.verdict = unexplained
		f.report = difference(want, proxied)
	case len(f.explanations) > 0:
		f.verdict = explained
	}
	return f
}

// difference returns the lines in which two observations differ.
func difference(want, got observation) string {
	a, b := textLines(want.String()), textLines(got.String())
	var text strings.Builder
	write := func(mark string, lines, others []string) {
		for _, line := range lines {
			if slices.Contains(others, line) {
				continue
			}
			if len(line) > 1000 {
				line = line[:1000] + "..."
			}
			fmt.Fprintf(&text, "  %s %s\n", mark, line)
		}
	}
	write("-", a, b)
	write("+", b, a)
	if text.Len() == 0 {
		return "  the same lines, but not as often or in another order\n"
	}
	return text.String()
}
