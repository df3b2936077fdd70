package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// allCases returns every case for backends of a version, in a fixed order.
func allCases(version dovecot.Version) []command {
	good := goodCases()
	list := slices.Concat(
		good, variants(version, good), oddCases(), largeCases(), formatCases(), commonOptionCases(), wireCases(),
		globalCases(), manyCases(),
	)
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		c.title = c.describe()
		if seen[c.title] {
			panic("two cases are called " + c.title)
		}
		seen[c.title] = true
	}
	return list
}

// variants makes of the first good case of each command of a version others
// that Dovecot answers differently.
func variants(version dovecot.Version, good []command) (list []command) {
	done := map[string]bool{}
	for _, c := range good {
		info, known := doveadm.LookupCommand(c.name)
		if !known {
			panic(c.name + " is not in the table")
		}
		if !done[c.name] && info.Series&series(version) != 0 {
			done[c.name] = true
			list = append(list, variantsOf(version, c, info)...)
		}
	}
	return list
}

func variantsOf(version dovecot.Version, c command, info *doveadm.CommandInfo) (list []command) {
	add := func(what string, change func(*command)) *command {
		v := c
		v.args = slices.Clone(c.args)
		v.title = what
		change(&v)
		list = append(list, v)
		return &list[len(list)-1]
	}
	// What is refused of a command with input, whose first case is not.
	wrong := func(v *command, problem string) {
		if info.Input || len(c.refusals) > 0 {
			v.clients = rawOnly // a program finds these itself
		}
		if info.Input {
			*v = v.refused(inputArguments, doveadm.CodeUsage, c.name+": "+problem)
		}
	}
	add("", func(v *command) { v.verbose = true })
	add("", func(v *command) { v.debug = true })
	add("", func(v *command) { v.user = nobody })
	wrong(add("unknown option", func(v *command) { v.args = append([]string{"-y"}, v.args...) }),
		`argument "-y" is known to neither Dovecot 2.3 nor 2.4`)
	wrong(add("unknown long option", func(v *command) { v.args, v.clients = append([]string{"--no-such-option=1"}, v.args...), rawOnly }),
		`argument "--no-such-option=1" is known to neither Dovecot 2.3 nor 2.4`)
	if info.MinArgs > 0 {
		wrong(add("no argument", func(v *command) { v.args = nil }), "an argument is missing")
	}
	if info.MinArgs > 1 {
		wrong(add("too few arguments", func(v *command) { v.args = v.args[:info.MinArgs-1] }), "an argument is missing")
	}
	if limit := info.MaxArgs(); limit >= 0 {
		wrong(add("too many arguments", func(v *command) {
			for range limit + 1 {
				v.args = append(v.args, "surplus")
			}
		}), `argument "surplus" is one too many`)
	}
	if info.OptionsFirst {
		return list // options at the end would be arguments
	}
	value, number := false, false
	for _, p := range info.Params {
		if p.Positional || p.Short == 0 || p.Series&series(version) == 0 || strings.ContainsRune("ASuF", rune(p.Short)) {
			continue
		}
		option := "-" + string(rune(p.Short))
		if p.Kind != doveadm.ParamFlag && !value {
			value = true
			wrong(add("missing value", func(v *command) { v.args, v.clients = append(v.args, option), rawOnly }),
				fmt.Sprintf("argument %q needs a value", option))
		}
		if p.Kind == doveadm.ParamNumber && !number && !info.Input {
			number = true
			add("bad number", func(v *command) { v.args = append([]string{option, "NaN"}, v.args...) })
		}
	}
	if first, rest, several := strings.Cut(c.name, " "); several {
		add("words in fields", func(v *command) {
			v.name, v.args, v.clients = first, append(strings.Fields(rest), v.args...), rawOnly
		})
	}
	return list
}
