package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

const (
	// commandTimeout ends a command that hangs.
	commandTimeout = 30 * time.Second
	// atOnce is the longest time after which a failure still counts as
	// immediate; most of what it takes is the start of the doveadm command.
	atOnce = 2 * time.Second
)

// Exit codes of the doveadm command, as in sysexits.h.
const (
	exitOK       = 0
	exitNoUser   = 67
	exitTempFail = 75
)

// walk shows the site step by step and returns the first thing that is not as
// the text says.
func walk(ctx context.Context, s *site) error {
	north, south, west := s.shards[0], s.shards[1], s.shards[2]
	say(`Three Dovecot servers are running, each with its own users and its own
doveadm_password, and one proxy in front of them:
`)
	for _, shard := range s.shards {
		fmt.Printf("  shard %-6s backend %s at %-16s users %s\n",
			shard.Name, shard.Server.Name, shard.Server.Addr, strings.Join(shard.Users, ", "))
	}
	fmt.Printf("  the proxy    %s\n", s.port.Addr)

	say(`One endpoint answers for the users of all three. doveadm.conf holds the
password that the proxy knows; no command below uses a password of a backend.`)
	for _, step := range []struct {
		shard *shard
		user  string
		name  string
		args  []string
	}{
		{north, "alice", "quota get", nil},
		{south, "bob", "quota get", nil},
		{west, "carol", "quota get", nil},
		{north, "dave", "mailbox list", nil},
		{south, "erin", "mailbox status", []string{"messages vsize", "*"}},
		{west, "frank", "fetch", []string{"uid hdr.subject", "mailbox", "INBOX"}},
	} {
		if err := s.showSame(ctx, step.shard, step.user, step.name, step.args...); err != nil {
			return err
		}
	}
	fmt.Println("\nEach of these, asked directly of the user's own backend, gave the same bytes.")

	say("A wrong password ends at the proxy:")
	wrong := s.client
	wrong.Password = "guess"
	got, err := show(ctx, wrong, "quota get", "-u", "alice")
	if err := expect(got, err, exitTempFail, "authentication failed"); err != nil {
		return err
	}

	say("A user that no shard has:")
	got, err = show(ctx, s.client, "quota get", "-u", "nobody")
	if err := expect(got, err, exitNoUser, "No such user"); err != nil {
		return err
	}

	say(fmt.Sprintf("Now %s is stopped. Its users get a temporary failure, and get it at once:", south.Server.Name))
	if err := south.Server.Stop(); err != nil {
		return err
	}
	got, err = show(ctx, s.client, "quota get", "-u", "bob")
	fmt.Printf("  after %d ms\n", got.Time.Milliseconds())
	if err := expect(got, err, exitTempFail, "Error: remote("); err != nil {
		return err
	}
	if got.Time > atOnce {
		return fmt.Errorf("the failure took %s, which is not at once", got.Time)
	}
	say("The others notice nothing:")
	for _, other := range []*shard{north, west} {
		if err := s.showSame(ctx, other, other.Users[0], "quota get"); err != nil {
			return err
		}
	}

	say(fmt.Sprintf("%s is started again, and its users are served again:", south.Server.Name))
	if err := south.Server.Restart(ctx); err != nil {
		return err
	}
	return s.showSame(ctx, south, "bob", "quota get")
}

// showSame shows a command that has to work, and checks that it does what it
// does when the user's backend is asked directly.
func (s *site) showSame(ctx context.Context, shard *shard, user, name string, args ...string) error {
	args = append([]string{"-u", user}, args...)
	got, err := show(ctx, s.client, name, args...)
	if err := expect(got, err, exitOK, ""); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	direct, err := shard.Server.Client().Run(ctx, name, args...)
	if err != nil {
		return err
	}
	if got.Stdout == "" || got.Stdout != direct.Stdout || got.Stderr != direct.Stderr || got.ExitCode != direct.ExitCode {
		return fmt.Errorf("asked directly, %s answers differently: exit code %d\n%s%s",
			shard.Server.Name, direct.ExitCode, direct.Stdout, direct.Stderr)
	}
	return nil
}

// show runs a command and prints it with all that comes of it.
func show(ctx context.Context, c dovecot.Client, name string, args ...string) (dovecot.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd, err := c.Command(ctx, name, args...)
	if err != nil {
		return dovecot.Result{}, err
	}
	fmt.Printf("\n$ doveadm %s\n", shellWords(cmd.Args[1:]))
	got, err := dovecot.Run(ctx, cmd)
	fmt.Print(indent(got.Stdout), indent(got.Stderr))
	if err != nil {
		return got, err
	}
	fmt.Printf("  exit code %d\n", got.ExitCode)
	return got, nil
}

// expect checks the outcome of a command. A failed command must have printed
// its cause and no data.
func expect(got dovecot.Result, err error, exitCode int, stderr string) error {
	switch {
	case err != nil:
		return err
	case got.ExitCode != exitCode:
		return fmt.Errorf("exit code %d, and it should be %d", got.ExitCode, exitCode)
	case !strings.Contains(got.Stderr, stderr):
		return fmt.Errorf("the command should have said %q", stderr)
	case exitCode != exitOK && strings.Contains(got.Stdout, "User quota"):
		return errors.New("a failed command should have printed no quota")
	}
	return nil
}

// invite says how to go on by hand.
func (s *site) invite() {
	say("It all keeps running until you press Ctrl-C. To try by hand:")
	fmt.Printf(`
  doveadm -c %[1]s quota get -S %[2]s -u alice
  doveadm -c %[1]s mailbox status -S %[2]s -u bob all '*'

The proxy's configuration, routes and log:

  cat %[3]s/proxy.hcl %[3]s/users.map
  tail -f %[3]s/proxy.log

To stop and start a backend:

  doveadm -c %[4]s stop
  dovecot -c %[4]s
`, s.client.Config, s.client.Addr, s.dir, s.shards[1].Server.Config)
}

// say prints a paragraph of narration.
func say(text string) {
	fmt.Printf("\n%s\n", text)
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("  " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// shellWords writes arguments so that a shell reads them back.
func shellWords(args []string) string {
	words := make([]string, len(args))
	for n, arg := range args {
		words[n] = arg
		if arg == "" || strings.ContainsAny(arg, " *?'\"\\$&|;<>()[]{}#~`\t\n") {
			words[n] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
