package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

func newRoute() *cobra.Command {
	var path string
	var asJSON, stdin bool
	cmd := &cobra.Command{
		Use:   "route --config FILE|DIR {USER... | --stdin}",
		Short: "Print which shard and backend a user has, and by which route",
		Long: `Asks the routes of a configuration, without a running daemon, and prints the
decision, and the answer of each route that was asked. The backends stand in the
order in which the user gets them while all are well. The exit code is 1 if a
user has no route, and 75 if a route could not find out its answer.

With --stdin it reads users, one a line, by the million, and prints a line for
each in the same order: user, shard, first backend, route and reason, separated by
tabs (\t, \n, \r and \\ stand for those characters in a user). With --json each
line is an object.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 0) != stdin {
				return &exitError{exitUsage, fmt.Errorf("route: no USER given: name some, or read them with --stdin (not both)")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, users []string) error {
			cfg, err := load(cmd.ErrOrStderr(), path)
			if err != nil {
				return err
			}
			d, err := newDecider(cfg)
			var exit *exitError
			if errors.As(err, &exit) {
				return err
			}
			if err != nil {
				return &exitError{exitNo, err}
			}
			defer d.table.Close()
			if stdin {
				return d.routeLines(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), asJSON)
			}
			return d.route(cmd.Context(), cmd.OutOrStdout(), users, asJSON)
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&stdin, "stdin", false, "read users from standard input, one a line")
	cmd.AddCommand(newRouteDiff())
	return cmd
}

// decider asks the routes of a configuration.
type decider struct {
	names  *router.Names
	table  *router.Table
	shards map[string]config.Shard
}

func newDecider(cfg *config.Config) (*decider, error) {
	d := &decider{shards: make(map[string]config.Shard)}
	var shards []string
	for _, s := range cfg.Shards {
		shards = append(shards, s.Name)
		d.shards[s.Name] = s
	}
	var err error
	if d.names, err = router.NewNames(cfg.Router); err != nil {
		return nil, err
	}
	if d.table, err = router.New(d.names, cfg.Routes, shards); err != nil {
		return nil, err
	}
	if err := proxy.AddExceptions(context.Background(), d.table, cfg); err != nil {
		d.table.Close()
		return nil, &exitError{exitTempFail, err}
	}
	return d, nil
}

// routed is the answer for one user.
type routed struct {
	User     string      `json:"user"`
	Normal   string      `json:"normal_form"`
	Shard    string      `json:"shard"` // empty: none
	Backends []string    `json:"backends"`
	Route    string      `json:"route,omitempty"`
	Reason   string      `json:"reason"`
	Failed   bool        `json:"failed,omitempty"` // the answer could not be found out
	Asked    []routeStep `json:"asked,omitempty"`
}

// routeStep is the answer of one route that was asked.
type routeStep struct {
	Route  string  `json:"route"`
	Shard  string  `json:"shard"` // empty: it did not decide
	Reason string  `json:"reason,omitempty"`
	Error  string  `json:"error,omitempty"`
	Age    float64 `json:"age_seconds,omitempty"` // in a cache
}

// ask returns the decision about a user.
func (d *decider) ask(ctx context.Context, user string) routed {
	r := routed{User: user, Normal: d.names.User(user), Backends: []string{}}
	switch decision, err := d.table.Route(ctx, user); {
	case err == nil:
		r.Shard, r.Route, r.Reason = decision.Place(), decision.Route, decision.Reason
		if target := decision.Target; target != nil {
			if decision.Shard == "" {
				r.Backends = append(r.Backends, target.Address())
			}
			if target.User != "" {
				r.Reason += fmt.Sprintf(", as user %q there", target.User)
			}
		}
		for _, b := range d.backends(r.Shard, user) {
			r.Backends = append(r.Backends, b.Name+" ("+b.Address+")")
		}
	case errors.Is(err, router.ErrNoRoute):
		r.Reason = "no route names a shard for the user"
	default:
		r.Reason, r.Failed = err.Error(), true
	}
	return r
}

// backends returns those of a shard in the order in which a user gets them.
func (d *decider) backends(shard, user string) []config.Backend {
	if s := d.shards[shard]; len(s.Backends) > 1 {
		return proxy.Preference(s, d.names, user)
	}
	return d.shards[shard].Backends
}

func (d *decider) route(ctx context.Context, stdout io.Writer, users []string, asJSON bool) error {
	verdict := new(routeVerdict)
	var all []routed
	for _, user := range users {
		r := d.ask(ctx, user)
		verdict.add(r)
		for _, step := range d.table.Explain(ctx, user) {
			s := routeStep{Route: step.Route, Shard: step.Shard, Reason: step.Reason, Age: step.Age.Seconds()}
			if step.Err != nil {
				s.Error = step.Err.Error()
			}
			r.Asked = append(r.Asked, s)
		}
		all = append(all, r)
	}
	if asJSON {
		if err := writeJSON(stdout, all); err != nil {
			return err
		}
		return verdict.err()
	}
	for _, r := range all {
		r.print(stdout)
	}
	return verdict.err()
}

func (r routed) print(w io.Writer) {
	switch {
	case r.Failed:
		fmt.Fprintf(w, "%s: not known at the moment: %s\n", r.User, r.Reason)
	case r.Shard == "":
		fmt.Fprintf(w, "%s: no shard: %s\n", r.User, r.Reason)
	default:
		fmt.Fprintf(w, "%s: shard %s, backend %s: %s\n", r.User, r.Shard, strings.Join(r.Backends, ", "), r.Reason)
	}
	if r.Normal != r.User {
		fmt.Fprintf(w, "  routed as %s\n", r.Normal)
	}
	for _, step := range r.Asked {
		answer := "goes on to the next route"
		switch {
		case step.Error != "":
			answer = "failed: " + step.Error
		case step.Shard != "":
			answer = "says " + step.Shard
		}
		fmt.Fprintf(w, "  %s %s", step.Route, answer)
		if step.Reason != "" {
			fmt.Fprintf(w, ": %s", step.Reason)
		}
		if step.Age > 0 {
			fmt.Fprintf(w, " (%.0f s old, from the cache)", step.Age)
		}
		fmt.Fprintln(w)
	}
}

// routeLines answers for each line of users.
func (d *decider) routeLines(ctx context.Context, stdin io.Reader, stdout io.Writer, asJSON bool) error {
	verdict := new(routeVerdict)
	err := eachLine(ctx, stdin, stdout, func() func(context.Context, []byte, string) []byte {
		return func(ctx context.Context, dst []byte, user string) []byte {
			r := d.ask(ctx, user)
			verdict.add(r)
			if asJSON {
				line, err := json.Marshal(r)
				if err != nil {
					panic(err) // it is only text
				}
				return append(append(dst, line...), '\n')
			}
			backend := ""
			if len(r.Backends) > 0 {
				backend = r.Backends[0]
			}
			for i, column := range []string{r.User, r.Shard, backend, r.Route, r.Reason} {
				if i > 0 {
					dst = append(dst, '\t')
				}
				dst = appendColumn(dst, column)
			}
			return append(dst, '\n')
		}
	})
	if err != nil {
		return &exitError{exitNo, err}
	}
	return verdict.err()
}

// routeVerdict is the exit code for many users.
type routeVerdict struct{ missing, failed atomic.Bool }

func (v *routeVerdict) add(r routed) {
	switch {
	case r.Failed:
		v.failed.Store(true)
	case r.Shard == "":
		v.missing.Store(true)
	}
}

func (v *routeVerdict) err() error {
	switch {
	case v.failed.Load():
		return &exitError{code: exitTempFail}
	case v.missing.Load():
		return &exitError{code: exitNo}
	}
	return nil
}
