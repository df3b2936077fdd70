package doveadm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestNormalizeArgs(t *testing.T) {
	refused := []string{refusedArgument}
	const none = ArgumentProblem(255)
	for _, test := range []struct {
		command string
		args    []string
		want    Normalized
		problem ArgumentProblem
	}{
		// As the doveadm programs send them.
		{"quota get", []string{"-u", "alice", "--"}, Normalized{Args: []string{"--"}, User: "alice", HasUser: true}, none},
		{"quota get", []string{"-A", "--"}, Normalized{Args: []string{"--"}, AllUsers: true}, none},
		{"quota get", []string{"-F", "", "--"}, Normalized{Args: []string{"--"}, HasUserFile: true}, none},
		{"quota get", []string{"-u", "a*", "--"}, Normalized{Args: []string{"--"}, User: "a*", HasUser: true, UserMask: true}, none},
		{
			"mailbox status",
			[]string{"-u", "alice", "-t", "--", "messages vsize", "INBOX", "*"},
			Normalized{Args: []string{"-t", "--", "messages vsize", "INBOX", "*"}, User: "alice", HasUser: true},
			none,
		},
		{"dsync-server", []string{"-ualice", "-U"}, Normalized{Args: []string{"-U"}, User: "alice", HasUser: true}, none},

		// Spellings.
		{"quota get", []string{"-ualice"}, Normalized{Args: []string{}, User: "alice", HasUser: true}, none},
		{"quota get", []string{"--user=alice"}, Normalized{Args: []string{}, User: "alice", HasUser: true}, none},
		{"quota get", []string{"--user", "alice"}, Normalized{Args: []string{}, User: "alice", HasUser: true}, none},
		{"quota get", []string{"--user="}, Normalized{Args: []string{}, HasUser: true}, none},
		{"quota get", []string{"-u", "a", "-ub?"}, Normalized{Args: []string{}, User: "b?", HasUser: true, UserMask: true}, none},
		{"quota get", []string{"-u", "a*", "-u", "b"}, Normalized{Args: []string{}, User: "b", HasUser: true}, none},
		{"quota get", []string{"--all-users"}, Normalized{Args: []string{}, AllUsers: true}, none},
		{"quota get", []string{"--all"}, Normalized{Args: []string{}, AllUsers: true}, none},
		{"quota get", []string{"--a"}, Normalized{Args: []string{}, AllUsers: true}, none},
		{"quota get", []string{"--user-f=/x"}, Normalized{Args: []string{}, UserFile: "/x", HasUserFile: true}, none},
		{"quota get", []string{"--user-", "/x"}, Normalized{Args: []string{}, UserFile: "/x", HasUserFile: true}, none},
		{"quota get", []string{"-S", "/x", "--so=y", "-Sz"}, Normalized{Args: []string{}}, none},
		{"quota get", []string{"--s", "--trans", "x"}, Normalized{Args: []string{"x"}}, none},
		{"quota get", []string{"--trans-flags", "5", "--trans=6"}, Normalized{Args: []string{}}, none},
		{"quota get", []string{"--no-userdb-lookup"}, Normalized{Args: []string{}}, none},
		{"quota get", []string{"--no"}, Normalized{Args: []string{}}, none},

		// Groups.
		{"mailbox status", []string{"-tA"}, Normalized{Args: []string{"-t"}, AllUsers: true}, none},
		{"mailbox status", []string{"-At"}, Normalized{Args: []string{"-t"}, AllUsers: true}, none},
		{"mailbox status", []string{"-AtA"}, Normalized{Args: []string{"-t"}, AllUsers: true}, none},
		{"mailbox status", []string{"-tualice", "x"}, Normalized{Args: []string{"-t", "x"}, User: "alice", HasUser: true}, none},
		{"mailbox status", []string{"-tu", "alice", "x"}, Normalized{Args: []string{"-t", "x"}, User: "alice", HasUser: true}, none},
		{"mailbox status", []string{"-uA", "x"}, Normalized{Args: []string{"x"}, User: "A", HasUser: true}, none},
		{"mailbox status", []string{"-tfA"}, Normalized{Args: []string{"-tfA"}}, none},
		{"mailbox status", []string{"-AfA", "-A"}, Normalized{Args: []string{"-fA"}, AllUsers: true}, none},
		{"mailbox status", []string{"-Af", "-A"}, Normalized{Args: []string{"-f", "-A"}, AllUsers: true}, none},
		{"mailbox status", []string{"-A", "-A", "x", "-Au", "y", "-t"}, Normalized{Args: []string{"x", "-t"}, AllUsers: true, User: "y", HasUser: true}, none},

		// Values that look like options, and options that look like values.
		{"save", []string{"-m", "-A"}, Normalized{Args: []string{"-m", "-A"}}, none},
		{"save", []string{"-m", "--", "-A"}, Normalized{Args: []string{"-m", "--"}, AllUsers: true}, none},
		{"save", []string{"--mailbox", "--all-users"}, Normalized{Args: []string{"--mailbox", "--all-users"}}, none},
		{"save", []string{"--mailbox=x", "--all-users"}, Normalized{Args: []string{"--mailbox=x"}, AllUsers: true}, none},
		{"save", []string{"-u", "-A"}, Normalized{Args: []string{}, User: "-A", HasUser: true}, none},
		{"save", []string{"-u", "--", "-A"}, Normalized{Args: []string{}, User: "--", HasUser: true, AllUsers: true}, none},
		{"save", []string{"-g", "-A"}, Normalized{Args: []string{"-g", "-A"}}, none}, // -g only in 2.4

		// Positional arguments.
		{"expunge", []string{"all", "-A"}, Normalized{Args: []string{"all"}, AllUsers: true}, none},
		{"expunge", []string{"-", "-A"}, Normalized{Args: []string{"-"}, AllUsers: true}, none},
		{"expunge", []string{"", "-A"}, Normalized{Args: []string{""}, AllUsers: true}, none},
		{"expunge", []string{"--", "-A", "-F", "x", "-u", "y"}, Normalized{Args: []string{"--", "-A", "-F", "x", "-u", "y"}}, none},
		{"expunge", []string{"-A", "--", "-A", "--"}, Normalized{Args: []string{"--", "-A", "--"}, AllUsers: true}, none},
		{"sync", []string{"-A", "tcp:x", "-A"}, Normalized{Args: []string{"tcp:x", "-A"}, AllUsers: true}, none},
		{"batch", []string{"-u", "x", ";", "fetch", "-A"}, Normalized{Args: []string{";", "fetch", "-A"}, User: "x", HasUser: true}, none},

		// The command's own options come first.
		{"mailbox cache decision", []string{"--all"}, Normalized{Args: []string{"--all"}}, none},
		{"mailbox cache decision", []string{"--all-"}, Normalized{Args: []string{}, AllUsers: true}, none},
		{"mailbox cache decision", []string{"-a"}, Normalized{Args: []string{"-a"}}, none},
		{"backup", []string{"-NA", "-a", "-A"}, Normalized{Args: []string{"-N", "-a", "-A"}, AllUsers: true}, none},
		{"backup", []string{"--n", "-A"}, Normalized{Args: []string{"--n", "-A"}}, none}, // ambiguous in 2.4
		{"fts tokenize", []string{"--t=1", "--te=-A"}, Normalized{Args: []string{"--te=-A"}}, none},

		// No mail commands: -u and -F are something else.
		{"user", []string{"-u", "alice"}, Normalized{Args: []string{"-u", "alice"}}, none},
		{"dict get", []string{"-u", "a*", "x", "y"}, Normalized{Args: []string{"-u", "a*", "x", "y"}}, none},
		{"director flush", []string{"-F", "all"}, Normalized{Args: []string{"-F", "all"}}, none},
		{"kick", []string{"-f", "-A"}, Normalized{Args: []string{"-f", "-A"}}, none}, // -f has a value in 2.4 only
		{"kick", []string{"-f", "--zoo"}, Normalized{Args: []string{"-f", "--zoo"}}, none},
		{"kick", []string{"-f", "--force=x"}, Normalized{Args: []string{"-f", "--force=x"}}, none},
		{"stop", []string{"--a"}, Normalized{Args: []string{"--a"}}, UnknownOption},

		// For the server to refuse.
		{"quota get", []string{"-Z"}, Normalized{Args: []string{"-Z"}}, UnknownOption},
		{"quota get", []string{"-u", "alice", "-Z", "x"}, Normalized{Args: []string{"-Z", "x"}, User: "alice", HasUser: true}, UnknownOption},
		{"quota get", []string{"-u", "alice", "--zoo=1", "-A"}, Normalized{Args: []string{"--zoo=1"}, User: "alice", HasUser: true, AllUsers: true}, UnknownOption},
		{"quota get", []string{"-Z", "x", "-A"}, Normalized{Args: []string{"-Z", "x"}, AllUsers: true}, UnknownOption},
		{"quota get", []string{"-Z", "-u", "alice"}, Normalized{Args: []string{"-Z", "-u", "alice"}}, UnknownOption},
		{"save", []string{"-m"}, Normalized{Args: []string{"-m"}}, MissingValue},
		{"save", []string{"-A", "-m"}, Normalized{Args: []string{"-m"}, AllUsers: true}, MissingValue},
		{"mailbox status", []string{"--total-sum=1"}, Normalized{Args: []string{"--total-sum=1"}}, UnexpectedValue},
		{"batch", []string{"--no-userdb-lookup"}, Normalized{Args: []string{"--no-userdb-lookup"}}, UnknownOption},
		{"mailbox status", []string{"--f=x"}, Normalized{Args: []string{"--f=x"}}, AmbiguousOption},

		// Not to be sent to anybody.
		{"quota get", []string{"-Z", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"quota get", []string{"-ZA"}, Normalized{AllUsers: true}, UncertainOption},
		{"quota get", []string{"--zoo", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"quota get", []string{"-Z", "--", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"quota get", []string{"-Z", "-F", "x"}, Normalized{UserFile: "x", HasUserFile: true}, UncertainOption},
		{"quota get", []string{"-Z", "-u", "a*"}, Normalized{User: "a*", HasUser: true, UserMask: true}, UncertainOption},
		{"sync", []string{"-Z", "x", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"sync", []string{"-Z", "x", "-P", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"quota get", []string{"--u"}, Normalized{HasUserFile: true}, UncertainOption},
		{"quota get", []string{"--=x"}, Normalized{AllUsers: true, UserFile: "x", HasUserFile: true}, UncertainOption},
		{"sync", []string{"--all"}, Normalized{AllUsers: true}, UncertainOption},
		{"quota get", []string{"--all-users=1"}, Normalized{AllUsers: true}, UnexpectedValue},
		{"quota get", []string{"-u"}, Normalized{}, MissingValue},
		{"quota get", []string{"--user"}, Normalized{HasUser: true}, MissingValue},
		{"quota get", []string{"-A-all-users"}, Normalized{AllUsers: true}, UnknownOption},
		{"quota get", []string{"-A-"}, Normalized{AllUsers: true}, UnknownOption},
		{"quota get", []string{"--all-users\x00x"}, Normalized{}, ForbiddenByte},

		// Of an unknown command only the common options are known.
		{"no such", []string{"-u", "alice", "-x", "y", "--", "-A"}, Normalized{Args: []string{"-x", "y", "--", "-A"}, User: "alice", HasUser: true}, none},
		{"no such", []string{"-A", "x"}, Normalized{Args: []string{"x"}, AllUsers: true}, none},
		{"no such", []string{"--all-users", "--user-file", "x"}, Normalized{Args: []string{}, AllUsers: true, UserFile: "x", HasUserFile: true}, none},
		{"no such", []string{"-x", "-u", "alice", "--long", "-S", "x"}, Normalized{Args: []string{"-x", "-u", "alice", "--long", "-S", "x"}}, none},
		{"no such", []string{"--s", "x"}, Normalized{Args: []string{"--s", "x"}}, none},
		{"no such", []string{"-xArchive"}, Normalized{AllUsers: true}, UncertainOption},
		{"no such", []string{"-x", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"no such", []string{"x", "-A"}, Normalized{AllUsers: true}, UncertainOption},
		{"no such", []string{"--a"}, Normalized{AllUsers: true}, UncertainOption},
		{"no such", []string{"--user-f=x"}, Normalized{UserFile: "x", HasUserFile: true}, UncertainOption},
		{"no such", []string{"-xFy"}, Normalized{UserFile: "y", HasUserFile: true}, UncertainOption},
		{"no such", []string{"-x", "--user", "a?"}, Normalized{User: "a?", HasUser: true, UserMask: true}, UncertainOption},
		{"pw", []string{"-x", "-A"}, Normalized{AllUsers: true}, UncertainOption},
	} {
		c, _ := LookupCommand(test.command)
		args := slices.Clone(test.args)
		got, err := c.NormalizeArgs(args)
		if !slices.Equal(args, test.args) {
			t.Errorf("%s %q: the arguments have become %q", test.command, test.args, args)
		}
		problem := none
		if e := (*ArgumentError)(nil); errors.As(err, &e) {
			problem = e.Problem
		}
		if test.want.Args == nil {
			test.want.Args = refused
		}
		if diff := cmp.Diff(test.want, got); diff != "" || problem != test.problem {
			t.Errorf("%s %q: %v\n%s", test.command, test.args, err, diff)
		}
	}
}

// No mail command of the table has an option that means something else in the
// other series; one that will must not let a common option slip through.
func TestNormalizeArgsWhereSeriesDiffer(t *testing.T) {
	c := &CommandInfo{Name: "new", Series: bothSeries, Params: mailParams(
		textOpt('x', "text").only(Series23), flagOpt('x', "text").only(Series24), flagOpt(0, "all").only(Series23),
	)}
	for _, args := range [][]string{{"-x", "-A"}, {"-xA"}, {"-x", "--", "-A"}, {"--text", "-A"}, {"--all"}} {
		n, err := c.NormalizeArgs(args)
		e := (*ArgumentError)(nil)
		if !errors.As(err, &e) || e.Problem != UncertainOption || !n.AllUsers || !slices.Equal(n.Args, []string{refusedArgument}) {
			t.Errorf("%q: %+v, %v, want a refusal", args, n, err)
		}
	}
	for _, args := range [][]string{{"-x", "y"}, {"-xy"}, {"-x", "-u", "alice"}, {"--text=-A"}} {
		if n, err := c.NormalizeArgs(args); err != nil || !slices.Equal(n.Args, args) {
			t.Errorf("%q: %+v, %v, want it unchanged", args, n, err)
		}
	}
}

func TestNormalizeArgsTakesNoCopy(t *testing.T) {
	c, _ := LookupCommand("mailbox status")
	args := []string{"-t", "--", "messages", "-A"}
	if n := testing.AllocsPerRun(100, func() {
		n, err := c.NormalizeArgs(args)
		if err != nil || &n.Args[0] != &args[0] || len(n.Args) != len(args) {
			t.Errorf("NormalizeArgs = %+v, %v, want the slice that was given", n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n, err := c.NormalizeArgs(nil); n.Args != nil || err != nil {
		t.Errorf("NormalizeArgs(nil) = %+v, %v", n, err)
	}
}

func TestArgumentErrorText(t *testing.T) {
	for _, test := range []struct{ command, arg, want string }{
		{"quota get", "-Z\n", `quota get: argument "-Z\n" is known to neither Dovecot 2.3 nor 2.4`},
		{"mailbox status", "--f=x", `mailbox status: argument "--f=x" is ambiguous: write the long name in full`},
		{"save", "-m", `save: argument "-m" needs a value`},
		{"index", "--queue=x", `index: argument "--queue=x" takes no value`},
		{"save", "-mx\x00", `save: argument "-mx\x00" holds a NUL byte`},
		{"no such", "-xA", `unknown command: argument "-xA" may mean other users (-A, -F, -u): ` +
			`put it before options that only the server knows, as an argument of its own`},
	} {
		c, _ := LookupCommand(test.command)
		if _, err := c.NormalizeArgs([]string{test.arg}); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// split takes the common options out of what a server saw.
func split(options []given) (common, own []given) {
	for _, o := range options {
		if slices.ContainsFunc(commonParams, func(p Param) bool { return p.Long == o.name }) {
			common = append(common, o)
		} else {
			own = append(own, o)
		}
	}
	return common, own
}

// dangerous returns an option that must not reach any server.
func dangerous(options []given) (given, bool) {
	for _, o := range options {
		if o.name == "all-users" || o.name == "user-file" || o.name == "user" && holdsMask(o.value) {
			return o, true
		}
	}
	return given{}, false
}

// otherRelease returns the parameters of a server that has, beside those of
// its series, all options of args that the table lacks, each with or without a
// value as the bits of kinds say.
func otherRelease(c *CommandInfo, s Series, args []string, kinds uint64) []Param {
	params := seriesParams(c, s)
	kind := func() ParamKind {
		kinds = kinds>>1 | kinds<<63
		return ParamKind(kinds & 1)
	}
	for _, word := range args {
		if name, ok := strings.CutPrefix(word, "--"); ok {
			name, _, _ = strings.Cut(name, "=")
			if name != "" && !slices.ContainsFunc(c.params(), func(p Param) bool { return strings.HasPrefix(p.Long, name) }) {
				params = append(params, Param{Long: name, Kind: kind()})
			}
			continue
		}
		for i := 1; i < len(word) && word[0] == '-'; i++ {
			if letter := word[i]; letter != '-' && letter != ':' && letter != ';' &&
				!slices.ContainsFunc(c.params(), func(p Param) bool { return p.Short == letter }) &&
				!slices.ContainsFunc(params, func(p Param) bool { return p.Short == letter }) {
				params = append(params, Param{Short: letter, Long: "letter-" + string(rune(letter)), Kind: kind()})
			}
		}
	}
	return params
}

// checkNormalizeArgs states what NormalizeArgs promises, whatever the
// arguments are.
func checkNormalizeArgs(t interface{ Fatalf(string, ...any) }, name string, args []string, kinds uint64) {
	c, known := LookupCommand(name)
	known = known && c.Kind != ClientCommand
	before := slices.Clone(args)
	n, err := c.NormalizeArgs(args)
	fail := func(format string, values ...any) {
		t.Fatalf("%s %q = %+v, %v: "+format, append([]any{name, before, n, err}, values...)...)
	}
	if !slices.Equal(args, before) {
		fail("the arguments have become %q", args)
	}
	if len(n.Args) == len(args) && len(args) > 0 && slices.Equal(n.Args, args) && &n.Args[0] != &args[0] {
		fail("a copy of unchanged arguments")
	}
	if c.Kind == GlobalCommand && !slices.Equal(n.Args, args) && err.(*ArgumentError).Problem != ForbiddenByte {
		fail("arguments of a global command changed")
	}
	if again, _ := c.NormalizeArgs(n.Args); again.AllUsers || again.HasUserFile || again.UserMask {
		fail("a second time: %+v", again)
	}
	if slices.ContainsFunc(n.Args, holdsNUL) {
		fail("a NUL byte")
	}

	for _, s := range [...]Series{Series23, Series24} {
		// A server of this series, and one of another release, which may have
		// options that the table lacks: nothing dangerous is seen, not even
		// by a getopt that is about to fail.
		params := seriesParams(c, s)
		options, positional, sent := serverGetopt(params, c.OptionsFirst, n.Args)
		if o, bad := dangerous(options); bad && c.Kind != GlobalCommand {
			fail("a server of series %d sees %+v", s, o)
		}
		other := otherRelease(c, s, args, kinds)
		optionsFirst := c.OptionsFirst || !known && kinds%3 == 0
		options2, _, _ := serverGetopt(other, optionsFirst, n.Args)
		if o, bad := dangerous(options2); bad && c.Kind != GlobalCommand {
			fail("another release with %+v sees %+v", other[len(params):], o)
		}
		if !known || c.Series&s == 0 {
			continue
		}

		// What a server accepts has none of the common options, and is what
		// was asked for otherwise.
		common, own := split(options)
		if sent == nil && len(common) > 0 && c.Kind != GlobalCommand {
			fail("a server of series %d sees %+v", s, common)
		}
		if err != nil {
			if sent == nil {
				fail("a server of series %d accepts it in spite of the error", s)
			}
			continue
		}
		asked, askedPositional, askedErr := serverGetopt(params, c.OptionsFirst, before)
		askedCommon, askedOwn := split(asked)
		if c.Kind == GlobalCommand {
			askedCommon, askedOwn, own = nil, asked, options
		}
		if askedErr != nil {
			// Only an option that the series lacks may be missed by it.
			if sent == nil && s == Series24 {
				fail("a server of series %d refuses %q, and takes the result: %v", s, before, askedErr)
			}
			continue
		}
		if sent != nil || !slices.Equal(own, askedOwn) || !slices.Equal(positional, askedPositional) {
			fail("a server of series %d sees %+v %q instead of %+v %q", s, own, positional, askedOwn, askedPositional)
		}
		var want Normalized
		for _, o := range askedCommon {
			switch o.name {
			case "all-users":
				want.AllUsers = true
			case "user-file":
				want.UserFile, want.HasUserFile = o.value, true
			case "user":
				want.User, want.HasUser, want.UserMask = o.value, true, strings.ContainsAny(o.value, "*?")
			}
		}
		want.Args = n.Args
		if diff := cmp.Diff(want, n); diff != "" {
			fail("%s", diff)
		}
	}
}

func TestNormalizeArgsForEveryServer(t *testing.T) {
	names := []string{"no such", "pw"}
	for _, c := range Commands() {
		names = append(names, c.Name)
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(names).Draw(t, "command")
		c, _ := LookupCommand(name)
		letters := "AFuSZ-:x"
		longs := []string{"", "a", "all", "u", "user-", "zoo", "no"}
		for _, p := range append(slices.Clone(c.Params), commonParams...) {
			if p.Short != 0 {
				letters += string(rune(p.Short))
			}
			longs = append(longs, p.Long, p.Long[:rapid.IntRange(0, len(p.Long)).Draw(t, "abbreviation")])
		}
		value := rapid.SampledFrom([]string{"", "x", "a*", "-A", "--", "-", "-u", "--all-users", "A", "-FA"})
		word := rapid.Custom(func(t *rapid.T) string {
			switch rapid.IntRange(0, 4).Draw(t, "form") {
			case 0:
				return value.Draw(t, "value")
			case 1:
				return "--" + rapid.SampledFrom(longs).Draw(t, "name")
			case 2:
				return "--" + rapid.SampledFrom(longs).Draw(t, "name") + "=" + value.Draw(t, "value")
			default:
				group := rapid.SliceOfN(rapid.SampledFrom([]byte(letters)), 1, 4).Draw(t, "letters")
				return "-" + string(group)
			}
		})
		args := rapid.SliceOfN(word, 0, 6).Draw(t, "args")
		checkNormalizeArgs(t, name, args, rapid.Uint64().Draw(t, "kinds"))
	})
}

func FuzzNormalizeArgs(f *testing.F) {
	for _, seed := range []string{
		"quota get\n-u\nalice\n--", "mailbox status\n-tA\nmessages\nINBOX", "save\n-m\n-A", "no such\n-x\n-A\n--\n-F",
		"quota get\n-A-all-users", "sync\n-Z\nx\n-A", "quota get\n--=x", "fetch\n--user-f\n\nuid\nall", "kick\n-f\n-A", "quota get\n-A\x00",
	} {
		f.Add(seed, uint64(5))
	}
	f.Fuzz(func(t *testing.T, line string, kinds uint64) {
		words := strings.Split(line, "\n")
		checkNormalizeArgs(t, words[0], words[1:], kinds)
	})
}

func BenchmarkNormalizeArgs(b *testing.B) {
	c, _ := LookupCommand("mailbox status")
	args := []string{"-u", "alice", "-t", "--", "messages vsize", "INBOX"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.NormalizeArgs(args); err != nil {
			b.Fatal(err)
		}
	}
}
