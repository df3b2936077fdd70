package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

func newTail() *cobra.Command {
	c := new(control)
	var q struct{ client, user, command, shard, backend, outcome string }
	var failed bool
	var least time.Duration
	var count int
	cmd := c.command(&cobra.Command{
		Use:   "tail",
		Short: "Print the commands of the running daemon as they end",
		Long: `Asks the running daemon, until it is interrupted. All filters that are given have to match.
With --json each command is a JSON object on a line. A reader that is too slow loses commands, and
is told how many; the proxy never waits for it.

The exit code is 75 if the daemon cannot be reached, or goes away.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		query := url.Values{}
		for name, text := range map[string]string{"client": q.client, "user": q.user, "command": q.command, "shard": q.shard, "backend": q.backend, "outcome": q.outcome} {
			if text != "" {
				query.Set(name, text)
			}
		}
		if failed {
			query.Set("failed", "true")
		}
		if least > 0 {
			query.Set("min_duration", least.String())
		}
		left := count
		err := to.Tail(ctx, query, func(e *admin.Ended) error {
			switch {
			case e.Time == nil && e.Lost == 0:
				return nil
			case c.json:
				if err := writeLine(w, e); err != nil {
					return err
				}
			default:
				if _, err := fmt.Fprintln(w, eventLine(e)); err != nil {
					return err
				}
			}
			if e.Time != nil {
				if left--; left == 0 {
					return errEnough
				}
			}
			return nil
		})
		return streamEnd(ctx, err)
	})
	f := cmd.Flags()
	f.StringVar(&q.client, "client", "", "only commands of the `CLIENT`")
	f.StringVar(&q.user, "user", "", "only commands for users that match the `GLOB`")
	f.StringVar(&q.command, "command", "", "only commands whose name matches the `GLOB`")
	f.StringVar(&q.shard, "shard", "", "only commands of the `SHARD`")
	f.StringVar(&q.backend, "backend", "", "only commands that ended at the `BACKEND`")
	f.StringVar(&q.outcome, "outcome", "", "only commands with the `OUTCOME`, the word that the log has")
	f.BoolVar(&failed, "failed", false, "only commands that failed for no reason of the client or its user")
	f.DurationVar(&least, "min-duration", 0, "only commands that took at least this long")
	f.IntVarP(&count, "lines", "n", 0, "end after this `NUMBER` of commands")
	cmd.RegisterFlagCompletionFunc("client", c.complete(clientNames))
	cmd.RegisterFlagCompletionFunc("shard", c.complete(shardNames))
	cmd.RegisterFlagCompletionFunc("backend", c.complete(backendNames))
	return cmd
}

// errEnough ends a stream of which enough has been read.
var errEnough = errors.New("enough")

// streamEnd is the error of a command whose stream has ended.
func streamEnd(ctx context.Context, err error) error {
	var refused *admin.RefusedError
	switch {
	case errors.Is(err, errEnough), ctx.Err() != nil:
		return nil
	case errors.As(err, &refused):
		return err
	case err == nil:
		return &exitError{exitTempFail, errors.New("the daemon has closed its admin endpoint")}
	}
	return &exitError{exitTempFail, err}
}

// eventLine is a command that has ended, for people.
func eventLine(e *admin.Ended) string {
	if e.Time == nil {
		return fmt.Sprintf("... %d command(s) not shown: this reader was too slow", e.Lost)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s %s: %s", e.Time.Local().Format("15:04:05.000"), e.ID, clean(e.Client), orDash(clean(e.User)), clean(e.Command), e.Outcome)
	if e.Status != "" {
		fmt.Fprintf(&b, " %s", clean(e.Status))
	}
	if e.Backend != "" {
		fmt.Fprintf(&b, " %s", clean(e.Backend))
	} else if e.Shard != "" {
		fmt.Fprintf(&b, " (%s)", clean(e.Shard))
	}
	fmt.Fprintf(&b, " %sms", strconv.FormatFloat(e.DurationMS, 'f', 1, 64))
	if e.WaitMS >= 1 {
		fmt.Fprintf(&b, " (waited %s)", strconv.FormatFloat(e.WaitMS, 'f', 1, 64))
	}
	fmt.Fprintf(&b, " %s", bytesOf(uint64(e.Bytes)))
	if e.Retried {
		b.WriteString(" retried")
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, " - %s", clean(e.Reason))
	}
	return b.String()
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func newTrace() *cobra.Command {
	c := new(control)
	var client, user string
	var last time.Duration
	var size int64
	cmd := c.command(&cobra.Command{
		Use:   "trace {--client NAME | --user USER}",
		Short: "Print what goes over the wires of one client or user",
		Long: `Asks the running daemon. Commands that begin from now on are traced: the command line from
the client and to the backend, each line of the reply, what the proxy itself says, and the end. It
ends after --for or --max-bytes. Secrets are shown as ***. Of mails, scripts, and replies that are
for administrators only the size is shown; so it is with the input of a command. A tunnel is not
traced beyond its beginning.

This needs the role admin. The exit code is 75 if the daemon cannot be reached, or goes away.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		query := url.Values{"for": {last.String()}, "max_bytes": {strconv.FormatInt(size, 10)}}
		if client != "" {
			query.Set("client", client)
		}
		if user != "" {
			query.Set("user", user)
		}
		err := to.Trace(ctx, query, func(p *admin.Wire) error {
			if p.Time == nil && p.Lost == 0 && p.End == "" {
				return nil
			}
			var err error
			if c.json {
				err = writeLine(w, p)
			} else {
				_, err = fmt.Fprintln(w, wireLine(p))
			}
			if err == nil && p.End != "" {
				err = errEnough
			}
			return err
		})
		return streamEnd(ctx, err)
	})
	cmd.Flags().StringVar(&client, "client", "", "trace the commands of the `CLIENT`")
	cmd.Flags().StringVar(&user, "user", "", "trace the commands for the `USER`")
	cmd.Flags().DurationVar(&last, "for", time.Minute, "end after this time; an hour at most")
	cmd.Flags().Int64Var(&size, "max-bytes", 1<<20, "end after this `NUMBER` of bytes; 64 MiB at most")
	cmd.MarkFlagsOneRequired("client", "user")
	cmd.RegisterFlagCompletionFunc("client", c.complete(clientNames))
	return cmd
}

// wireLine is a piece of a trace for people.
func wireLine(p *admin.Wire) string {
	lost := ""
	if p.Lost > 0 {
		lost = fmt.Sprintf("... %d piece(s) not shown: this reader was too slow", p.Lost)
	}
	switch {
	case p.End != "":
		return strings.TrimSpace(lost + "\nend of the trace: " + clean(p.End))
	case p.Time == nil:
		return lost
	}
	way := p.Way
	if p.Backend != "" {
		way += " " + clean(p.Backend)
	}
	return fmt.Sprintf("%s %s %-13s %5d  %s", p.Time.Local().Format("15:04:05.000"), p.ID, way, p.Bytes, strings.Trim(strconv.Quote(p.Text), `"`))
}
