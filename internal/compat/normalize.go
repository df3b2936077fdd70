package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// normalization is one kind of text that differs between two runs of the same
// command, whoever is asked.
type normalization struct {
	what   string
	reason string
	apply  func(n *normalizer, text string) string
}

// normalizer makes what a client saw of one twin comparable with what it saw
// of the other.
type normalizer struct {
	addr  string          // that the client connected to
	dir   string          // of the twin, as its programs see it
	known map[string]bool // random numbers that are the same on both twins
	since time.Time       // the first command was run
	until time.Time       // the last one has ended
}

var (
	sessionIDs  = regexp.MustCompile(`<\d+><[^>]*>`)
	tempNames   = regexp.MustCompile(`temp\.[^./ ]+\.\d+\.`)
	processIDs  = regexp.MustCompile(`doveadm\(\d+\)`)
	anyPrefix   = regexp.MustCompile(`doveadm\((?:PID|127\.0\.0\.1.*?)\): ((?:doveadm: )*(?:Client sent|Unexpected or incomplete option|Extraneous arguments|Invalid parameter|doveadm client:|command$))`)
	backtraces  = regexp.MustCompile(`Raw backtrace: .*`)
	randomHex   = regexp.MustCompile(`[0-9a-f]{16,}`)
	dates       = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?`)
	numbers     = regexp.MustCompile(`\d+`)
	attributeOf = regexp.MustCompile(`: Import attribute `)
)

// normalizations apply to everything that is compared, in this order.
func normalizations() []normalization {
	return []normalization{
		{
			"the address of the server", "the client names the address it connected to",
			func(n *normalizer, text string) string { return strings.ReplaceAll(text, n.addr, "ADDR") },
		},
		{
			"the directory of the server", "each of the two servers has its own",
			func(n *normalizer, text string) string { return strings.ReplaceAll(text, n.dir, "DIR") },
		},
		{
			"process and session ids", "each connection has a process of its own, and each command a session id",
			func(_ *normalizer, text string) string {
				text = tempNames.ReplaceAllString(text, "temp.HOST.PID.")
				return processIDs.ReplaceAllString(sessionIDs.ReplaceAllString(text, "<PID><SESSION>"), "doveadm(PID)")
			},
		},
		{
			"the log prefix of a request that is refused before it runs",
			"a server logs it under the user of the request before it on the same connection, whoever sent that one",
			func(_ *normalizer, text string) string { return anyPrefix.ReplaceAllString(text, "doveadm(...): $1") },
		},
		{
			"backtraces", "a process that panics logs addresses, which are random",
			func(_ *normalizer, text string) string {
				return backtraces.ReplaceAllString(text, "Raw backtrace: ...")
			},
		},
		{
			"GUIDs and keys that the command made", "they are random; those from before are the same on both servers and are compared",
			func(n *normalizer, text string) string {
				return randomHex.ReplaceAllStringFunc(text, func(hex string) string {
					if n.known[hex] {
						return hex
					}
					return "RANDOM"
				})
			},
		},
		{
			"times since the first command", "the clock goes on between the two, and the UIDVALIDITY of a new mailbox is counted up from it; times from before are the same on both servers and are compared",
			(*normalizer).times,
		},
	}
}

func (n *normalizer) times(text string) string {
	recent := func(t time.Time) bool {
		return !t.Before(n.since.Truncate(time.Second)) && !t.After(n.until.Add(10*time.Minute))
	}
	text = dates.ReplaceAllStringFunc(text, func(s string) string {
		if t, err := time.Parse(time.DateTime, s[:len(time.DateTime)]); err != nil || !recent(t) {
			return s
		}
		return "TIME"
	})
	return numbers.ReplaceAllStringFunc(text, func(s string) string {
		if len(s) != 10 {
			return s
		}
		if sec, err := strconv.ParseInt(s, 10, 64); err != nil || !recent(time.Unix(sec, 0)) {
			return s
		}
		return "TIME"
	})
}

// orderNormalization is a kind of output whose order or layout differs between
// two runs of some commands.
type orderNormalization struct {
	what    string
	reason  string
	applies func(c client, cmd *command) bool
	apply   func(c client, o *observation)
}

func orderNormalizations() []orderNormalization {
	return []orderNormalization{
		{
			"the keys that `mailbox metadata list` and `mail dict iter` print, and how often a key is repeated",
			"they come from a hash table whose order is random in each process; Dovecot leaves out repetitions that follow each other",
			func(_ client, cmd *command) bool {
				return strings.HasPrefix(cmd.name+" "+strings.Join(cmd.args, " "), "mailbox metadata list") ||
					strings.HasPrefix(cmd.name, "mailbox metadata list") || strings.HasPrefix(cmd.name, "mail dict iter")
			},
			func(c client, o *observation) {
				separator := "\n"
				if c.raw {
					separator = "\t"
				}
				fields := strings.Split(o.Output, separator)
				slices.Sort(fields)
				o.Output = strings.Join(slices.Compact(fields), separator)
			},
		},
		{
			"the order in which `backup` and `sync` log attributes with `-D`", "it is that of the same hash table",
			func(_ client, cmd *command) bool { return cmd.debug && (cmd.name == "backup" || cmd.name == "sync") },
			func(_ client, o *observation) {
				var others, attributes []string
				for _, line := range o.Logs {
					if attributeOf.MatchString(line) {
						attributes = append(attributes, line)
					} else {
						others = append(others, line)
					}
				}
				slices.Sort(attributes)
				o.Logs = append(others, attributes...)
			},
		},
		{
			"white space in large output of the doveadm program",
			"it prints a value in another layout if the value has not arrived as one piece, which depends on the moment (`-f tab` adds TABs, `-f pager` moves line ends)",
			func(c client, cmd *command) bool { return !c.raw && cmd.user == bigUser },
			func(_ client, o *observation) {
				o.Output = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\f", "").Replace(o.Output)
			},
		},
	}
}

// normalize makes o comparable.
func (n *normalizer) normalize(c client, cmd *command, o observation) observation {
	for _, rule := range normalizations() {
		o.Output = rule.apply(n, o.Output)
		o.State = rule.apply(n, o.State)
		for i, line := range o.Logs {
			o.Logs[i] = rule.apply(n, line)
		}
	}
	for _, rule := range orderNormalizations() {
		if rule.applies(c, cmd) {
			rule.apply(c, &o)
		}
	}
	// Names of keys are sorted in it, which may be random.
	state := strings.Split(o.State, "\n")
	slices.Sort(state)
	o.State = strings.Join(state, "\n")
	return o
}
