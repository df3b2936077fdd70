package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// command is one case: what a client is asked to run. All clients that can
// express it run it.
type command struct {
	title string // unique among all cases

	verbose, debug bool
	user           string // empty: that of the worker
	noUser         bool   // the user name is empty
	name           string
	args           []string
	input          []byte // of save and sieve put
	hasInput       bool

	clients kinds // that run it

	// For raw clients only.
	extra []string // fields behind flag x, from 1.3 on
	line  string   // if not empty: a request as it stands on the wire, LF included

	// For the doveadm program only.
	format string // -f
	many   string // options for several users, in the place of -u: "-A"

	// deadly: directly it would end the server, so only the proxy is asked.
	deadly bool

	// What an explanation has to know of the case, see there.
	refusals []refusal
	common   *commonOption
}

// kinds of clients.
type kinds uint8

const (
	allKinds kinds = iota
	rawOnly
	cliOnly
)

// refusal is what the proxy answers without asking a backend.
type refusal struct {
	why      explanationID
	code     string // of the status
	reason   string // in the log line
	backends doveadm.Series
}

// commonOption tells of an option that says for whom a command runs.
type commonOption struct {
	kind    optionKind
	plain   []string // the arguments without it
	columns int      // of the command's rows
}

type optionKind uint8

const (
	optionA        optionKind = iota // -A
	optionF                          // -F with an empty name, as a 2.3 program sends it
	optionMask                       // -u with a mask
	optionNoLookup                   // --no-userdb-lookup
)

func cmd(name string, args ...string) command { return command{name: name, args: args} }

func (c command) withInput(text string) command {
	c.input, c.hasInput = []byte(text), true
	return c
}

// titled tells a case apart from others of the same arguments.
func (c command) titled(what string) command {
	c.title = what
	return c
}

func (c command) by(k kinds) command {
	c.clients = k
	return c
}

func (c command) as(user string) command {
	c.user = user
	return c
}

const bothSeries = doveadm.Series23 | doveadm.Series24

// refused: the proxy answers itself, whatever backends it has.
func (c command) refused(why explanationID, code, reason string) command {
	return c.refusedFor(bothSeries, why, code, reason)
}

// refusedFor: the proxy answers itself because the backend is of such a series.
func (c command) refusedFor(s doveadm.Series, why explanationID, code, reason string) command {
	c.refusals = append(slices.Clone(c.refusals), refusal{why, code, reason, s})
	return c
}

// self in an argument stands for the user, home for the user's home on the
// server that has the mail, and teamFile for a file with the names of the team.
const (
	self     = "SELF"
	home     = "HOME"
	teamFile = "TEAMFILE"
)

// Paths in arguments, the same for every server. Dovecot makes a directory that
// a command names, with the rights of root where it can: what shall not exist
// is below a file, where nobody can make it.
const (
	someFile = "/etc/passwd"
	nowhere  = someFile + "/none"
)

// fill returns the case with what its placeholders stand for.
func (c *command) fill(user, team string) *command {
	filled := *c
	replace := strings.NewReplacer(self, user, teamFile, team)
	filled.args = nil
	for _, a := range c.args {
		filled.args = append(filled.args, replace.Replace(a))
	}
	filled.line = replace.Replace(c.line)
	filled.many = replace.Replace(c.many)
	return &filled
}

// at returns the case with the user's home in its arguments.
func (c *command) at(dir string) *command {
	filled := *c
	filled.args = nil
	for _, a := range c.args {
		filled.args = append(filled.args, strings.ReplaceAll(a, home, dir))
	}
	return &filled
}

// changes reports whether the case may change the mail of its user.
func (c *command) changes() bool {
	if c.many != "" {
		return false
	}
	info, _, _ := doveadm.LookupWords(c.name, c.args)
	return c.line == "" && info.Repeat != doveadm.RepeatReadOnly
}

// reachesEverybody reports whether the case may read or change the mail of all
// users.
func (c *command) reachesEverybody() bool {
	return c.common != nil && c.common.kind == optionA || c.many == "-A" || c.many == "-u *"
}

// of returns the user for whom the case runs with a worker.
func (c *command) of(worker string) string {
	switch {
	case c.noUser:
		return ""
	case c.user == "":
		return worker
	}
	return c.user
}

// describe returns what the case runs, in one line.
func (c *command) describe() string {
	var words []string
	if c.line != "" {
		words = append(words, "line "+quoteWord(c.line))
	} else {
		words = append(words, c.name)
	}
	for _, a := range c.args {
		words = append(words, quoteWord(a))
	}
	text := strings.Join(words, " ")
	switch {
	case c.verbose:
		text = "-v " + text
	case c.debug:
		text = "-D " + text
	}
	if c.format != "" {
		text = "-f " + c.format + " " + text
	}
	if c.many != "" {
		text += " for " + c.many
	}
	if c.user != "" || c.noUser {
		text += " for " + quoteWord(c.user)
	}
	for _, e := range c.extra {
		text += " with " + quoteWord(e)
	}
	if c.title != "" {
		text += ", " + c.title
	}
	return text
}

func quoteWord(s string) string {
	if q := fmt.Sprintf("%q", s); s == "" || len(q) != len(s)+2 || strings.Contains(s, " ") {
		if len(q) > 60 {
			return q[:57] + "..."
		}
		return q
	}
	return s
}

func series(version dovecot.Version) doveadm.Series {
	if version == dovecot.V24 {
		return doveadm.Series24
	}
	return doveadm.Series23
}
