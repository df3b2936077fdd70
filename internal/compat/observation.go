package main

import (
	"fmt"
	"slices"
	"strings"
)

// observation is what a client sees of one command, and what the command left
// behind.
type observation struct {
	Output string   // raw: the bytes of channel 0 up to the status; doveadm: its standard output
	Status string   // raw: the status line, empty if the connection ended without; doveadm: "exit N"
	Logs   []string // raw: the lines of the log channel; doveadm: those of its standard error
	State  string   // of the user's mail, after a command that may change it
}

func (o observation) equal(p observation) bool { return o.String() == p.String() }

// rows keeps what the doveadm program prints of a user's mail and its exit
// code. The rows are sorted: which user comes first depends on the moment.
func (o observation) rows() observation {
	// JSON has all of them in one line.
	lines := strings.Split(strings.ReplaceAll(strings.Trim(o.Output, "[]\n"), "},{", "}\n{"), "\n")
	slices.Sort(lines)
	return observation{Output: strings.Join(lines, "\n"), Status: o.Status}
}

func (o observation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "status %q\n", o.Status)
	for i, line := range o.Logs {
		fmt.Fprintf(&b, "log %d %q\n", i+1, line)
	}
	for n, line := range strings.SplitAfter(o.Output, "\n") {
		fmt.Fprintf(&b, "output %d %q\n", n+1, line)
	}
	for line := range strings.Lines(o.State) {
		fmt.Fprintf(&b, "state %s", line)
	}
	return b.String()
}
