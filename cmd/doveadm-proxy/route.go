package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

func newRoute() *cobra.Command {
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "route --config FILE|DIR USER...",
		Short: "Print which shard and backend a user has, and by which route",
		Long: `Asks the routes of a configuration, without a running daemon. The backends stand in
the order in which the user gets them while all are well. The exit code is 1
if a user has no route.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitUsage, fmt.Errorf("route: no USER given")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, users []string) error {
			cfg, err := load(cmd.ErrOrStderr(), path)
			if err != nil {
				return err
			}
			return route(cmd.OutOrStdout(), cfg, users, asJSON)
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// routed is the answer for one user.
type routed struct {
	User     string      `json:"user"`
	Shard    string      `json:"shard"` // empty: none
	Backends []string    `json:"backends"`
	Route    string      `json:"route,omitempty"`
	Reason   string      `json:"reason"`
	Asked    []routeStep `json:"asked"`
}

// routeStep is the answer of one route that was asked.
type routeStep struct {
	Route  string `json:"route"`
	Shard  string `json:"shard"` // empty: it did not decide
	Reason string `json:"reason,omitempty"`
}

func route(stdout io.Writer, cfg *config.Config, users []string, asJSON bool) error {
	byName := make(map[string]config.Shard)
	var shards []string
	for _, s := range cfg.Shards {
		shards = append(shards, s.Name)
		byName[s.Name] = s
	}
	names, err := router.NewNames(cfg.Router)
	if err != nil {
		return &exitError{exitNo, err}
	}
	table, err := router.New(names, cfg.Routes, shards)
	if err != nil {
		return &exitError{exitNo, err}
	}
	defer table.Close()
	ctx := context.Background()
	missing := false
	var all []routed
	for _, user := range users {
		r := routed{User: user, Reason: "no route names a shard for the user", Backends: []string{}}
		if d, err := table.Route(ctx, user); err == nil {
			r.Shard, r.Route, r.Reason = d.Shard, d.Route, d.Reason
			for _, b := range proxy.Preference(byName[d.Shard], names, user) {
				r.Backends = append(r.Backends, b.Name+" ("+b.Address+")")
			}
		} else {
			missing = true
		}
		for _, step := range table.Explain(ctx, user) {
			r.Asked = append(r.Asked, routeStep{Route: step.Route, Shard: step.Shard, Reason: step.Reason})
		}
		all = append(all, r)
	}
	if asJSON {
		if err := writeJSON(stdout, all); err != nil {
			return err
		}
	} else {
		for _, r := range all {
			if r.Shard == "" {
				fmt.Fprintf(stdout, "%s: no shard: %s\n", r.User, r.Reason)
				continue
			}
			fmt.Fprintf(stdout, "%s: shard %s, backend %s: %s\n", r.User, r.Shard, strings.Join(r.Backends, ", "), r.Reason)
		}
	}
	if missing {
		return &exitError{code: exitNo}
	}
	return nil
}
