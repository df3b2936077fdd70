package doveadm

import "strings"

// Effects is what a command with certain arguments makes a server do beyond
// working on the mail of the command's user.
type Effects struct {
	Danger Danger

	// Cause is the first dangerous parameter, by its long name, or the
	// argument that is not known. It is empty if the danger is in the command
	// itself.
	Cause string

	// OtherUser is the one other mail user that the command works on, as the
	// arguments name him; empty if there is none.
	OtherUser string

	// Everyone: the command may work on users of whom there is no list.
	Everyone bool
}

// argumentRule says in which way positional arguments are dangerous.
type argumentRule uint8

const (
	noRule           argumentRule = iota
	secondUser                    // copy, move: DESTINATION [user NAME] QUERY...
	mailLocation                  // import: DRIVER:PATH first
	dsyncDestination              // backup, sync: a host, a program or DRIVER:PATH
)

// Effects returns what the command does with these arguments, those that
// NormalizeArgs left.
//
// Which series will read the arguments is not known, so each reads them here as
// its getopt_long does, and what one of them finds counts. A server refuses all
// arguments if it does not know one of the options. Where no series knows one,
// the answer has Unforeseen: a later release may. It does not allocate.
func (c *CommandInfo) Effects(args []string) Effects {
	if !c.known() {
		return Effects{Danger: c.Danger | Unforeseen, Everyone: true}
	}
	e := Effects{Danger: c.Danger, Everyone: c.Kind == GlobalCommand && c.Right == RightAdmin}
	understood, unknown := false, ""
	for _, s := range [...]Series{Series23, Series24} {
		if c.Series&s == 0 {
			continue
		}
		r := seriesReader{command: c, series: s, args: args}
		var words positionalWords
		for r.next() {
			if r.param == nil {
				words.add(r.value)
			} else {
				e.option(c, r.param, r.value)
			}
		}
		if r.unknown != "" {
			unknown = r.unknown
		} else {
			understood = true
		}
		e.positional(c.rule, &words)
	}
	if !understood {
		e.add(Unforeseen, unknown)
	}
	return e
}

func (e *Effects) add(d Danger, cause string) {
	if d != 0 && e.Cause == "" {
		e.Cause = cause
	}
	e.Danger |= d
}

// other notes another user; of a second one only that there is one.
func (e *Effects) other(user string) {
	switch {
	case user == "" || holdsMask(user) || e.OtherUser != "" && e.OtherUser != user:
		e.Everyone = true
	default:
		e.OtherUser = user
	}
}

// option counts a parameter that is given by its letter or name.
func (e *Effects) option(c *CommandInfo, p *Param, value string) {
	e.add(p.Danger, p.Long)
	switch {
	case p.Positional && c.rule != noRule:
		// It changes which words are the positional ones, so that what they
		// mean is not looked into: all that the command can do counts.
		for i := range c.Params {
			if own := &c.Params[i]; own.Positional {
				e.add(own.Danger, own.Long)
				e.Everyone = e.Everyone || own.Danger&TouchesUsers != 0
			}
		}
	case p.Danger&TouchesUsers != 0:
		e.other(value)
	}
}

// positionalWords are the first positional arguments and the number of all.
type positionalWords struct {
	first [3]string
	n     int
}

func (w *positionalWords) add(word string) {
	if w.n < len(w.first) {
		w.first[w.n] = word
	}
	w.n++
}

func (e *Effects) positional(rule argumentRule, w *positionalWords) {
	switch {
	case w.n == 0:
	case rule == secondUser:
		// 2.3 ignores the case (cmd_copy_init in doveadm-mail-copymove.c).
		if w.n > 2 && strings.EqualFold(w.first[1], "user") {
			e.add(TouchesUsers, "source-user")
			e.other(w.first[2])
		}
	case rule == mailLocation:
		e.add(locationDanger(w.first[0]), "source-location")
	case rule == dsyncDestination:
		e.add(destinationDanger(w), "destination")
	}
}

// locationDanger is that of DRIVER:PATH. The drivers imapc and pop3c connect to
// another server and keep files here.
func locationDanger(location string) Danger {
	driver, _, _ := strings.Cut(location, ":")
	if strings.EqualFold(driver, "imapc") || strings.EqualFold(driver, "pop3c") {
		return OpensFiles | ReachesHosts
	}
	return OpensFiles
}

// destinationDanger is that of the destination of dsync
// (mirror_get_remote_cmd and parse_location in doveadm-dsync.c).
func destinationDanger(w *positionalWords) Danger {
	destination := w.first[0]
	if w.n > 1 {
		return RunsPrograms // a whole command line
	}
	for i := range len(destination) {
		switch b := destination[i]; {
		case '0' <= b && b <= '9', 'A' <= b && b <= 'Z', 'a' <= b && b <= 'z':
			continue
		case b != ':':
			if strings.ContainsAny(destination, " /") {
				return RunsPrograms
			}
			return ReachesHosts | RunsPrograms // [USER@]HOST by dsync_remote_cmd
		}
		switch destination[:i] {
		case "tcp", "tcps":
			return ReachesHosts
		case "remote", "remoteprefix":
			return ReachesHosts | RunsPrograms
		}
		return locationDanger(destination)
	}
	return ReachesHosts | RunsPrograms
}

// seriesReader reads arguments as a server of one series does: one option or
// positional argument at a time, until one that it would refuse.
type seriesReader struct {
	command *CommandInfo
	series  Series
	args    []string

	param   *Param // of the option; nil for a positional argument
	value   string
	unknown string // an option that the series does not have, the end of reading

	word    string // the argument that letters are of
	letters string // of a group, not yet read
	end     bool   // no more options
}

func (r *seriesReader) next() bool {
	if r.letters != "" {
		return r.letter()
	}
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
		r.end = r.end || r.command.OptionsFirst
		return true
	case word[1] == '-':
		name, inline, hasInline := strings.Cut(word[2:], "=")
		p, _ := resolveLong(r.command.Params, name, r.series)
		return r.option(p, word, inline, hasInline)
	}
	r.word, r.letters = word, word[1:]
	return r.letter()
}

// letter reads the next one of a group.
func (r *seriesReader) letter() bool {
	var p *Param
	for i := range r.command.Params {
		own := &r.command.Params[i]
		if own.Short == r.letters[0] && own.Series&r.series != 0 {
			p = own
			break
		}
	}
	r.letters = r.letters[1:]
	if p == nil || p.Kind == ParamFlag {
		return r.option(p, r.word, "", false)
	}
	inline := r.letters
	r.letters = ""
	return r.option(p, r.word, inline, inline != "")
}

func (r *seriesReader) option(p *Param, word, inline string, hasInline bool) bool {
	r.param, r.value = p, inline
	switch {
	case p == nil:
		r.unknown, r.letters, r.args = word, "", nil
		return false
	case p.Kind == ParamFlag || hasInline:
		// A flag with a value is refused by every series; counting it does
		// no harm.
		return true
	case len(r.args) == 0:
		return false // without its value no server takes it
	}
	r.value, r.args = r.args[0], r.args[1:]
	return true
}
