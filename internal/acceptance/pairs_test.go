package acceptance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// startMixed starts a backend of each version: the first is 2.3 and has the
// mail of u1-1 and u1-2, the second 2.4 and that of u2-1 and u2-2. Each knows
// the users of both, so that its configuration does for a command that asks for
// all of them.
func startMixed(t *testing.T, config func(version dovecot.Version) string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir()}
	for i, version := range dovecot.Versions() {
		s := dovecottest.Start(t, dovecot.Options{
			Version: version, Name: fmt.Sprintf("mail%d", i+1),
			Users:  []string{"u1-1", "u1-2", "u2-1", "u2-2"},
			Config: config(version),
		})
		c.servers = append(c.servers, s)
	}
	return c
}

// seedMixed gives each user of a mixed cluster mailsOf mails in INBOX and one
// in Sent.
func (c *cluster) seedMixed() {
	c.t.Helper()
	for i, s := range c.servers {
		for _, user := range s.Users[2*i : 2*i+2] {
			for n := range mailsOf(user) {
				if err := s.SaveMail(user, "INBOX", dovecot.Message(user, fmt.Sprintf("mail %d of %s", n+1, user))); err != nil {
					c.t.Fatal(err)
				}
			}
			if err := s.SaveMail(user, "Sent", dovecot.Message(user, "sent")); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

// client is the real command of a version with the users of its server.
func (c *cluster) client(version dovecot.Version, addr, password string, options ...string) dovecot.Client {
	s := c.servers[slices.Index(dovecot.Versions(), version)]
	return dovecot.Client{Version: version, Addr: addr, Password: password, Config: s.Config, Options: options}
}

// mailsOf is how many mails a user of a mixed cluster has in INBOX: the users of
// the second backend have one more.
func mailsOf(user string) int {
	if strings.HasPrefix(user, "u2-") {
		return 3
	}
	return 2
}

// size is the vsize of a message: with CRLF.
func size(user, subject string) int {
	m := dovecot.Message(user, subject)
	return len(m) + bytes.Count(m, []byte("\n"))
}

// pairCase is a command and the rows that a user has of it, of columns that are
// separated by TABs.
type pairCase struct {
	format string // of the command line; empty: the command's own
	name   string
	args   []string
	header string // of what has one
	rows   func(user string) []string
}

var pairCases = []pairCase{
	{"", "mailbox list", nil, "", func(string) []string { return []string{"INBOX", "Sent"} }},
	// As a table, with which doveadm crashes if a column is missing.
	{"", "quota get", nil, "Quota name\tType\tValue\tLimit\t%", func(user string) []string {
		return []string{"User quota\tSTORAGE\t1\t1048576\t0", fmt.Sprintf("User quota\tMESSAGE\t%d\t-\t0", mailsOf(user)+1)}
	}},
	{"tab", "search", []string{"subject", "mail 2"}, "mailbox-guid\tuid", func(string) []string { return []string{"GUID\t2"} }},
	{"", "fetch", []string{"uid hdr.subject", "mailbox", "INBOX"}, "", func(user string) (rows []string) {
		for i := range mailsOf(user) {
			rows = append(rows, fmt.Sprintf("uid: %d\thdr.subject: mail %[1]d of %s", i+1, user))
		}
		return rows
	}},
	{
		"tab", "mailbox status",
		[]string{"all", "*"},
		"mailbox\tmessages\trecent\tuidnext\tuidvalidity\tunseen\thighestmodseq\tvsize\tguid\tfirstsaved",
		func(user string) []string {
			n := mailsOf(user)
			return []string{
				fmt.Sprintf("INBOX\t%[1]d\t%[1]d\t%[2]d\tTIME\t%[1]d\t2\t%[3]d\tGUID\tTIME", n, n+1, n*size(user, "mail 1 of "+user)),
				fmt.Sprintf("Sent\t1\t1\t2\tTIME\t1\t2\t%d\tGUID\tTIME", size(user, "sent")),
			}
		},
	},
	{"", "mailbox status", []string{"-t", "messages", "*"}, "", func(user string) []string {
		return []string{fmt.Sprintf("messages=%d", mailsOf(user)+1)}
	}},
}

// TestPairs: the command of each version gets the right rows from a backend of
// each version, for one user, a mask, all users and a file of users. Several of
// these pairs do not work without a proxy.
func TestPairs(t *testing.T) {
	t.Parallel()
	c := startMixed(t, func(dovecot.Version) string { return "" })
	c.seedMixed()
	for _, s := range c.servers {
		if err := os.WriteFile(filepath.Join(s.Dir, "some-users"), []byte("u1-2\nu2-1\nu1-nobody\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })

	for i, version := range dovecot.Versions() {
		file, err := version.Inside(filepath.Join(c.servers[i].Dir, "some-users"))
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []struct {
			args  []string
			users []string
			exit  int
		}{
			{[]string{"-u", "u1-1"}, []string{"u1-1"}, 0},
			{[]string{"-u", "u2-2"}, []string{"u2-2"}, 0},
			{[]string{"-u", "u*-1"}, []string{"u1-1", "u2-1"}, 0},
			{[]string{"-A"}, c.servers[0].Users, 0},
			{[]string{"-F", file}, []string{"u1-2", "u2-1"}, 67},
		} {
			for _, tt := range pairCases {
				var options []string
				if tt.format != "" {
					options = []string{"-f", tt.format}
				}
				args := append(slices.Clone(who.args), tt.args...)
				several := who.args[0] != "-u" || strings.Contains(who.args[1], "*")
				r := dovecottest.Run(t, c.client(version, p.Addr, clientPassword, options...), tt.name, args...)
				if diff := cmp.Diff(tt.want(who.users, several), tt.got(r.Stdout)); diff != "" {
					t.Errorf("command of %s, %s %q (-want +got):\n%s%s", version, tt.name, args, diff, r.Stdout)
				}
				if r.ExitCode != who.exit || (r.Stderr != "") != (who.exit != 0) {
					t.Errorf("command of %s, %s %q: exit code %d, standard error %q", version, tt.name, args, r.ExitCode, r.Stderr)
				}
			}
		}
	}

	// What is wrong directly, so that the above says something.
	for _, tt := range []struct {
		version dovecot.Version // of the command, with the other's backend
		args    []string
	}{
		{dovecot.V23, []string{"-u", "u*-1"}},
		{dovecot.V23, []string{"-A"}},
		{dovecot.V24, []string{"-u", "u*-1"}},
	} {
		i := 1 - slices.Index(dovecot.Versions(), tt.version)
		s := c.servers[i]
		quota := pairCases[1]
		r := dovecottest.Run(t, c.client(tt.version, s.Addr, s.Password), quota.name, tt.args...)
		users := []string{"u1-1", "u2-1"}
		if tt.args[0] == "-A" {
			users = s.Users
		}
		if r.ExitCode == 0 && len(quota.got(r.Stdout)) == len(quota.want(users, true)) {
			t.Errorf("command of %s, %q, directly: %+v", tt.version, tt.args, r)
		}
	}
}

// want returns the lines for the users, sorted, the header first.
func (p *pairCase) want(users []string, several bool) []string {
	var lines []string
	for _, user := range users {
		for _, row := range p.rows(user) {
			if several {
				row = user + "\t" + row
			}
			lines = append(lines, row)
		}
	}
	slices.Sort(lines)
	if p.header == "" {
		return lines
	}
	header := p.header
	if several {
		header = "Username\t" + header
	}
	return append([]string{header}, lines...)
}

var (
	guidPattern = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	timePattern = regexp.MustCompile(`\b1[0-9]{9}\b`)
	gapPattern  = regexp.MustCompile(` +`)
)

// got returns what doveadm printed in the same form.
func (p *pairCase) got(output string) []string {
	output = timePattern.ReplaceAllString(guidPattern.ReplaceAllString(output, "GUID"), "TIME")
	var lines []string
	switch {
	case p.name == "fetch":
		// Records of lines that a form feed ends.
		for record := range strings.SplitSeq(strings.TrimSuffix(output, "\f\n"), "\f\n") {
			lines = append(lines, strings.ReplaceAll(strings.TrimSpace(record), "\n", "\t"))
		}
	default:
		lines = strings.Split(strings.TrimSuffix(output, "\n"), "\n")
	}
	for i, line := range lines {
		switch {
		case p.name == "quota get":
			line = strings.ReplaceAll(gapPattern.ReplaceAllString(strings.TrimSpace(line), "\t"), "User\tquota", "User quota")
			line = strings.ReplaceAll(line, "Quota\tname", "Quota name")
		case p.format == "" && p.name != "fetch":
			line = strings.ReplaceAll(line, " ", "\t")
		}
		lines[i] = line
	}
	rest := lines
	if p.header != "" {
		rest = lines[1:]
	}
	slices.Sort(rest)
	return lines
}
