package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

// printProblems prints what has gone wrong since the start, the last first.
func printProblems(w io.Writer, s *admin.Status) error {
	if !s.Reload.Ok {
		fmt.Fprintf(w, "reload   FAILED, the configuration of %s keeps serving: %s\n", s.Reload.Loaded.Local().Format(time.DateTime), clean(s.Reload.Error))
	}
	if len(s.Failures) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FAILURE\tCOUNT\tLAST\tOF")
	for _, f := range s.Failures {
		var of []string
		for _, field := range [][2]string{{"client", f.Client}, {"peer", f.Peer}, {"user", f.User}, {"command", f.Command}, {"backend", f.Backend}, {"status", f.Status}} {
			if field[1] != "" {
				of = append(of, field[0]+"="+clean(field[1]))
			}
		}
		if f.Reason != "" {
			of = append(of, clean(f.Reason))
		}
		fmt.Fprintf(t, "%s %s\t%d\t%s\t%s\n", f.Kind, f.What, f.Count, age(f.At), strings.Join(of, " "))
	}
	return t.Flush()
}
