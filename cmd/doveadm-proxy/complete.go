package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

// completeTime is how long a shell waits for the daemon at a press of Tab.
const completeTime = time.Second

// complete returns the completion of a name that the running daemon knows.
// Where it does not answer there is nothing to complete.
func (c *control) complete(names func(ctx context.Context, to *admin.Client) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		to, err := c.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTime)
		defer cancel()
		return names(ctx, to), cobra.ShellCompDirectiveNoFileComp
	}
}

func backendNames(ctx context.Context, to *admin.Client) (names []string) {
	if all, err := to.Backends(ctx); err == nil {
		for _, b := range all.Backends {
			names = append(names, clean(b.Name)+"\tof "+clean(b.Shard)+", "+b.Operator.String())
		}
	}
	return names
}

func shardNames(ctx context.Context, to *admin.Client) (names []string) {
	if all, err := to.Backends(ctx); err == nil {
		last := ""
		for _, b := range all.Backends {
			if b.Shard != last {
				names = append(names, clean(b.Shard))
			}
			last = b.Shard
		}
	}
	return names
}

func clientNames(ctx context.Context, to *admin.Client) (names []string) {
	if all, err := to.Clients(ctx); err == nil {
		for _, c := range all.Clients {
			names = append(names, clean(c.Name))
		}
	}
	return names
}
