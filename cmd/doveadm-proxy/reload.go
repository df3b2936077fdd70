package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

func newReload() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "reload",
		Short: "Have the running daemon read its configuration again, and wait for it",
		Long: `Tells the running daemon to read its configuration again, waits, and prints each problem with
its file and line. All of it is taken over, or nothing: then the old configuration keeps serving.

The exit code is 1 if it was not taken over, and 75 if the daemon cannot be reached.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		r, err := to.Reload(ctx)
		if err != nil {
			return err
		}
		if c.json {
			err = writeJSON(w, r)
		} else {
			printDiagnostics(w, r.Problems)
			if r.OK {
				_, err = fmt.Fprintln(w, "reloaded")
			} else {
				_, err = fmt.Fprintf(w, "not reloaded, the old configuration keeps serving: %s\n", clean(r.Error))
			}
		}
		if err == nil && !r.OK {
			err = &exitError{code: exitNo}
		}
		return err
	})
}

func printDiagnostics(w io.Writer, problems []config.Problem) {
	for _, p := range problems {
		at := place(p)
		if at != "" {
			at += ": "
		}
		fmt.Fprintf(w, "%s%s: %s. %s\n", clean(at), p.Severity, clean(p.Summary), clean(p.Detail))
	}
}

func newPlan() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "plan",
		Short: "Print what a reload of the running daemon would change",
		Long: `Asks the running daemon to read its configuration and to compare it with the one that it
runs with. Nothing is changed.

The exit code is 1 if a reload would not take the configuration over, and 75 if the daemon cannot be
reached.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		p, err := to.Plan(ctx)
		if err != nil {
			return err
		}
		if c.json {
			err = writeJSON(w, p)
		} else {
			err = writePlan(w, p)
		}
		if err == nil && !p.OK {
			err = &exitError{code: exitNo}
		}
		return err
	})
}

func writePlan(w io.Writer, p *admin.Plan) error {
	printDiagnostics(w, p.Problems)
	if !p.OK {
		_, err := fmt.Fprintf(w, "a reload would be refused%s\n", clean(reasonOf(p.Error)))
		return err
	}
	if len(p.Changes) == 0 {
		_, err := fmt.Fprintf(w, "a reload would change nothing; %d pool(s) are kept\n", p.PoolsKept)
		return err
	}
	t := newTable("WHAT", "NAME", "CHANGE", "DETAIL")
	for _, c := range p.Changes {
		t.row(c.What, c.Name, c.How, c.Detail)
	}
	if err := t.text(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d pool(s) are kept\n", p.PoolsKept)
	return err
}

func reasonOf(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}
