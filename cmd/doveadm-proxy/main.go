// Command doveadm-proxy is one endpoint for the doveadm protocol of a whole
// Dovecot cluster.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// version is stamped into the binary by the Makefile.
var version = "unknown"

// The exit codes, those of sysexits where it has one.
const (
	exitOK       = 0
	exitNo       = 1  // the answer is no, or the input is bad
	exitUsage    = 2  // the command line is bad
	exitTempFail = 75 // EX_TEMPFAIL: not now
)

// exitError is an error with the code that the process ends with. An err of
// nil means that everything has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program but for the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		// Only cobra itself returns others: unknown commands and the like.
		exit = &exitError{exitUsage, err}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "doveadm-proxy: %v\n", exit.err)
	}
	if exit.code == exitUsage {
		fmt.Fprintln(stderr, "Try 'doveadm-proxy help'.")
	}
	return exit.code
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "doveadm-proxy",
		Short: "One endpoint for the doveadm protocol of a Dovecot cluster",
		Long: `doveadm-proxy accepts doveadm clients, routes each command by its mail user to
the right Dovecot backend over pooled connections, and relays the reply.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.AddCommand(newInit(), newImport(), newServe(), newCheck(), newRoute(), newRing(), newExplain(), newStatus(), newWhoAmI(), newBackends(), newPools(), newClients(), newSessions(), newCommands(),
		newTop(), newTail(), newTrace(), newDrain(), newResume(), newDown(), newPause(), newUnpause(), newReconnect(), newKill(),
		newReload(), newPlan(), newLogLevel(), newUser(),
		newHash(), newVersion(), newMan(root))
	return root
}

// configFlag adds --config, which is required, to a command.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration `FILE|DIR`: one HCL file, or a directory of *.hcl files")
	cmd.MarkFlagRequired("config")
	cmd.MarkFlagFilename("config", "hcl")
}

func jsonFlag(cmd *cobra.Command, on *bool) {
	cmd.Flags().BoolVar(on, "json", false, "print JSON")
}
