package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// control is a command that talks to a running daemon.
type control struct {
	access admin.Access
	named  func() bool // --admin was given
	json   bool
	csv    bool
}

// command returns cmd with what such commands have in common, running run.
func (c *control) command(cmd *cobra.Command, run func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error) *cobra.Command {
	c.accessFlags(cmd)
	jsonFlag(cmd, &c.json)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := c.client()
		if err != nil {
			return &exitError{exitUsage, err}
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, client, cmd.OutOrStdout(), args)
		var refused *admin.RefusedError
		var exit *exitError
		switch {
		case err == nil || errors.As(err, &exit):
			return err
		case errors.As(err, &refused):
			return &exitError{exitNo, err}
		}
		return &exitError{exitTempFail, err}
	}
	return cmd
}

// table is command for one that prints a table: as CSV, too.
func (c *control) table(cmd *cobra.Command, ask func(ctx context.Context, to *admin.Client) (any, *table, error)) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd = c.command(cmd, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		v, t, err := ask(ctx, to)
		switch {
		case err != nil:
			return err
		case c.json:
			return writeJSON(w, v)
		case c.csv:
			return t.csv(w)
		}
		return t.text(w)
	})
	cmd.Flags().BoolVar(&c.csv, "csv", false, "print CSV")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
	return cmd
}

func newStatus() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "status",
		Short: "Print whether the running daemon accepts sessions, and what it has",
		Long: `Asks the running daemon. The exit code is 1 if it accepts no new sessions, and 75
if it cannot be reached.`,
		Args: cobra.NoArgs,
	}, c.status)
}

func (c *control) status(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
	s, err := to.Status(ctx)
	if err != nil {
		return err
	}
	if c.json {
		err = writeJSON(w, s)
	} else {
		ready := "accepts sessions"
		if !s.Ready {
			ready = "accepts no new sessions"
		}
		_, err = fmt.Fprintf(w, "doveadm-proxy %s, process %d, %s\nsince    %s (%s)\nconfig   %s\nsessions %d\nbackends %d, %d of them available\n",
			clean(s.Version), s.PID, ready, s.Started.Local().Format(time.DateTime), age(s.Started), clean(s.Config), s.Sessions, s.Backends, s.Available)
		if err == nil {
			err = printProblems(w, s)
		}
	}
	if err == nil && !s.Ready {
		err = &exitError{code: exitNo}
	}
	return err
}

func newWhoAmI() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "whoami",
		Short: "Print who you are to the running daemon, and with which role",
		Args:  cobra.NoArgs,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		self, err := to.WhoAmI(ctx)
		switch {
		case err != nil:
			return err
		case c.json:
			return writeJSON(w, self)
		}
		name := clean(self.Name)
		if name == "" {
			name = "nobody in particular"
		}
		_, err = fmt.Fprintf(w, "%s, role %s\n", name, self.Role)
		return err
	})
}

func newBackends() *cobra.Command {
	return new(control).table(&cobra.Command{
		Use:   "backends",
		Short: "Print the backends of the running daemon and their states",
		Long: `Asks the running daemon. The three states of a backend have nothing to do with
each other: OPERATOR is what an operator wants (active, draining, down; see drain,
resume and down), HEALTH what the health checks see (unknown, up, failing), BREAKER
what became of commands (closed, open, half-open). OPEN are the connections to it of
at most max_open, USED those that run a command, WAIT the commands that wait for one.
FAILED counts connections that could not be made or were lost in a command, and
health checks.`,
	}, func(ctx context.Context, to *admin.Client) (any, *table, error) {
		all, err := to.Backends(ctx)
		if err != nil {
			return nil, nil, err
		}
		return all, backendTable(all), nil
	})
}

func backendTable(all *admin.Backends) *table {
	t := newTable("SHARD", "BACKEND", "OPERATOR", "HEALTH", "BREAKER", "USED", "IDLE", "OPEN", "WAIT", "FAILED", "LAST ERROR")
	for _, b := range all.Backends {
		name := b.Name
		if b.Standby {
			name += " (standby)"
		}
		last := ""
		if b.LastError != "" {
			last = b.LastError
			if b.LastErrorAt != nil {
				last = age(*b.LastErrorAt) + ": " + last
			}
		}
		t.row(b.Shard, name, b.Operator, b.Health, b.Breaker, b.InUse, b.Idle, fmt.Sprintf("%d/%d", b.Open, b.MaxOpen), b.Waiting, b.Failures(), last)
	}
	return t
}

func newDrain() *cobra.Command {
	return newSet(pool.Draining, "drain NAME", "Let the commands on a backend end and send it no more",
		`Tells the running daemon to take a backend out of service: commands that run on it
end, those that wait for it and all to come go to the other backends of its shard, or
are answered with a temporary failure where there is none. It stays so, also over a
reload or restart, until "resume".`)
}

func newDown() *cobra.Command {
	return newSet(pool.Down, "down NAME", "Cut the commands on a backend and send it no more",
		`As "drain", but commands that run are cut off. Their clients get a temporary failure;
on the backend some of them may come to their end all the same.`)
}

func newResume() *cobra.Command {
	return newSet(pool.Active, "resume NAME", "Put a backend into service again after drain or down",
		`Tells the running daemon to use a backend again. Over the slow_start of its shard it
gets its users back. Health checks and breaker go on as they are.`)
}

// newSet is a command that says what an operator wants of a backend.
func newSet(state pool.Operator, use, short, long string) *cobra.Command {
	c := new(control)
	name, _, _ := strings.Cut(use, " ")
	shard := false
	cmd := c.command(&cobra.Command{
		Use:   use,
		Short: short,
		Long:  long + "\n\nThe exit code is 1 if there is no such backend or nothing could be changed, and 75\nif the daemon cannot be reached.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &exitError{exitUsage, fmt.Errorf("%s: say the name of one backend", name)}
			}
			return nil
		},
		ValidArgsFunction: c.complete(func(ctx context.Context, to *admin.Client) []string {
			if shard {
				return shardNames(ctx, to)
			}
			return backendNames(ctx, to)
		}),
	}, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		all := new(admin.Backends)
		if shard {
			var err error
			if all, err = to.SetShardState(ctx, args[0], state); err != nil {
				return err
			}
			if c.json {
				return writeJSON(w, all)
			}
		} else {
			b, err := to.SetState(ctx, args[0], state)
			if err != nil {
				return err
			}
			if c.json {
				return writeJSON(w, b)
			}
			all.Backends = []admin.Backend{*b}
		}
		for _, b := range all.Backends {
			if _, err := fmt.Fprintf(w, "%s: %s, %d command(s) run\n", clean(b.Name), b.Operator, b.InUse); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&shard, "shard", false, "NAME is a shard: do so for all of its backends")
	return cmd
}

// age is how long ago t was, for people.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return strconv.Itoa(max(int(d.Seconds()), 0)) + "s ago"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h ago"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d ago"
}

// clean makes text that others wrote fit for a terminal and a table.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
