package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
)

// logLevels are what log-level takes, the one with the most lines first.
var logLevels = []string{"trace", "debug", "info", "warn", "error"}

// levelDefault is log-level's word for a component that has no level of its own.
const levelDefault = "default"

func newLogLevel() *cobra.Command {
	c := new(control)
	return c.command(&cobra.Command{
		Use:   "log-level [[COMPONENT] LEVEL]",
		Short: "Print or change the level of the running daemon's log",
		Long: `Without arguments asks the running daemon for the level of its log and of each component. With
a LEVEL (trace, debug, info, warn, error) sets it for all components that have none of their own;
with a COMPONENT before it for that one alone. The LEVEL "default" takes a component's own level
away again.

A level counts until the end of the process; level in the log block of the configuration is for
good.

The exit code is 1 if there is no such component or level, and 75 if the daemon cannot be reached.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 2 {
				return &exitError{exitUsage, errors.New("log-level: say a level, or a component and its level")}
			}
			return nil
		},
		ValidArgsFunction: c.completeLevel,
	}, func(ctx context.Context, to *admin.Client, w io.Writer, args []string) error {
		var l *logs.Levels
		var err error
		switch len(args) {
		case 0:
			l, err = to.LogLevels(ctx)
		case 1:
			l, err = to.SetLogLevel(ctx, "", args[0])
		default:
			level := args[1]
			if level == levelDefault {
				level = ""
			}
			l, err = to.SetLogLevel(ctx, args[0], level)
		}
		switch {
		case err != nil:
			return err
		case c.json:
			return writeJSON(w, l)
		}
		return writeLevels(w, l)
	})
}

func writeLevels(w io.Writer, l *logs.Levels) error {
	t := newTable("COMPONENT", "LEVEL", "ITS OWN")
	t.row("(all others)", l.Level, "")
	for _, name := range slices.Sorted(maps.Keys(l.Components)) {
		own := "no"
		if slices.Contains(l.Own, name) {
			own = "yes"
		}
		t.row(name, l.Components[name], own)
	}
	return t.text(w)
}

// completeLevel completes the components that the daemon has, and levels.
func (c *control) completeLevel(cmd *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		names, directive := c.complete(func(ctx context.Context, to *admin.Client) (names []string) {
			if l, err := to.LogLevels(ctx); err == nil {
				for _, name := range slices.Sorted(maps.Keys(l.Components)) {
					names = append(names, fmt.Sprintf("%s\tcomponent, %s", clean(name), l.Components[name]))
				}
			}
			return names
		})(cmd, args, text)
		return append(names, logLevels...), directive
	case 1:
		if slices.Contains(logLevels, args[0]) {
			break // that was all
		}
		return append(slices.Clone(logLevels), levelDefault), cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
