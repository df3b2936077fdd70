package doveadm

import (
	"fmt"
	"strconv"
	"strings"
)

// InputArgsError says why a command that reads input must not be sent with its
// arguments: the server would refuse them, leave the input unread and take its
// lines for commands.
type InputArgsError struct {
	Command  string
	Argument string
	Reason   string
}

func (e *InputArgsError) Error() string {
	if e.Argument == "" {
		return fmt.Sprintf("%s: %s", e.Command, e.Reason)
	}
	return fmt.Sprintf("%s: argument %q %s", e.Command, e.Argument, e.Reason)
}

// InputArgs returns the arguments of a command that reads input in the one
// spelling that every server of the series takes: each option by its letter
// with its value behind it, then "--" and the positional arguments. args are
// those that NormalizeArgs left. The error is an *InputArgsError.
//
// Unlike a server it takes no abbreviated long names, and no option that the
// series does not have.
func (c *CommandInfo) InputArgs(series Series, args []string) ([]string, error) {
	fail := func(arg, reason string) ([]string, error) {
		return nil, &InputArgsError{Command: c.Name, Argument: arg, Reason: reason}
	}
	var options, positional []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			positional = append(positional, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			positional = append(positional, arg)
			continue
		}
		// The options of one argument: a long one, or a group of letters.
		for rest := arg[1:]; rest != ""; {
			p, value, hasValue, after := c.inputOption(series, rest)
			if p == nil {
				return fail(arg, "is no option that the backend's version knows")
			}
			rest = after
			letter := "-" + string(rune(p.Short))
			if p.Kind == ParamFlag {
				if hasValue {
					return fail(arg, "takes no value")
				}
				options = append(options, letter)
				continue
			}
			if !hasValue {
				if i++; i >= len(args) {
					return fail(arg, "needs a value")
				}
				value = args[i]
			}
			if p.Kind == ParamNumber {
				if _, err := strconv.ParseUint(value, 10, 32); err != nil {
					return fail(value, "is not a number")
				}
			}
			options = append(options, letter, value)
		}
	}
	return c.inputPositional(options, positional, fail)
}

// inputPositional puts the positional arguments behind the options.
func (c *CommandInfo) inputPositional(options, positional []string, fail func(arg, reason string) ([]string, error)) ([]string, error) {
	limit := 0
	for _, p := range c.Params {
		// A file name would be that of a file of the server, and the input
		// would not be read.
		if p.Positional && p.Kind != ParamFile {
			limit++
		}
	}
	switch {
	case len(positional) > limit:
		return fail(positional[limit], "is one too many")
	case len(positional) < c.MinArgs:
		return fail("", "an argument is missing")
	}
	options = append(options, "--")
	return append(options, positional...), nil
}

// inputOption finds the option at the beginning of rest, the text behind the
// first "-" of an argument or behind the last letter of a group.
func (c *CommandInfo) inputOption(series Series, rest string) (p *Param, value string, hasValue bool, after string) {
	if long, ok := strings.CutPrefix(rest, "-"); ok {
		name, value, hasValue := strings.Cut(long, "=")
		for i := range c.Params {
			p := &c.Params[i]
			if p.Long == name && p.Short != 0 && p.Series&series != 0 && !p.Positional && p.common == notCommon {
				return p, value, hasValue, ""
			}
		}
		return nil, "", false, ""
	}
	for i := range c.Params {
		p := &c.Params[i]
		if p.Short != rest[0] || p.Series&series == 0 || p.Positional || p.common != notCommon {
			continue
		}
		if p.Kind == ParamFlag {
			return p, "", false, rest[1:]
		}
		return p, rest[1:], len(rest) > 1, ""
	}
	return nil, "", false, ""
}
