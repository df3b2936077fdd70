package dovecot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Client is the real doveadm command as the client of a doveadm server, be it
// a Dovecot or a proxy. The zero value of every field but Addr is usable.
type Client struct {
	Version  Version  // of the command; V23 if empty
	Addr     string   // host:port, or the path of a UNIX socket that the version sees, see Version.Inside
	Username string   // doveadm_username; Dovecot's default "doveadm" if empty
	Password string   // doveadm_password; if empty, what Config says
	Options  []string // global options, before the command: "-v", "-f", "tab", "-o", "setting=value"

	// Config is the configuration file. If empty there is none, which does for
	// all that concerns one named user: doveadm looks up users itself only for
	// -A and masks, and then in the userdb of this configuration. It is in the
	// version's syntax, and the version must see it: that of a Server does.
	Config string
}

// Result is what a program left behind.
type Result struct {
	Stdout   string // the exact bytes
	Stderr   string
	ExitCode int // as a shell counts it: 128 plus the signal's number if a signal ended the program
	Time     time.Duration
}

// Command prepares a command with its arguments, for example
// Command(ctx, "mailbox status", "-u", "alice", "all", "*"). The name of the
// command is one string, because the address goes behind it. The caller runs
// the result, by Run or by itself.
func (c Client) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	var line []string
	switch {
	case c.Config != "":
		config, err := c.Version.Inside(c.Config)
		if err != nil {
			return nil, err
		}
		line = []string{"-c", config}
	case c.Version == V24:
		line = []string{"-O"} // an empty file is not a configuration to it
	default:
		line = []string{"-c", "/dev/null"}
	}
	if c.Config == "" {
		// Only a doveadm that has loaded a plugin knows the plugin's commands.
		line = append(line, "-o", "mail_plugins=quota acl")
	}
	if c.Username != "" {
		line = append(line, "-o", "doveadm_username="+c.Username)
	}
	if c.Password != "" {
		line = append(line, "-o", "doveadm_password="+c.Password)
	}
	addr := c.Addr
	if filepath.IsAbs(addr) {
		var err error
		if addr, err = c.Version.Inside(addr); err != nil {
			return nil, err
		}
	}
	line = append(line, c.Options...)
	line = append(line, strings.Fields(name)...)
	line = append(line, "-S", addr)
	return Command(ctx, c.Version, "doveadm", append(line, args...)...)
}

// Run runs a command, see Command.
func (c Client) Run(ctx context.Context, name string, args ...string) (Result, error) {
	cmd, err := c.Command(ctx, name, args...)
	if err != nil {
		return Result{}, err
	}
	return Run(ctx, cmd)
}

// Run runs cmd, which was prepared with ctx, to its end. An exit code is a
// result and no error; an error means that cmd could not be run or that ctx
// ended it. What the caller has already set of Stdin, Stdout and Stderr stays.
func Run(ctx context.Context, cmd *exec.Cmd) (Result, error) {
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	begin := time.Now()
	err := cmd.Run()
	result := Result{Stdout: stdout.String(), Stderr: stderr.String(), Time: time.Since(begin)}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return result, err
	}
	result.ExitCode = exit.ExitCode()
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		if ctx.Err() != nil {
			return result, fmt.Errorf("%s: %w", cmd, ctx.Err())
		}
		result.ExitCode = 128 + int(status.Signal())
	}
	return result, nil
}
