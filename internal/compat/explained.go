package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// explanation is one difference that is right. It says exactly what a client
// sees instead: where it applies, nothing else will do, neither what the client
// sees without the proxy nor a third thing.
type explanation struct {
	id     explanationID
	what   string
	reason string

	// applies says where, by the case and what was seen without the proxy. If
	// nil: where a refusal of the case names this explanation.
	applies func(t *trial, direct observation) bool
	// change makes of what was seen directly what has to be seen through the
	// proxy. If nil: what that refusal says.
	change func(t *trial, o *observation)
}

// explanationID is how a case and an explanation find each other.
type explanationID string

const (
	noReply        explanationID = "no reply"
	malformedLine  explanationID = "malformed line"
	controlFlag    explanationID = "control character as a flag"
	controlInUser  explanationID = "control characters in a user name"
	batchCommand   explanationID = "batch"
	wholeServer    explanationID = "stop and reload"
	inputArguments explanationID = "arguments of commands with input"
	serverFile     explanationID = "-F with a file"
	allUsersNew    explanationID = "-A and -F of a 1.3 client"
	allUsersOld    explanationID = "-A of an old client on 2.4"
	userFileOld    explanationID = "-F of an old client"
	maskOld        explanationID = "-u with a mask of an old client on 2.4"
	maskNew        explanationID = "-u with a mask of a 1.3 client on 2.3"
	unknownForAll  explanationID = "-A with an unknown command"
	noLookup       explanationID = "--no-userdb-lookup on 2.3"
	ttlReached     explanationID = "proxy-ttl used up"
	ttlReplaced    explanationID = "proxy-ttl that is no number"
)

// explanations are all of them, in the order they are applied.
func explanations() []*explanation {
	return []*explanation{
		{
			id:     noReply,
			what:   "Where the server ends the connection without a reply, the proxy answers `-TEMPFAIL` with a log line.",
			reason: "Dovecot's process dies of many mistakes, a wrong search query for one. Through the proxy the client is told what happened and keeps its connection.",
			applies: func(t *trial, direct observation) bool {
				return !t.malformed() && t.refusal("") == nil && t.died(direct)
			},
			change: func(t *trial, o *observation) {
				o.Logs = slices.DeleteFunc(o.Logs, lostConnection)
				t.fail(o, doveadm.CodeTempFail, "backend "+backendName+" closed the connection without a reply (wrong arguments, or a crash: see its log)")
			},
		},
		{
			id:      malformedLine,
			what:    "A line that is no command is refused with the same words and the same end of the connection, but under the proxy's name.",
			reason:  "The line must not reach a backend's connection, which other clients use after this one.",
			applies: func(t *trial, _ observation) bool { return t.malformed() },
			change: func(_ *trial, o *observation) {
				for i, line := range o.Logs {
					if _, text, ok := strings.Cut(line, "doveadm client: "); ok {
						o.Logs[i] = "error: doveadm-proxy: doveadm client: " + text
					}
				}
			},
		},
		{
			id:     controlFlag,
			what:   "A flag that is a control character stands as `\\xNN` in the log line that refuses it.",
			reason: "Raw it could end the line, and the rest be taken for another one.",
			applies: func(t *trial, _ observation) bool {
				return t.malformed() && strings.HasPrefix(t.cmd.line, "\x01t\t")
			},
			change: func(_ *trial, o *observation) {
				for i, line := range o.Logs {
					o.Logs[i] = strings.ReplaceAll(line, "Unknown flag: \t", `Unknown flag: \x09`)
				}
			},
		},
		{
			id:     controlInUser,
			what:   "A user name with control characters is answered `-NOUSER` by the proxy itself, with a log line that says why.",
			reason: "A 2.3 server breaks its own log line at a line end in the name, and the rest becomes a forged line. No user has such a name.",
			applies: func(t *trial, _ observation) bool {
				return strings.ContainsFunc(t.user, func(r rune) bool { return r < ' ' || r == 0x7f })
			},
			change: func(t *trial, o *observation) {
				for i, line := range o.Logs {
					o.Logs[i] = noSuchUser.ReplaceAllString(line, "doveadm-proxy: user name with control characters")
				}
				if t.client.raw { // where the name itself broke the line
					o.Logs = nil
					t.fail(o, doveadm.CodeNoUser, "user name with control characters")
				}
			},
		},
		{
			id:     batchCommand,
			what:   "`batch` is answered `-USAGE` with a log line.",
			reason: "It is several commands in one, and neither their options nor their rows can be told apart. Only 2.3 has it.",
		},
		{
			id:     wholeServer,
			what:   "`stop`, `reload` and `service stop` are answered `-NOPERM` with a log line.",
			reason: "They are for the administrator of one backend, not for clients of all. (These cases are not run directly: the server would end.)",
		},
		{
			id:     inputArguments,
			what:   "`save` and `sieve put` with arguments that the backend would refuse are answered `-USAGE` by the proxy, with a log line.",
			reason: "Directly the server leaves the input unread and executes its lines as commands, which shows as further log lines or a lost connection. A file name would be that of a file of the backend.",
		},
		{
			id:     serverFile,
			what:   "`-F` with a file name is answered `-NOPERM` with a log line.",
			reason: "Directly the server opens its own file of that name and prints the lines it finds there as unknown users.",
		},
		{
			id:     allUsersNew,
			what:   "`-A` and `-F` in the arguments of a client of 1.3 or newer are answered `-USAGE` with a log line.",
			reason: "Such clients send one command for each user and no such option. Directly a 2.4 server runs the command for all its users, whoever the request is for.",
		},
		{
			id:     allUsersOld,
			what:   "`-A` in the arguments of a client below 1.3 gives the rows of the user of the request, with the user name in front, also on a 2.4 backend.",
			reason: "A 2.3 program sends one request for each user with `-A` in it. Directly a 2.4 server runs each of them for all its users.",
			applies: func(t *trial, _ observation) bool {
				return t.common(optionA) && t.old() && t.backend == dovecot.V24
			},
			change: (*trial).withoutOption,
		},
		{
			id:      userFileOld,
			what:    "`-F` with an empty name in the arguments of a client below 1.3 gives the rows of the user of the request, with the user name in front.",
			reason:  "A 2.3 program sends it for each user of its file. Directly every server fails to open a file without a name.",
			applies: func(t *trial, _ observation) bool { return t.common(optionF) && t.old() },
			change:  (*trial).withoutOption,
		},
		{
			id:     maskOld,
			what:   "`-u` with a mask in the arguments of a client below 1.3 puts the user name in front of each row, also on a 2.4 backend.",
			reason: "A 2.3 program counts on it, and a 2.4 server does not do it: rows shift, or the program panics.",
			applies: func(t *trial, _ observation) bool {
				return t.common(optionMask) && t.old() && t.backend == dovecot.V24
			},
			change: (*trial).withoutOption,
		},
		{
			id:     maskNew,
			what:   "`-u` with a mask in the arguments of a client of 1.3 or newer puts no user name in front of the rows, also on a 2.3 backend.",
			reason: "A 2.4 program puts it there itself. Directly it stands there twice, and rows shift or the program panics.",
			applies: func(t *trial, _ observation) bool {
				return t.common(optionMask) && !t.old() && t.backend == dovecot.V23
			},
			change: (*trial).withoutOption,
		},
		{
			id:     unknownForAll,
			what:   "`-A` with a command that the proxy does not know is answered `-USAGE` with a log line.",
			reason: "It might be a command of a newer release that a backend has and would run for all its users.",
		},
		{
			id:      noLookup,
			what:    "`--no-userdb-lookup` is taken out before a 2.3 backend, which does not know it.",
			reason:  "It says how a 2.4 program finds its users, which is over when the request is on its way.",
			applies: func(t *trial, _ observation) bool { return t.common(optionNoLookup) && t.backend == dovecot.V23 },
			change:  (*trial).withoutOption,
		},
		{
			id:     ttlReached,
			what:   "A request whose proxy-ttl is 1 or less is answered `-TEMPFAIL` with the log line of Dovecot's own proxies.",
			reason: "The proxy is one hop. Directly the user's server runs the command, because it needs no further hop.",
		},
		{
			id:     ttlReplaced,
			what:   "A proxy-ttl that is no number is not complained about.",
			reason: "The proxy replaces it by what is left of the default, 5, which is also what Dovecot goes on with.",
			applies: func(t *trial, _ observation) bool {
				return slices.Contains(t.cmd.extra, "proxy-ttl=NaN") && t.backend == dovecot.V24
			},
			change: func(_ *trial, o *observation) {
				o.Logs = slices.DeleteFunc(o.Logs, func(line string) bool { return strings.HasSuffix(line, ": Invalid proxy-ttl value: NaN") })
			},
		},
	}
}

var noSuchUser = regexp.MustCompile(`doveadm\(127\.0\.0\.1,.*\): (cmd [^:]*: )?User doesn't exist`)

// covers reports whether the explanation applies.
func (e *explanation) covers(t *trial, direct observation) bool {
	if e.applies == nil {
		return t.refusal(e.id) != nil
	}
	return e.applies(t, direct)
}

// apply changes o to what has to be seen.
func (e *explanation) apply(t *trial, o *observation) {
	if e.change != nil {
		e.change(t, o)
		return
	}
	r := t.refusal(e.id)
	*o = observation{State: t.before, Logs: slices.DeleteFunc(o.Logs, func(line string) bool {
		return t.client.raw || strings.Contains(line, "ADDR") // what the program says of itself stays
	})}
	t.fail(o, r.code, r.reason)
}

// refusal returns that of the case which has the explanation, or any if id is
// empty.
func (t *trial) refusal(id explanationID) *refusal {
	for i := range t.cmd.refusals {
		r := &t.cmd.refusals[i]
		switch {
		case id != "" && id != r.why, r.backends&series(t.backend) == 0:
		case !t.client.raw && r.backends != bothSeries && r.backends&series(t.client.version) != 0:
			// A program refuses itself what a server of its release refuses.
		case r.why == allUsersNew && t.old(), r.why == unknownForAll && !t.old():
		default:
			return r
		}
	}
	return nil
}

// old reports whether the client is one that leaves the user name column to
// the server.
func (t *trial) old() bool {
	if t.client.raw {
		return t.client.minor < doveadm.MinorExtraFields
	}
	return t.client.version == dovecot.V23
}

// common reports whether the case has such an option.
func (t *trial) common(kind optionKind) bool {
	return t.cmd.common != nil && t.cmd.common.kind == kind
}

// withoutOption sets o to what the same command gives without the option, with
// the user name in front of each row where the client expects it.
func (t *trial) withoutOption(o *observation) {
	plain := *t.cmd
	plain.args = t.cmd.common.plain
	state := o.State
	*o = t.directly(plain)
	o.State = state
	if !t.old() || t.cmd.common.kind == optionNoLookup || t.cmd.common.columns == 0 {
		return
	}
	var rows strings.Builder
	fields := strings.SplitAfter(o.Output, "\t")
	for i, field := range fields {
		if i%t.cmd.common.columns == 0 && field != "" {
			rows.Write(doveadm.AppendEscaped(nil, t.user))
			rows.WriteByte('\t')
		}
		rows.WriteString(field)
	}
	o.Output = rows.String()
}

// malformed reports whether the case is a line that is no command.
func (t *trial) malformed() bool {
	var parsed doveadm.Command
	return t.cmd.line != "" && parsed.Parse([]byte(strings.TrimSuffix(t.cmd.line, "\n"))) != nil
}

// died reports whether the server has closed the connection instead of
// answering.
func (t *trial) died(direct observation) bool {
	if t.client.raw {
		return direct.Status == ""
	}
	return slices.ContainsFunc(direct.Logs, lostConnection)
}

// lostConnection finds what the doveadm program says about that.
func lostConnection(line string) bool {
	return strings.Contains(line, "doveadm server disconnected before handshake") ||
		strings.Contains(line, ": Command ") && strings.Contains(line, " failed for ")
}

// fail sets a status that the proxy makes up, and the log line that goes with
// it.
func (t *trial) fail(o *observation, code, reason string) {
	reason = "doveadm-proxy: " + reason
	if t.client.raw {
		o.Status = "-" + code
		if code == "" {
			o.Status = "-"
		}
		if t.client.minor >= doveadm.MinorMultiplex {
			o.Logs = append(o.Logs, "error: "+reason)
		}
		return
	}
	o.Status = fmt.Sprintf("exit %d", exitCodes[code])
	line := fmt.Sprintf("doveadm(%s): Error: remote(ADDR): %s", t.user, reason)
	if t.cmd.debug {
		line = "TIME " + line
	}
	o.Logs = append(o.Logs, line)
}

// exitCodes of the doveadm program of both versions.
var exitCodes = map[string]int{
	doveadm.CodeUsage: 64, doveadm.CodeNoUser: 67, doveadm.CodeTempFail: 75, doveadm.CodeNoPerm: 77,
}
