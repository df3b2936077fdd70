package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func newCheck() *cobra.Command {
	var path, simulation string
	var asJSON, print, connecting bool
	cmd := &cobra.Command{
		Use:   "check --config FILE|DIR",
		Short: "Validate a configuration and print every problem with its line",
		Long: `Reads the configuration, the secrets and user maps it names, and prints every
problem that serve would stop at. The exit code is 1 if there is an error;
warnings do not count. Nothing is connected to, except with --connect.

With --connect it also logs in to each backend, says how long that took and what
was found there, and compares pool.max_open with the backend's process_limit. The
exit code is 1 if a backend refuses (a wrong password, a bad certificate), else 75
if one cannot be reached at the moment.

With --simulate it compares what the rights and routes say with a table of
expectations and prints what is different, with exit code 1. Each line is

  allow|allow@SHARD|deny|nouser CLIENT FROM USER COMMAND ARGS...

where FROM is an address, or unix for a UNIX socket. Double quotes make one word
of several, "" is an empty one, # begins a comment.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if simulation != "" {
				cfg, err := load(cmd.ErrOrStderr(), path)
				if err != nil {
					return err
				}
				return simulate(cmd.OutOrStdout(), cfg, simulation)
			}
			return check(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), path, asJSON, print, connecting)
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&print, "print", false, "print the configuration with all defaults, secrets masked")
	cmd.Flags().BoolVar(&connecting, "connect", false, "log in to each backend and print what was found")
	cmd.Flags().StringVar(&simulation, "simulate", "", "compare rights and routes with the expectations in `FILE`")
	cmd.MarkFlagFilename("simulate")
	cmd.MarkFlagsMutuallyExclusive("connect", "print", "simulate")
	cmd.MarkFlagsMutuallyExclusive("json", "simulate")
	return cmd
}

func check(ctx context.Context, stdout, stderr io.Writer, path string, asJSON, print, connecting bool) error {
	cfg, diags := config.Load(path)
	problems := config.Problems(diags)
	if !diags.HasErrors() {
		for _, err := range flatten(proxy.Validate(cfg)) {
			problems = append(problems, config.Problem{Severity: "error", Summary: "Cannot be used", Detail: err.Error()})
		}
	}
	valid := !slices.ContainsFunc(problems, func(p config.Problem) bool { return p.Severity == "error" })
	var backends []connected
	if valid && connecting {
		backends = connect(ctx, cfg)
	}
	var err error
	switch {
	case asJSON:
		found := map[string]any{"valid": valid, "problems": problems}
		if connecting {
			found["backends"] = append([]connected{}, backends...)
		}
		err = writeJSON(stdout, found)
	case valid && print:
		writeProblems(stderr, diags, problems)
		err = config.Print(stdout, cfg)
	default:
		writeProblems(stderr, diags, problems)
		if valid {
			fmt.Fprintf(stdout, "%s: valid: %s\n", path, summary(cfg))
		}
		if valid && connecting {
			err = writeConnected(stdout, backends)
		}
	}
	if err == nil {
		err = verdict(backends)
	}
	if !valid {
		err = &exitError{code: exitNo}
	}
	return err
}

// writeProblems prints the diagnostics with their lines, then the problems
// that are not about a line.
func writeProblems(w io.Writer, diags hcl.Diagnostics, problems []config.Problem) {
	config.WriteDiagnostics(w, diags, false)
	for _, p := range problems[len(diags):] {
		fmt.Fprintf(w, "Error: %s\n\n%s\n\n", p.Summary, p.Detail)
	}
	count := map[string]int{}
	for _, p := range problems {
		count[p.Severity]++
	}
	if len(problems) > 0 {
		fmt.Fprintf(w, "%d error(s), %d warning(s)\n", count["error"], count["warning"])
	}
}

func summary(cfg *config.Config) string {
	backends := 0
	for _, s := range cfg.Shards {
		backends += len(s.Backends)
	}
	return fmt.Sprintf("%d listener(s), %d client(s), %d shard(s) with %d backend(s), %d route(s)",
		len(cfg.Listeners), len(cfg.Clients), len(cfg.Shards), backends, len(cfg.Routes))
}

// flatten returns the errors that were joined into err.
func flatten(err error) []error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// load returns the configuration, or an exitError after having printed what is
// wrong with it.
func load(stderr io.Writer, path string) (*config.Config, error) {
	cfg, diags := config.Load(path)
	if len(diags) > 0 {
		config.WriteDiagnostics(stderr, diags, false)
	}
	if diags.HasErrors() {
		return nil, &exitError{code: exitNo, err: fmt.Errorf("%s is not a valid configuration", path)}
	}
	return cfg, nil
}
