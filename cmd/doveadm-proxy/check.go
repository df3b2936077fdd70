package main

import (
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
	var path string
	var asJSON, print bool
	cmd := &cobra.Command{
		Use:   "check --config FILE|DIR",
		Short: "Validate a configuration and print every problem with its line",
		Long: `Reads the configuration, the secrets and user maps it names, and prints every
problem that serve would stop at. Nothing is connected to. The exit code is 1
if there is an error; warnings do not count.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return check(cmd.OutOrStdout(), cmd.ErrOrStderr(), path, asJSON, print)
		},
	}
	configFlag(cmd, &path)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&print, "print", false, "print the configuration with all defaults, secrets masked")
	return cmd
}

func check(stdout, stderr io.Writer, path string, asJSON, print bool) error {
	cfg, diags := config.Load(path)
	problems := config.Problems(diags)
	if !diags.HasErrors() {
		for _, err := range flatten(proxy.Validate(cfg)) {
			problems = append(problems, config.Problem{Severity: "error", Summary: "Cannot be used", Detail: err.Error()})
		}
	}
	valid := !slices.ContainsFunc(problems, func(p config.Problem) bool { return p.Severity == "error" })
	var err error
	switch {
	case asJSON:
		err = writeJSON(stdout, map[string]any{"valid": valid, "problems": problems})
	case valid && print:
		writeProblems(stderr, diags, problems)
		err = config.Print(stdout, cfg)
	default:
		writeProblems(stderr, diags, problems)
		if valid {
			fmt.Fprintf(stdout, "%s: valid: %s\n", path, summary(cfg))
		}
	}
	if err == nil && !valid {
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
