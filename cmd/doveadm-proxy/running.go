package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

func newPools() *cobra.Command {
	return new(control).table(&cobra.Command{
		Use:   "pools",
		Short: "Print the connections to each backend and what became of them",
		Long: `Asks the running daemon. USED connections run a command, DIAL are being opened, WAIT
commands wait for one. Since the start, or the last change of the backend's block:
COMMANDS got a connection; of them those that WAITED, for WAIT MS on average; TIMED OUT
and QUEUE FULL got none. DIALS are new connections, DIAL MS what one takes, DIAL ERRORS
those that could not be made, LOST those that broke in a command.`,
	}, func(ctx context.Context, to *admin.Client) (any, *table, error) {
		all, err := to.Pools(ctx)
		if err != nil {
			return nil, nil, err
		}
		t := newTable("SHARD", "BACKEND", "USED", "IDLE", "DIAL", "MAX", "WAIT", "COMMANDS", "WAITED", "WAIT MS", "TIMED OUT", "QUEUE FULL", "DIALS", "DIAL MS", "DIAL ERRORS", "LOST")
		for _, p := range all.Pools {
			t.row(p.Shard, p.Backend, p.InUse, p.Idle, p.Dialing, p.MaxOpen, p.Waiting, p.Commands, p.Waits, average(p.WaitMS, p.Waits),
				p.TimedOut, p.QueueFull, p.Dials, average(p.DialMS, p.Dials-min(p.Dials, p.DialErrors)), p.DialErrors, p.Closed["lost"])
		}
		return all, t, nil
	})
}

// average is a time of each of n, in milliseconds.
func average(all float64, n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatFloat(all/float64(n), 'f', 1, 64)
}

func newClients() *cobra.Command {
	return new(control).table(&cobra.Command{
		Use:   "clients",
		Short: "Print the clients of the running daemon, with what they have and did",
		Long: `Asks the running daemon. SESSIONS and RUNNING commands are those of now, with the limit
behind the slash where the client has one. COMMANDS, FAILED and BYTES (of replies) are since the
start; FAILED are those that failed for no reason of the client or its user.`,
	}, func(ctx context.Context, to *admin.Client) (any, *table, error) {
		all, err := to.Clients(ctx)
		if err != nil {
			return nil, nil, err
		}
		t := newTable("CLIENT", "PRIORITY", "SESSIONS", "RUNNING", "COMMANDS", "FAILED", "BYTES")
		for _, c := range all.Clients {
			t.row(c.Name, c.Priority, ofLimit(c.Sessions, c.MaxSessions), ofLimit(c.Running, c.MaxCommands), c.Commands, c.Failed, c.Bytes)
		}
		return all, t, nil
	})
}

func ofLimit(n, limit int) string {
	if limit == 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d/%d", n, limit)
}

func newSessions() *cobra.Command {
	return new(control).table(&cobra.Command{
		Use:   "sessions",
		Short: "Print the connections of clients to the running daemon",
		Long: `Asks the running daemon. STATE is handshake (not logged in yet), idle, busy, or ending.
COMMANDS are those so far, RUNNING those of now. The ID is the one in the log, and what kill takes.`,
	}, func(ctx context.Context, to *admin.Client) (any, *table, error) {
		all, err := to.Sessions(ctx)
		if err != nil {
			return nil, nil, err
		}
		t := newTable("ID", "CLIENT", "PEER", "LISTENER", "TLS", "VERSION", "SINCE", "STATE", "COMMANDS", "RUNNING")
		for _, s := range all.Sessions {
			tls := "no"
			if s.TLS {
				tls = "yes"
			}
			state := s.State
			if s.IdleSince != nil {
				state += " " + lasted(*s.IdleSince)
			}
			t.row(s.ID, s.Client, s.Peer, s.Listener, tls, s.Version, lasted(s.Since), state, s.Commands, len(s.Running))
		}
		return all, t, nil
	})
}

func newCommands() *cobra.Command {
	return new(control).table(&cobra.Command{
		Use:   "commands",
		Short: "Print what runs now on the running daemon: since when, for whom, where",
		Long: `Asks the running daemon. The oldest command comes first. PHASE is begins; held (by a
pause); waiting (for a route, its turn or a connection); running (on the backend); or reply (the
backend is done, the client takes the reply). The ID is what kill takes.`,
	}, func(ctx context.Context, to *admin.Client) (any, *table, error) {
		all, err := to.Commands(ctx)
		if err != nil {
			return nil, nil, err
		}
		return all, commandTable(all), nil
	})
}

func commandTable(all *admin.Commands) *table {
	t := newTable("ID", "SINCE", "PHASE", "CLIENT", "USER", "COMMAND", "SHARD", "BACKEND", "PEER")
	for _, c := range all.Commands {
		t.row(c.ID, lasted(c.Since), c.Phase, c.Client, c.User, c.Command, c.Shard, c.Backend, c.Peer)
	}
	return t
}

// lasted is how long something has been going on, for people.
func lasted(t time.Time) string {
	d := max(time.Since(t), 0)
	if d < 10*time.Second {
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	}
	return strings.TrimSuffix(age(t), " ago")
}

func newKill() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "kill SESSION|SESSION.NUMBER",
		Short: "End a session or a command of the running daemon",
		Long: `With the ID of a command, as commands and tail print it (17.3), ends that command: its
connection to the backend is closed, its client gets a temporary failure with a log line that says
so, and its session goes on. With the ID of a session (17) ends all of its commands, tells the
client and closes the connection.

A backend notices the end of a connection when it next writes to it: a command may come to its end
there all the same.

The exit code is 1 if there is no such session or command, and 75 if the daemon cannot be reached.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &exitError{exitUsage, errors.New("kill: say the ID of one session or command")}
			}
			return nil
		},
		ValidArgsFunction: c.complete(func(ctx context.Context, to *admin.Client) (ids []string) {
			if all, err := to.Sessions(ctx); err == nil {
				for _, s := range all.Sessions {
					ids = append(ids, fmt.Sprintf("%d\t%s %s", s.ID, clean(s.Client), s.State))
					for _, r := range s.Running {
						ids = append(ids, fmt.Sprintf("%s\t%s %s %s", r.ID, clean(r.User), clean(r.Command), r.Phase))
					}
				}
			}
			return ids
		}),
	}, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		first, second, command := strings.Cut(args[0], ".")
		session, err := strconv.ParseUint(first, 10, 64)
		var number uint64
		if err == nil && command {
			number, err = strconv.ParseUint(second, 10, 64)
		}
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("kill: %q is no ID: write 17 for a session, 17.3 for a command", args[0])}
		}
		if command {
			return c.done(w)(to.KillCommand(ctx, session, number))
		}
		return c.done(w)(to.KillSession(ctx, session))
	})
}

// done prints what has been done.
func (c *control) done(w io.Writer) func(*admin.Done, error) error {
	return func(d *admin.Done, err error) error {
		if err != nil {
			return err
		}
		if c.json {
			return writeJSON(w, d)
		}
		_, err = fmt.Fprintln(w, clean(d.Done))
		return err
	}
}

func newReconnect() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "reconnect BACKEND",
		Short: "Replace the connections to a backend",
		Long: `Tells the running daemon to close its idle connections to a backend now, and the others when
the command that they run has ended. New ones are opened as they are needed. No command fails of it.
A connection keeps the backend's configuration of the time when it was opened: this is for after a
change there.

The exit code is 1 if there is no such backend, and 75 if the daemon cannot be reached.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return &exitError{exitUsage, errors.New("reconnect: say the name of one backend")}
			}
			return nil
		},
		ValidArgsFunction: c.complete(backendNames),
	}, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		return c.done(w)(to.Reconnect(ctx, args[0]))
	})
}

// scopeFlags say what a pause is for.
func (c *control) scopeFlags(cmd *cobra.Command, scope *admin.Scope, all *bool) {
	cmd.Flags().StringVar(&scope.Backend, "backend", "", "commands for the `BACKEND`")
	cmd.Flags().StringVar(&scope.Shard, "shard", "", "commands for the `SHARD`")
	cmd.Flags().BoolVar(all, "all", false, "all commands")
	cmd.MarkFlagsMutuallyExclusive("backend", "shard", "all")
	cmd.MarkFlagsOneRequired("backend", "shard", "all")
	cmd.RegisterFlagCompletionFunc("backend", c.complete(backendNames))
	cmd.RegisterFlagCompletionFunc("shard", c.complete(shardNames))
}

func newPause() *cobra.Command {
	c := new(control)
	var req admin.PauseRequest
	var all, wait bool
	var how struct{ hold, last time.Duration }
	cmd := c.command(&cobra.Command{
		Use:   "pause {--backend NAME | --shard NAME | --all}",
		Short: "Hold new commands for a backend, a shard, or all",
		Long: `Tells the running daemon to hold new commands: what runs goes on, what comes waits until
"unpause", and clients see nothing but a delay. For a short work on a backend that needs silence.

A pause is bounded. It ends by itself after --for. A command that was held for --hold, and one that
comes while --max-waiting are held, gets a temporary failure with a log line that says it was paused.
A pause does not outlive the process. Without --wait it returns at once; with it, when nothing runs
any more on what is paused.

The exit code is 1 if there is no such backend or shard, or if commands still ran at the end of the
pause, and 75 if the daemon cannot be reached.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		req.For, req.Hold = admin.Duration(how.last), admin.Duration(how.hold)
		until := time.Now().Add(how.last)
		if err := c.done(w)(to.Pause(ctx, &req)); err != nil || !wait {
			return err
		}
		return waitUntilQuiet(ctx, to, w, req.Scope, until)
	})
	c.scopeFlags(cmd, &req.Scope, &all)
	cmd.Flags().DurationVar(&how.last, "for", 5*time.Minute, "then it ends by itself; an hour at most")
	cmd.Flags().DurationVar(&how.hold, "hold", 0, "hold one command no longer than this (30s, or --for if that is less)")
	cmd.Flags().IntVar(&req.MaxWaiting, "max-waiting", 1000, "hold no more commands at the same time than this `NUMBER`")
	cmd.Flags().BoolVar(&wait, "wait", false, "return when nothing runs any more on what is paused")
	return cmd
}

// waitUntilQuiet returns when no command runs within a scope.
func waitUntilQuiet(ctx context.Context, to *admin.Client, w io.Writer, scope admin.Scope, until time.Time) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := to.Commands(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, cmd := range all.Commands {
			if cmd.Phase == "running" && (scope.Backend == "" || scope.Backend == cmd.Backend) && (scope.Shard == "" || scope.Shard == cmd.Shard) {
				n++
			}
		}
		if n == 0 {
			_, err := fmt.Fprintln(w, "nothing runs there any more")
			return err
		}
		if time.Now().After(until) {
			return &exitError{exitNo, fmt.Errorf("%d command(s) still run, and the pause is over", n)}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &exitError{exitNo, errors.New("interrupted; the pause goes on")}
		}
	}
}

func newUnpause() *cobra.Command {
	c := new(control)
	var scope admin.Scope
	var all bool
	cmd := c.command(&cobra.Command{
		Use:   "unpause {--backend NAME | --shard NAME | --all}",
		Short: "Let the commands go on that pause holds",
		Long: `Tells the running daemon to end a pause: that of the same backend, the same shard, or of all.
--all does not end the pauses of single backends and shards.

The exit code is 1 if there is no such pause, and 75 if the daemon cannot be reached.`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		return c.done(w)(to.Unpause(ctx, scope))
	})
	c.scopeFlags(cmd, &scope, &all)
	return cmd
}
