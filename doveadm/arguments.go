package doveadm

import (
	"fmt"
	"slices"
	"strings"
)

// Normalized is the outcome of NormalizeArgs.
type Normalized struct {
	// Args are the arguments without the common mail options, in the original
	// spelling and order; the very slice that was given if there was nothing
	// to take out. It must not be written to.
	Args []string

	// AllUsers: there was an -A (--all-users).
	AllUsers bool

	// UserFile is the value of the last -F (--user-file), if HasUserFile.
	// A doveadm program of 2.3 sends an empty one.
	UserFile    string
	HasUserFile bool

	// User is the value of the last -u (--user), if HasUser. It does not say
	// for whom a command runs; that is the user name field of the request.
	User    string
	HasUser bool

	// UserMask: User holds a * or a ?. A 2.3 client then expects the user name
	// as first column of every row, as it does with AllUsers and HasUserFile.
	UserMask bool
}

// ArgumentProblem says what is wrong with an argument.
type ArgumentProblem uint8

const (
	UnknownOption   ArgumentProblem = iota // in no series' table
	AmbiguousOption                        // abbreviates several long names
	MissingValue                           // the last argument needs another one
	UnexpectedValue                        // --flag=value
	UncertainOption                        // a common mail option, or part of something unknown
	ForbiddenByte                          // NUL, where a server would cut the argument
)

// ArgumentError is the first problem of a command's arguments, or the one for
// which they must not be sent.
type ArgumentError struct {
	Command  string // empty for an unknown command
	Argument string
	Problem  ArgumentProblem
}

func (e *ArgumentError) Error() string {
	command := e.Command
	if command == "" {
		command = "unknown command"
	}
	var what string
	switch e.Problem {
	case UnknownOption:
		what = "is known to neither Dovecot 2.3 nor 2.4"
	case AmbiguousOption:
		what = "is ambiguous: write the long name in full"
	case MissingValue:
		what = "needs a value"
	case UnexpectedValue:
		what = "takes no value"
	case UncertainOption:
		what = "may mean other users (-A, -F, -u): put it before options that only the server knows, as an argument of its own"
	case ForbiddenByte:
		what = "holds a NUL byte"
	}
	return fmt.Sprintf("%s: argument %q %s", command, e.Argument, what)
}

// refusedArgument is an option that no getopt accepts, whatever its table.
const refusedArgument = "-:"

// NormalizeArgs takes the options out of args that say for which users a
// command runs and through which socket: -A, -F, -u, -S, --trans-flags,
// --no-userdb-lookup, in all their spellings. The user name field of the
// request has that say. A server that finds them obeys: 2.4 answers -A by
// running the command for all of its users, both series read user names from
// the file of -F, and 2.3 adds a column for -A and for a mask in -u.
// Arguments of a GlobalCommand keep everything; its -u is something else.
//
// It reads args as the server's getopt_long does: options may follow
// positional arguments (not if OptionsFirst), flags may be grouped, the last
// letter of a group may have its value in the same or in the next argument,
// long names may be abbreviated, "--" ends the options, "-" is positional, and
// the argument after an option with a value is that value whatever it looks
// like. Series23 and Series24 are both consulted, so that the result is right
// for a server of either.
//
// The rule for what neither table decides: an option that is unknown, and
// every option of an unknown command, may or may not have a value, and options
// of an unknown command may or may not follow positional arguments. All these
// readings are followed. Where a common option is one in every reading, it is
// taken out. Where it is one in some readings only (-A in "-Z -A", "-ZA",
// "-Z -- -A"):
//   - -A, -F, and -u with a mask: nothing is to reach a server. Args is one
//     argument that makes every getopt refuse the command (USAGE), the error
//     says why, and the option is reported as if it had been there.
//   - anything else (-u with a name, -S, ...) harms nobody and stays as it is.
//
// The same refusal meets a common option that no getopt takes (without its
// value, or with one too many), because without the option the command would run;
// an abbreviation that is none of the table's but could become --all-users or
// --user-file with another table; and a NUL byte, where servers cut text.
//
// The error is an *ArgumentError. Apart from the refusals it tells of options
// that servers will refuse; they are left in place for the server to answer.
// A command with Input must not be sent with any error.
func (c *CommandInfo) NormalizeArgs(args []string) (Normalized, error) {
	if i := slices.IndexFunc(args, holdsNUL); i >= 0 {
		err := &ArgumentError{Command: c.Name, Argument: args[i], Problem: ForbiddenByte}
		return Normalized{Args: []string{refusedArgument}}, err
	}
	z := normalizer{command: c, args: args}
	z.run()
	switch {
	case z.refusal != nil:
		z.Args = []string{refusedArgument}
		return z.Normalized, z.refusal
	case z.problem != nil:
		return z.Normalized, z.problem
	}
	return z.Normalized, nil
}

func holdsNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

func holdsMask(user string) bool { return strings.ContainsAny(user, "*?") }

// positions is a set of what the next argument may be, one for each reading of
// the arguments before it.
type positions uint8

const (
	atAny   positions = 1 << iota // an option or a positional argument
	atValue                       // the value of the option before it
	atEnd                         // positional, as all that follow
)

type normalizer struct {
	Normalized

	command *CommandInfo
	args    []string
	i       int       // the argument being read
	at      positions // what it may be
	then    positions // what the next one may be
	cut     bool      // Args is a copy with something taken out
	problem *ArgumentError
	refusal *ArgumentError
}

func (z *normalizer) run() {
	z.Args = z.args
	z.at = atAny
	for ; z.i < len(z.args); z.i++ {
		word := z.args[z.i]
		z.then = z.at & atEnd
		if z.at&atValue != 0 {
			z.then |= atAny
		}
		switch {
		case z.at&atAny == 0:
		case word == "--":
			z.then |= atEnd
		case len(word) < 2 || word[0] != '-':
			if !z.command.OptionsFirst {
				z.then |= atAny
			}
			if z.command.OptionsFirst || !z.command.known() {
				z.then |= atEnd
			}
		case word[1] == '-':
			if z.long(word) {
				continue
			}
		default:
			if word = z.group(word); word == "" {
				continue
			}
		}
		if z.cut {
			z.Args = append(z.Args, word)
		}
		z.at = z.then
	}
	if z.at == atValue {
		z.report(z.args[len(z.args)-1], MissingValue)
	}
}

// report keeps the first problem of an option that stays.
func (z *normalizer) report(word string, p ArgumentProblem) {
	if z.problem == nil {
		z.problem = &ArgumentError{Command: z.command.Name, Argument: word, Problem: p}
	}
}

// refuse keeps the first reason for which nothing must be sent.
func (z *normalizer) refuse(word string, p ArgumentProblem) {
	if z.refusal == nil {
		z.refusal = &ArgumentError{Command: z.command.Name, Argument: word, Problem: p}
	}
}

// copyArgs prepares for taking something out of the current argument.
func (z *normalizer) copyArgs() {
	if !z.cut {
		z.cut = true
		z.Args = append(make([]string, 0, len(z.args)), z.args[:z.i]...)
	}
}

// value returns the value of an option at the end of the current argument.
func (z *normalizer) value(inline string, hasInline bool) (value string, ok bool) {
	if hasInline {
		return inline, true
	}
	if z.i+1 < len(z.args) {
		return z.args[z.i+1], true
	}
	return "", false
}

// found notes a common option that is to be taken out.
func (z *normalizer) found(o commonOption, value string) {
	switch o {
	case allUsers:
		z.AllUsers = true
	case userFile:
		z.UserFile, z.HasUserFile = value, true
	case userName:
		z.User, z.HasUser = value, true
		z.UserMask = holdsMask(value)
	}
}

// doubt notes something that is a common option in some readings only.
func (z *normalizer) doubt(o commonOption, value, word string) {
	if o == allUsers || o == userFile || o == userName && holdsMask(value) {
		z.found(o, value)
		z.refuse(word, UncertainOption)
	}
}

// long reads an argument that begins with -- and reports whether it was taken
// out; then z.at is set for the one that follows.
func (z *normalizer) long(word string) (gone bool) {
	name, inline, hasInline := strings.Cut(word[2:], "=")
	o := z.command.longOption(name)
	switch {
	case o.common != notCommon && o.certain && z.at == atAny:
		value := ""
		if o.flag && hasInline {
			z.refuse(word, UnexpectedValue)
		}
		if o.value {
			var ok bool
			if value, ok = z.value(inline, hasInline); !ok {
				z.refuse(word, MissingValue)
			}
		}
		z.copyArgs()
		if o.value && !hasInline {
			z.i++
		}
		z.found(o.common, value)
		return true // z.at stays atAny
	case o.common != notCommon:
		value, _ := z.value(inline, hasInline)
		z.doubt(o.common, value, word)
	case o.param == nil:
		if z.command.known() && z.at == atAny {
			z.report(word, o.problem)
		}
		// With the table of another release the name may mean one of these.
		for _, p := range commonParams {
			if z.command.Kind != GlobalCommand && strings.HasPrefix(p.Long, name) {
				value, _ := z.value(inline, hasInline)
				z.doubt(p.common, value, word)
			}
		}
	}
	switch {
	case hasInline:
		if !o.value && z.at == atAny {
			z.report(word, UnexpectedValue)
		}
		z.then |= atAny
	default:
		if o.flag {
			z.then |= atAny
		}
		if o.value {
			z.then |= atValue
		}
	}
	return false
}

// group reads an argument of option letters. It returns what is to stay of it;
// if that is nothing, z.at is set for the argument that follows.
func (z *normalizer) group(word string) (rest string) {
	sure := z.at == atAny
	kept := []byte(nil) // a copy, once a letter was taken out
	takeOut := func(j int) {
		z.copyArgs()
		if kept == nil {
			kept = append(make([]byte, 0, len(word)), word[:j]...)
		}
	}
	done := func(j int) string { // the letters from j on stay
		if kept == nil {
			return word
		}
		kept = append(kept, word[j:]...)
		if len(kept) == 1 {
			z.at = z.then
			return ""
		}
		if kept[1] == '-' {
			// "-A-all-users" must not become "--all-users".
			z.refuse(word, UnknownOption)
		}
		return string(kept)
	}
	for j := 1; j < len(word); j++ {
		o := z.command.shortOption(word[j])
		inline := word[j+1:]
		if o.param == nil && z.command.known() && sure {
			z.report(word, UnknownOption)
		}
		switch {
		case o.common != notCommon && o.flag:
			if !sure {
				z.doubt(o.common, "", word)
				break
			}
			z.found(o.common, "")
			takeOut(j)
			continue
		case o.common != notCommon:
			value, ok := z.value(inline, inline != "")
			switch {
			case !sure:
				z.doubt(o.common, value, word)
			case !ok:
				z.refuse(word, MissingValue)
			default:
				z.found(o.common, value)
				takeOut(j)
				if inline == "" {
					z.i++
				}
				z.then |= atAny
				return done(len(word))
			}
		}
		if o.value {
			if inline == "" {
				z.then |= atValue
			} else {
				z.then |= atAny
			}
			if !o.flag {
				return done(j)
			}
			sure = false
		}
		if kept != nil {
			kept = append(kept, word[j])
		}
	}
	z.then |= atAny
	return done(len(word))
}

// option is what the tables of all series say about one spelling.
type option struct {
	param   *Param // of the newest series that has it; nil if none has
	problem ArgumentProblem
	common  commonOption
	certain bool // all series that have it mean the same
	flag    bool // it may be without value
	value   bool // it may have one
}

func (o *option) add(p *Param) {
	if o.param == nil {
		o.common, o.certain = p.common, true
	} else if o.param.Long != p.Long {
		o.certain = false
		o.common = max(o.common, p.common)
	}
	o.param = p
	if p.Kind == ParamFlag {
		o.flag = true
	} else {
		o.value = true
	}
}

// params returns the parameters to go by: an unknown command has those of all
// mail commands.
func (c *CommandInfo) params() []Param {
	if c.known() {
		return c.Params
	}
	return commonParams
}

func (c *CommandInfo) shortOption(letter byte) (o option) {
	params := c.params()
	for i := range params {
		if p := &params[i]; p.Short == letter && letter != 0 {
			o.add(p)
		}
	}
	if o.param == nil {
		o.problem, o.flag, o.value = UnknownOption, true, true
	}
	return o
}

func (c *CommandInfo) longOption(name string) (o option) {
	for _, s := range [...]Series{Series23, Series24} {
		if c.known() && c.Series&s == 0 {
			continue
		}
		p, problem := resolveLong(c.params(), name, s)
		if p != nil {
			o.add(p)
		} else if o.problem != AmbiguousOption {
			o.problem = problem
		}
	}
	switch {
	case o.param == nil:
		o.flag, o.value = true, true
	case !c.known() && o.param.Long != name:
		// It may be the name of an option of its own.
		o.certain, o.flag, o.value = false, true, true
	}
	return o
}

// resolveLong finds the parameter of a long name as glibc's getopt_long does:
// an exact name wins; else an abbreviation of several is ambiguous, unless
// they have no difference but their name, where the first one is taken.
func resolveLong(params []Param, name string, s Series) (*Param, ArgumentProblem) {
	var first *Param
	ambiguous := false
	for i := range params {
		p := &params[i]
		if p.Series&s == 0 || !strings.HasPrefix(p.Long, name) {
			continue
		}
		if len(p.Long) == len(name) {
			return p, 0
		}
		if first == nil {
			first = p
		} else if p.Short != first.Short || (p.Kind == ParamFlag) != (first.Kind == ParamFlag) {
			ambiguous = true
		}
	}
	if ambiguous {
		return nil, AmbiguousOption
	}
	return first, UnknownOption
}

// argumentReader reads arguments of which every option is known, one option or
// positional argument at a time.
type argumentReader struct {
	command *CommandInfo
	args    []string

	param      *Param // of the option; nil for a positional argument
	value      string
	positional int  // how many positional arguments there were
	failed     bool // an argument was not understood

	letters string // of a group, not yet read
	end     bool   // no more options
}

// next reports whether there is another one.
func (r *argumentReader) next() bool {
	if r.letters == "" {
		if len(r.args) == 0 {
			return false
		}
		word := r.args[0]
		r.args = r.args[1:]
		switch {
		case !r.end && word == "--":
			r.end = true
			return r.next()
		case r.end || len(word) < 2 || word[0] != '-':
			r.param, r.value = nil, word
			r.positional++
			r.end = r.end || r.command.OptionsFirst
			return true
		case word[1] == '-':
			name, inline, hasInline := strings.Cut(word[2:], "=")
			o := r.command.longOption(name)
			return r.option(o, inline, hasInline)
		}
		r.letters = word[1:]
	}
	o := r.command.shortOption(r.letters[0])
	r.letters = r.letters[1:]
	if o.flag {
		return r.option(o, "", false)
	}
	inline := r.letters
	r.letters = ""
	return r.option(o, inline, inline != "")
}

func (r *argumentReader) option(o option, inline string, hasInline bool) bool {
	r.param, r.value = o.param, inline
	if o.flag == o.value || o.flag && hasInline || !o.flag && !hasInline && len(r.args) == 0 {
		r.failed = true
		return false
	}
	if !o.flag && !hasInline {
		r.value, r.args = r.args[0], r.args[1:]
	}
	return true
}
