package doveadm

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// given is an option as a server sees it.
type given struct{ name, value string }

// serverGetopt is getopt_long of one server, written after glibc's
// documentation and without regard to the parser under test. It returns what
// it saw up to the first error.
func serverGetopt(params []Param, optionsFirst bool, args []string) (options []given, positional []string, err error) {
	for len(args) > 0 {
		word := args[0]
		args = args[1:]
		if word == "--" {
			return options, append(positional, args...), nil
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			if optionsFirst {
				return options, append(append(positional, word), args...), nil
			}
			positional = append(positional, word)
			continue
		}
		if name, ok := strings.CutPrefix(word, "--"); ok {
			name, value, hasValue := strings.Cut(name, "=")
			p, err := serverLongOption(params, name)
			if err != nil {
				return options, positional, err
			}
			switch {
			case p.Kind == ParamFlag && hasValue:
				return options, positional, fmt.Errorf("--%s doesn't allow an argument", p.Long)
			case p.Kind != ParamFlag && !hasValue:
				if len(args) == 0 {
					return options, positional, fmt.Errorf("--%s requires an argument", p.Long)
				}
				value, args = args[0], args[1:]
			}
			options = append(options, given{p.Long, value})
			continue
		}
		for letters := word[1:]; letters != ""; {
			i := slices.IndexFunc(params, func(p Param) bool { return p.Short != 0 && p.Short == letters[0] })
			if i < 0 {
				return options, positional, fmt.Errorf("invalid option %q", letters[0])
			}
			letters = letters[1:]
			if params[i].Kind == ParamFlag {
				options = append(options, given{params[i].Long, ""})
				continue
			}
			value := letters
			if letters == "" {
				if len(args) == 0 {
					return options, positional, fmt.Errorf("-%c requires an argument", params[i].Short)
				}
				value, args = args[0], args[1:]
			}
			options = append(options, given{params[i].Long, value})
			letters = ""
		}
	}
	return options, positional, nil
}

func serverLongOption(params []Param, name string) (Param, error) {
	var candidates []Param
	for _, p := range params {
		if p.Long == name {
			return p, nil
		}
		if strings.HasPrefix(p.Long, name) {
			candidates = append(candidates, p)
		}
	}
	if len(candidates) == 0 {
		return Param{}, fmt.Errorf("unrecognized option --%s", name)
	}
	for _, p := range candidates[1:] {
		if p.Short != candidates[0].Short || (p.Kind == ParamFlag) != (candidates[0].Kind == ParamFlag) {
			return Param{}, fmt.Errorf("--%s is ambiguous", name)
		}
	}
	return candidates[0], nil
}

// seriesParams are the parameters of one series' server.
func seriesParams(c *CommandInfo, s Series) []Param {
	var list []Param
	for _, p := range c.params() {
		if p.Series&s != 0 {
			list = append(list, p)
		}
	}
	return list
}

// The yardstick itself, measured against the C library's by way of getopt(1),
// which does not tell long options apart by their letters: abbreviations are
// compared with doveadm's in TestAbbreviationsAsInstalled.
func TestServerGetoptLikeGlibc(t *testing.T) {
	if _, err := exec.LookPath("getopt"); err != nil {
		t.Fatal("getopt is missing: apt-get install util-linux")
	}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	params := []Param{
		{Short: 'a', Long: "all", Kind: ParamFlag},
		{Short: 'b', Long: "big", Kind: ParamFlag},
		{Short: 'c', Long: "cat", Kind: ParamText},
		{Long: "dog", Kind: ParamText},
	}
	words := []string{
		"", "-", "--", "x", "-a", "-b", "-c", "-ab", "-ac", "-cx", "-c-a", "-bcx", "-c--", "-z", "-a-b", "--all", "--all=1",
		"--cat", "--cat=", "--cat=-a", "--cat==", "--dog", "--d=x", "--al", "--x", "---", "--=",
	}
	for range 300 {
		args := make([]string, random.IntN(6))
		for i := range args {
			args[i] = words[random.IntN(len(words))]
		}
		optionsFirst := random.IntN(2) == 0
		letters := "abc:"
		if optionsFirst {
			letters = "+" + letters
		}
		out, commandErr := exec.CommandContext(t.Context(), "getopt",
			append([]string{"-u", "-s", "sh", "-o", letters, "-l", "all,big,cat:,dog:", "--"}, args...)...).Output()
		options, positional, err := serverGetopt(params, optionsFirst, args)
		if (err != nil) != (commandErr != nil) {
			t.Errorf("%q, options first %v: %v, getopt says %v", args, optionsFirst, err, commandErr)
		}
		if err != nil || commandErr != nil {
			continue
		}
		var want []string
		for _, o := range options {
			want = append(want, o.name)
			if o.name == "cat" || o.name == "dog" {
				want = append(want, o.value)
			}
		}
		want = append(append(want, "--"), positional...)
		// getopt prints an option as it was written: by letter or by name.
		got := strings.Split(strings.TrimSuffix(strings.TrimPrefix(string(out), " "), "\n"), " ")
		for i := 0; i < len(got) && got[i] != "--"; i++ {
			switch got[i] {
			case "-a", "--all":
				got[i] = "all"
			case "-b", "--big":
				got[i] = "big"
			case "-c", "--cat":
				got[i] = "cat"
				i++
			case "--dog":
				got[i] = "dog"
				i++
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, options first %v: %q, getopt says %q", args, optionsFirst, want, got)
		}
	}
}
