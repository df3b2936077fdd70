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
// commands. Its command line parser is the one of the server, and its table of
// commands is the server's and the clientCommands.
type doveadmProgram struct {
	series  Series
	version dovecot.Version
	options []string // before the command
}

// eachDoveadm runs a test with the program of each series.
func eachDoveadm(t *testing.T, test func(t *testing.T, d doveadmProgram)) {
	for _, d := range []doveadmProgram{
		{Series23, dovecot.V23, []string{"-c", "/dev/null", "-o", "mail_plugins=quota acl fts mail_crypt"}},
		{Series24, dovecot.V24, []string{"-O", "-o", "mail_plugins=quota acl fts fts_flatcurve mail_crypt"}},
	} {
		t.Run(string(d.version), func(t *testing.T) { test(t, d) })
	}
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

func TestCommandTableAsInstalled(t *testing.T) { eachDoveadm(t, testCommandTableAsInstalled) }

func testCommandTableAsInstalled(t *testing.T, d doveadmProgram) {
	installed := d.commands(t)
	if !slices.Contains(installed, "mailbox list") {
		t.Fatalf("doveadm help lists no commands that can be read:\n%s", d.run(t, "help"))
	}
	if slices.Contains(installed, "compress-connect") != (d.series == Series24) {
		t.Fatalf("the installed doveadm is not of %s, run make deps", d.version)
	}
	if !slices.Contains(installed, "sieve put") {
		t.Fatal("doveadm has no sieve commands, run make deps")
	}
	var table []string
	for _, c := range allCommands() {
		if c.Series&d.series != 0 {
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

	for _, c := range allCommands() {
		if c.Series&d.series != 0 && c.Kind != ClientCommand && slices.Contains(installed, c.Name) {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				d.compareOptions(t, c)
			})
		}
	}
}

// compareOptions asks getopt. Every question ends in options that no getopt
// accepts, so that the command never runs, and the error tells how far it came.
func (d doveadmProgram) compareOptions(t *testing.T, c *CommandInfo) {
	words := strings.Fields(c.Name)
	ask := func(args ...string) string { return d.run(t, append(slices.Clip(words), args...)...) }
	params := seriesParams(c, d.series)
	var args, long []string
	flags := ""
	same := true // no two differ in more than their name
	for _, p := range params {
		long = append(long, "--"+p.Long)
		first := params[0]
		same = same && p.Short == first.Short && (p.Kind == ParamFlag) == (first.Kind == ParamFlag)
		letter := ""
		if p.Short != 0 { // that it has none is known from the recorded list only
			letter = string(rune(p.Short))
		}
		if p.Kind == ParamFlag {
			args = append(args, "--"+p.Long)
			flags += letter
			continue
		}
		value := "!" // neither an option nor a number
		if p.Kind == ParamNumber {
			value = "9"
			// 2.4 looks at numbers at once, 2.3 never tells.
			if d.series == Series24 && (p.common == notCommon || c.Name == "purge") {
				if out := ask("--"+p.Long+"=!", "-:"); !strings.Contains(out, "Invalid number: !") {
					t.Errorf("--%s is no number: %s", p.Long, out)
				}
			}
		}
		args = append(args, "--"+p.Long+"="+value)
		if letter != "" {
			args = append(args, "-"+letter+value)
		}
	}
	// A flag that had a value would eat the rest of its group, a value that
	// were none would leave what is no option to be one.
	args = append(args, "-"+flags+":", "-;")
	if out := ask(args...); !strings.Contains(out, "invalid option -- ':'") {
		t.Errorf("%q: %s", args, out)
	}
	// That there are no more: the empty abbreviation stands for all names, and
	// if any two differ in kind or letter, getopt prints all that differ from
	// the first. (Otherwise it takes the first and does not tell.)
	out := ask("--=1", "-:")
	switch {
	case len(long) == 0:
		if !strings.Contains(out, "unrecognized option '--=1'") {
			t.Errorf("options in spite of an empty table: %s", out)
		}
	case same:
		if !strings.Contains(out, "invalid option -- ':'") {
			t.Errorf("options that differ more than those of the table: %s", out)
		}
	default:
		_, list, _ := strings.Cut(out, "possibilities:")
		list, _, _ = strings.Cut(list, "\n")
		listed := strings.Fields(strings.ReplaceAll(list, "'", ""))
		want := slices.Clone(long)
		for _, p := range params[1:] {
			first := params[0]
			if p.Short == first.Short && (p.Kind == ParamFlag) == (first.Kind == ParamFlag) {
				want = slices.DeleteFunc(want, func(s string) bool { return s == "--"+p.Long })
			}
		}
		if !slices.Equal(listed, want) {
			t.Errorf("the installed doveadm has the options %q, the table %q", listed, want)
		}
	}
}

// How the server's getopt_long takes abbreviated names is what the parser
// believes.
func TestAbbreviationsAsInstalled(t *testing.T) { eachDoveadm(t, testAbbreviationsAsInstalled) }

func testAbbreviationsAsInstalled(t *testing.T, d doveadmProgram) {
	type abbreviation struct {
		command, name string
		want          string // part of getopt's answer
	}
	tests := []abbreviation{
		{"purge", "a", "'--all-users' doesn't allow an argument"},
		{"purge", "all", "'--all-users' doesn't allow an argument"},
		{"purge", "u", "is ambiguous"},
		{"purge", "user", "invalid option"},
		{"purge", "user-", "invalid option"},
		{"purge", "t", "invalid option"},
		{"purge", "x", "unrecognized option"},
		{"purge", "", "is ambiguous"},
		{"mailbox cache decision", "all", "'--all' doesn't allow an argument"},
		{"mailbox cache decision", "al", "is ambiguous"},
		{"mailbox cache decision", "all-", "'--all-users' doesn't allow an argument"},
		{"fts tokenize", "t", "invalid option"}, // trans-flags and text do not differ
		{"mailbox status", "t", "is ambiguous"},
		{"mailbox status", "fields", "invalid option"},
		{"mailbox status", "f", "is ambiguous"},
		{"fetch", "f", "invalid option"},
		{"sync", "all", "is ambiguous"},
	}
	switch d.series {
	case Series23:
		tests = append(tests, abbreviation{"purge", "no", "unrecognized option"})
	case Series24:
		tests = append(
			tests,
			abbreviation{"purge", "no", "'--no-userdb-lookup' doesn't allow an argument"},
			abbreviation{"save", "no", "'--no-userdb-lookup' doesn't allow an argument"},
			abbreviation{"sync", "n", "is ambiguous"},
			abbreviation{"save", "u", "is ambiguous"},
		)
	}
	for _, test := range tests {
		c, _ := LookupCommand(test.command)
		out := d.run(t, append(strings.Fields(test.command), "--"+test.name+"=1", "-:")...)
		if !strings.Contains(out, test.want) {
			t.Errorf("%s --%s=1: %s, want %q", test.command, test.name, out, test.want)
		}
		p, problem := resolveLong(c.Params, test.name, d.series)
		var got string
		switch {
		case p == nil && problem == AmbiguousOption:
			got = "is ambiguous"
		case p == nil:
			got = "unrecognized option"
		case p.Kind == ParamFlag:
			got = "'--" + p.Long + "' doesn't allow an argument"
		default:
			got = "invalid option"
		}
		if got != test.want {
			t.Errorf("%s --%s=1: parsed as %q, want %q", test.command, test.name, got, test.want)
		}
	}
}
