package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

func newUser() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Move users between shards, and see where they are",
		Long: `Users who were moved are exceptions: they are asked for before all routes. They
stand in the database of the moves block. docs/moving-users.md has more.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &exitError{exitUsage, fmt.Errorf("user: unknown command %q: use show, refresh, list, move, migrate or forget", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserMove(false), newUserMove(true), newUserForget(), newUserShow(), newUserRefresh(), newUserList())
	return cmd
}

// exactly refuses another number of arguments.
func exactly(n int, need string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return &exitError{exitUsage, fmt.Errorf("user %s: say %s", cmd.Name(), need)}
		}
		return nil
	}
}

const moveCodes = `

The exit code is 1 if it cannot be done at all, and 75 if it was rolled back, or the
daemon cannot be reached. When this command is interrupted, the move is rolled back.`

func newUserMove(migrate bool) *cobra.Command {
	c := new(control)
	var maxHold time.Duration
	cmd := &cobra.Command{
		Use:   "move USER SHARD",
		Short: "Move a user to another shard; the mail is already there",
		Long: `New commands of the user wait, on all proxies, until those that run have ended;
then they go to the other shard. No mail is copied: see "user migrate".` + moveCodes,
		Args: exactly(2, "the user and the shard"),
	}
	if migrate {
		cmd.Use, cmd.Short = "migrate USER SHARD", "Copy a user's mail to another shard, and move the user"
		cmd.Long = `Has the backend of the user copy the mail to that of the other shard (doveadm
backup), in passes while commands go on. The last pass is made while new commands of
the user wait; then the mailboxes of both sides are compared, and if all are equal
commands go to the other shard. WHAT THE OTHER SHARD HAD OF THE USER IS REPLACED. The
old copy stays where it is. What does not come through the proxy (IMAP, LMTP) does
not wait: see docs/moving-users.md.` + moveCodes
	}
	cmd.Flags().DurationVar(&maxHold, "max-hold", 0, "roll back if commands would have to wait for longer than `TIME` (max_hold of the moves block if not given)")
	return c.command(cmd, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		return c.move(ctx, to, w, args[0], admin.MoveRequest{Shard: args[1], Copy: migrate, MaxHoldMS: maxHold.Milliseconds()})
	})
}

func newUserForget() *cobra.Command {
	c := new(control)
	var maxHold time.Duration
	cmd := &cobra.Command{
		Use:     "forget USER",
		Aliases: []string{"unmove"},
		Short:   "Move a user back to where the routes say, and drop the exception",
		Long: `As "user move" to the shard that the routes say, after which there is no exception
any more. No mail is copied: to bring it back, "user migrate" the user there first.` + moveCodes,
		Args: exactly(1, "the user"),
	}
	cmd.Flags().DurationVar(&maxHold, "max-hold", 0, "roll back if commands would have to wait for longer than `TIME` (max_hold of the moves block if not given)")
	return c.command(cmd, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		return c.move(ctx, to, w, args[0], admin.MoveRequest{MaxHoldMS: maxHold.Milliseconds()})
	})
}

// move prints each step as it is made.
func (c *control) move(ctx context.Context, to *admin.Client, w io.Writer, user string, req admin.MoveRequest) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ended := false
	err := to.Move(ctx, user, req, func(line admin.MoveStep) error {
		switch {
		case line.Error != "":
			ended = true
			if c.json {
				writeLine(w, line)
			}
			return &exitError{exitTempFail, errors.New(line.Error)}
		case c.json:
			ended = ended || line.Result != nil
			return writeLine(w, line)
		case line.Result != nil:
			ended = true
			_, err := fmt.Fprintf(w, "%s: moved in %.3f s, new commands had to wait for %.3f s of it\n", clean(user), line.Result.TotalMS/1000, line.Result.HeldMS/1000)
			return err
		}
		text := line.Step
		if line.Detail != "" {
			text += ": " + clean(line.Detail)
		}
		_, err := fmt.Fprintln(w, text)
		return err
	})
	var refused *admin.RefusedError
	switch {
	case err == nil && !ended:
		return errors.New("the daemon ended before the move did: it is rolled back, or will be in a few seconds (see \"user show\")")
	case errors.As(err, &refused) && refused.Code == http.StatusServiceUnavailable:
		return &exitError{exitTempFail, err}
	}
	return err
}

func newUserShow() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "show USER",
		Short: "Print where a user is, by which route, and whether a move is under way",
		Long:  "Asks the running daemon. The exit code is 1 if no shard has the user, and 75 if it is\nnot known, or the daemon cannot be reached.",
		Args:  exactly(1, "the user"),
	}, c.showUser)
}

func newUserRefresh() *cobra.Command {
	c := new(control)
	var all bool
	cmd := &cobra.Command{
		Use:   "refresh USER | --all",
		Short: "Have the lookups asked anew about a user, where a database or directory has changed",
		Long: `The running daemon forgets what its routes of the kinds sql, ldap and http answered
about the user, asks them, and prints the same as "user show". With --all it forgets
what they answered about everybody, and asks about each with the next command. Each
proxy has its own memory: say it to all of them. The exit codes are those of
"user show".`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || all == (len(args) == 1) {
				return &exitError{exitUsage, errors.New("user refresh: say the user, or --all")}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "ask about all users")
	return c.command(cmd, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		if all {
			return to.RefreshLookups(ctx)
		}
		u, err := to.RefreshUser(ctx, args[0])
		if err != nil {
			return err
		}
		return c.printUser(w, u)
	})
}

func (c *control) showUser(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
	u, err := to.User(ctx, args[0])
	if err != nil {
		return err
	}
	return c.printUser(w, u)
}

// printUser prints u. What it returns is the exit code.
func (c *control) printUser(w io.Writer, u *admin.User) error {
	var err error
	if c.json {
		err = writeJSON(w, u)
	} else {
		err = userTable(w, u)
	}
	switch {
	case err != nil:
		return err
	case u.Error != "":
		return &exitError{code: exitTempFail}
	case u.Shard == "":
		return &exitError{code: exitNo}
	}
	return nil
}

func userTable(w io.Writer, u *admin.User) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	line("user", "%s", u.User)
	switch {
	case u.Error != "":
		line("shard", "not known: %s", u.Error)
	case u.Shard == "":
		line("shard", "none: no route names one")
	default:
		line("shard", "%s, by route %s: %s", u.Shard, u.Route, u.Reason)
		line("backends", "%s", strings.Join(u.Backends, ", "))
	}
	for _, a := range u.Asked {
		said := a.Reason
		if a.Error != "" {
			said = a.Error
		}
		line("asked", "%s: %s", a.Route, said)
	}
	if e := u.Moved; e != nil {
		line("exception", "%s since %s (%s), before %s", e.Shard, e.Since.Local().Format(time.DateTime), age(e.Since), e.From)
		if u.Home != "" {
			line("without it", "%s, by route %s", u.Home, u.HomeBy)
		} else {
			line("without it", "no shard")
		}
	} else {
		line("exception", "none")
	}
	if m := u.Move; m != nil {
		line("move", "%s to %s by %s, since %s: %s", m.ID, m.To, m.By, m.Since.Local().Format(time.DateTime), m.Phase)
	}
	line("commands", "%d run on this proxy, %d wait for the end of a move", u.Running, u.Waiting)
	return t.Flush()
}

func newUserList() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "list",
		Short: "Print the users who were moved, one a line",
		Long:  "Asks the running daemon. The columns are user, shard, since when, and the shard before,\nwith tabs between them. With --json each line is an object.",
		Args:  exactly(0, "nothing else"),
	}, func(ctx context.Context, to *admin.Client, w io.Writer, _ []string) error {
		return to.MovedUsers(ctx, func(u admin.MovedUser) error {
			if c.json {
				return writeLine(w, u)
			}
			_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", clean(u.User), clean(u.Shard), u.Since.UTC().Format(time.RFC3339), clean(u.From))
			return err
		})
	})
}
