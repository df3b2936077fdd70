package doveadm

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// listener is a connection to a real server with all plugins that bring
// commands. What it is asked ends in an option that no command has, so that
// nothing ever runs, and the server's log tells how far its getopt came.
type listener struct {
	series Series
	server *dovecot.Server
	conn   net.Conn
	r      *bufio.Reader
	asked  []func(log string)
}

// eachListener runs a test with a server of each series.
func eachListener(t *testing.T, test func(t *testing.T, l *listener)) {
	plugins := map[Series]dovecot.Options{
		Series23: {Version: dovecot.V23, Config: "mail_plugins = quota acl fts mail_crypt"},
		Series24: {Version: dovecot.V24, Config: "mail_plugins {\nfts = yes\nfts_flatcurve = yes\nmail_crypt = yes\n}"},
	}
	for series, options := range plugins {
		t.Run(string(options.Version), func(t *testing.T) {
			t.Parallel()
			l := &listener{series: series, server: dovecottest.Start(t, options)}
			conn, err := net.Dial("tcp", l.server.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			l.conn, l.r = conn, bufio.NewReader(conn)
			l.login(t)
			test(t, l)
			l.answer(t)
		})
	}
}

// login speaks the oldest version of the protocol: it is simple, and the code
// under test has no part in it.
func (l *listener) login(t *testing.T) {
	l.exchange(t, "VERSION\tdoveadm-server\t1\t0\n", "-\n")
	login := base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00" + l.server.Password))
	l.exchange(t, "PLAIN\t"+login+"\n", "+\n")
}

// exchange sends a line and expects the reply.
func (l *listener) exchange(t *testing.T, line, want string) {
	t.Helper()
	fmt.Fprint(l.conn, line)
	var got string
	for range strings.Count(want, "\n") {
		reply, err := l.r.ReadString('\n')
		if err != nil {
			t.Fatalf("%q: %q, then %v", line, got+reply, err)
		}
		got += reply
	}
	if got != want {
		t.Errorf("%q: got %q, want %q", line, got, want)
	}
}

// ask sends a request that the server must refuse as wrong usage. answer gets
// what the server logged of it, at the end of the test.
func (l *listener) ask(t *testing.T, c *CommandInfo, answer func(log string), args ...string) {
	t.Helper()
	l.exchange(t, "\t\t"+c.Name+"\t"+strings.Join(args, "\t")+"\n", "\n-USAGE\n")
	// An unknown command ends what is logged of the question.
	l.exchange(t, "\t\t"+mark(len(l.asked)), "\n-\n")
	l.asked = append(l.asked, answer)
}

func mark(question int) string { return fmt.Sprintf("no-such-command-%d\n", question) }

// answer answers what was asked.
func (l *listener) answer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.server.WaitLog(ctx, mark(len(l.asked)-1)); err != nil {
		t.Fatal(err)
	}
	log := l.server.Log()
	for question, answer := range l.asked {
		var own string
		own, log, _ = strings.Cut(log, mark(question))
		answer(own)
	}
}

// The servers know the commands of the table, and no others.
func TestCommandTableAsServed(t *testing.T) {
	eachListener(t, func(t *testing.T, l *listener) {
		for _, c := range Commands() {
			if c.Kind == ClientCommand || c.Series&l.series == 0 {
				l.exchange(t, "\t\t"+c.Name+"\t-:\n", "\n-\n")
			} else {
				l.compareOptions(t, c)
			}
		}
	})
}

// compareOptions asks for every option of the table, and for those that are
// not in it.
func (l *listener) compareOptions(t *testing.T, c *CommandInfo) {
	params := seriesParams(c, l.series)
	// Options that differ in more than their name, in getopt's eyes.
	differ := func(p Param) bool {
		first := params[0]
		return p.Short != first.Short || (p.Kind == ParamFlag) != (first.Kind == ParamFlag)
	}
	var args []string
	flags := ""
	for _, p := range params {
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
		}
		if p.Kind == ParamNumber && l.series == Series24 { // 2.3 takes anything
			l.ask(t, c, func(log string) {
				if !strings.Contains(log, "Invalid number: !") {
					t.Errorf("%s --%s is no number: %s", c.Name, p.Long, log)
				}
			}, "--"+p.Long+"=!", "-:")
		}
		args = append(args, "--"+p.Long+"="+value)
		if letter != "" {
			args = append(args, "-"+letter+value)
		}
	}
	// A flag that had a value would eat the rest of its group, a value that
	// were none would leave what is no option to be one.
	args = append(args, "-"+flags+":", "-;")
	l.ask(t, c, func(log string) {
		if !strings.Contains(log, "invalid option -- ':'") {
			t.Errorf("%s %q: %s", c.Name, args, log)
		}
	}, args...)

	// That there are no more: the empty abbreviation stands for all names, and
	// if any two differ, getopt lists the first and all that differ from it.
	// (Otherwise it takes the first and does not tell.)
	l.ask(t, c, func(log string) {
		switch {
		case len(params) == 0:
			if !strings.Contains(log, "unrecognized option '--=1'") {
				t.Errorf("%s has options in spite of an empty table: %s", c.Name, log)
			}
		case !slices.ContainsFunc(params, differ):
			if !strings.Contains(log, "invalid option -- ':'") {
				t.Errorf("%s has options that differ more than those of the table: %s", c.Name, log)
			}
		default:
			_, list, _ := strings.Cut(log, "possibilities:")
			list, _, _ = strings.Cut(list, "\n")
			listed := strings.Fields(strings.ReplaceAll(list, "'", ""))
			var want []string
			for i, p := range params {
				if i == 0 || differ(p) {
					want = append(want, "--"+p.Long)
				}
			}
			if !slices.Equal(listed, want) {
				t.Errorf("%s has the options %q, in the table %q", c.Name, listed, want)
			}
		}
	}, "--=1", "-:")
}

// How the server's getopt_long takes abbreviated names is what the parser
// believes.
func TestAbbreviationsAsInstalled(t *testing.T) {
	eachListener(t, func(t *testing.T, l *listener) {
		for _, test := range []struct {
			command, name string
			want          string // part of getopt's answer
			series        Series
		}{
			{"purge", "a", "'--all-users' doesn't allow an argument", bothSeries},
			{"purge", "all", "'--all-users' doesn't allow an argument", bothSeries},
			{"purge", "u", "is ambiguous", bothSeries},
			{"purge", "user", "invalid option", bothSeries},
			{"purge", "user-", "invalid option", bothSeries},
			{"purge", "t", "invalid option", bothSeries},
			{"purge", "n", "unrecognized option", Series23},
			{"purge", "n", "'--no-userdb-lookup' doesn't allow an argument", Series24},
			{"purge", "x", "unrecognized option", bothSeries},
			{"purge", "", "is ambiguous", bothSeries},
			{"save", "u", "is ambiguous", bothSeries},
			{"save", "ui", "unrecognized option", Series23},
			{"save", "g", "unrecognized option", Series23},
			{"save", "g", "invalid option", Series24},
			{"mailbox cache decision", "all", "'--all' doesn't allow an argument", bothSeries},
			{"mailbox cache decision", "al", "is ambiguous", bothSeries},
			{"mailbox cache decision", "all-", "'--all-users' doesn't allow an argument", bothSeries},
			{"fts tokenize", "t", "invalid option", bothSeries}, // trans-flags and text do not differ
			{"mailbox status", "t", "is ambiguous", bothSeries},
			{"mailbox status", "fields", "invalid option", bothSeries},
			{"mailbox status", "f", "is ambiguous", bothSeries},
			{"fetch", "f", "invalid option", bothSeries},
			{"sync", "all", "is ambiguous", bothSeries},
			{"sync", "n", "invalid option", Series23},
			{"sync", "n", "is ambiguous", Series24},
		} {
			if test.series&l.series == 0 {
				continue
			}
			c, _ := LookupCommand(test.command)
			p, problem := resolveLong(c.Params, test.name, l.series)
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
			l.ask(t, c, func(log string) {
				if !strings.Contains(log, test.want) {
					t.Errorf("%s --%s=1: %s, want %q", test.command, test.name, log, test.want)
				}
			}, "--"+test.name+"=1", "-:")
		}
	})
}
