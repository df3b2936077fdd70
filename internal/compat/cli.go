package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// cliClient is the doveadm program of one version. Each case is a process of
// its own, as with all who use it.
type cliClient struct {
	version dovecot.Version
	config  string
	addr    string
}

func (cl *cliClient) run(ctx context.Context, c *command, user string) (observation, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	client := dovecot.Client{Version: cl.version, Addr: cl.addr, Password: password, Config: cl.config, Options: c.globalOptions()}
	cmd, err := client.Command(ctx, c.name, c.cliArgs(user)...)
	if err != nil {
		return observation{}, err
	}
	cmd.Stdin = bytes.NewReader(c.input)
	result, err := dovecot.Run(ctx, cmd)
	if err != nil {
		return observation{}, err
	}
	return observation{
		Output: result.Stdout,
		Status: fmt.Sprintf("exit %d", result.ExitCode),
		Logs:   textLines(result.Stderr),
	}, nil
}

func (cl *cliClient) close() {}

// runLocal runs a case for several users as the administrator of a server does on its own
// machine, without the protocol.
func runLocal(ctx context.Context, version dovecot.Version, config string, c *command) (observation, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	config, err := version.Inside(config)
	if err != nil {
		return observation{}, err
	}
	args := append([]string{"-c", config}, c.globalOptions()...)
	args = append(args, strings.Fields(c.name)...)
	cmd, err := dovecot.Command(ctx, version, "doveadm", append(args, c.cliArgs("")...)...)
	if err != nil {
		return observation{}, err
	}
	cmd.Stdin = bytes.NewReader(c.input)
	result, err := dovecot.Run(ctx, cmd)
	if err != nil {
		return observation{}, err
	}
	return observation{Output: result.Stdout, Status: fmt.Sprintf("exit %d", result.ExitCode), Logs: textLines(result.Stderr)}, nil
}

// globalOptions stand before the command.
func (c *command) globalOptions() (options []string) {
	if c.verbose {
		options = append(options, "-v")
	}
	if c.debug {
		options = append(options, "-D")
	}
	if c.format != "" {
		options = append(options, "-f", c.format)
	}
	return options
}

// cliArgs stand behind it.
func (c *command) cliArgs(user string) []string {
	if c.many != "" {
		return append(strings.Fields(c.many), c.args...)
	}
	return append([]string{"-u", user}, c.args...)
}

// textLines returns the lines of text without their ends.
func textLines(text string) (lines []string) {
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}
