package doveadm

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// doveadmProgram is the real doveadm of a series with all plugins that bring
// commands. Its table of commands is the server's and the clientCommands.
type doveadmProgram struct {
	version dovecot.Version
	options []string // before the command
}

// run returns what doveadm prints on either channel. It fails with the usage
// status in all that is asked here, so its status says nothing.
func (d doveadmProgram) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd, err := dovecot.Command(t.Context(), d.version, "doveadm", append(slices.Clip(d.options), args...)...)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	return string(out)
}

var (
	usageLine = regexp.MustCompile(`(?m)^  ([a-z0-9-]+) +(.*)$`)
	groupLine = regexp.MustCompile(`^[a-z0-9-]+(\|[a-z0-9-]+)*$`)
)

// commands returns the names that the usage texts list below the words.
func (d doveadmProgram) commands(t *testing.T, words ...string) (names []string) {
	t.Helper()
	args := words
	if len(words) == 0 {
		args = []string{"help"}
	}
	for _, line := range usageLine.FindAllStringSubmatch(d.run(t, args...), -1) {
		name := append(slices.Clip(words), line[1])
		switch {
		case !groupLine.MatchString(line[2]):
			names = append(names, strings.Join(name, " "))
		case len(words) == 0:
			names = append(names, d.commands(t, name...)...)
		default:
			for sub := range strings.SplitSeq(line[2], "|") {
				names = append(names, strings.Join(append(name, sub), " "))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The programs list the commands of the table.
func TestCommandTableAsInstalled(t *testing.T) {
	for series, d := range map[Series]doveadmProgram{
		Series23: {dovecot.V23, []string{"-c", "/dev/null", "-o", "mail_plugins=quota acl fts mail_crypt"}},
		Series24: {dovecot.V24, []string{"-O", "-o", "mail_plugins=quota acl fts fts_flatcurve mail_crypt"}},
	} {
		t.Run(string(d.version), func(t *testing.T) {
			t.Parallel()
			d.compareNames(t, series)
		})
	}
}

func (d doveadmProgram) compareNames(t *testing.T, series Series) {
	installed := d.commands(t)
	if !slices.Contains(installed, "mailbox list") {
		t.Fatalf("doveadm help lists no commands that can be read:\n%s", d.run(t, "help"))
	}
	if slices.Contains(installed, "compress-connect") != (series == Series24) {
		t.Fatalf("the installed doveadm is not of %s, run make deps", d.version)
	}
	if !slices.Contains(installed, "sieve put") {
		t.Fatal("doveadm has no sieve commands, run make deps")
	}
	var table []string
	for _, c := range Commands() {
		if c.Series&series != 0 {
			table = append(table, c.Name)
		}
	}
	for _, name := range installed {
		if !slices.Contains(table, name) {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, name := range table {
		if !slices.Contains(installed, name) {
			t.Errorf("%s is in the table, but the installed doveadm does not have it", name)
		}
	}
}
