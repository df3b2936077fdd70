package main

import (
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// largeInput is a mail that does not fit into one packet, or in what the proxy
// keeps in memory.
func largeInput() string { return string(largeMail()) }

func longLine() string { return strings.Repeat("0123456789", 20_000) }

// oddCases have user names and commands that are unusual or wrong.
func oddCases() (list []command) {
	for _, user := range oddNames {
		list = append(list,
			cmd("quota get").as(user),
			cmd("fetch", "user uid", "mailbox", "INBOX", "all").as(user),
		)
	}
	for _, user := range []string{"a*b", "*", "?", "nobody*"} { // masks to the doveadm program
		list = append(list, cmd("quota get").as(user).by(rawOnly), cmd("fetch", "user uid", "mailbox", "INBOX", "all").as(user).by(rawOnly))
	}
	list = append(list, cmd("mailbox list").as("line\nend").by(rawOnly))
	for _, user := range []string{
		"o'brien", `q"uote`, `back\slash`, "NOBODY", "User1", " ", "\xff", "nobody\xfc", "%u", "%{user}", "a:b", "../up", strings.Repeat("long", 100),
		"tab\tbed", "return\r", "one\x01", "escape\x1b[31m", "del\x7f",
	} {
		list = append(list, cmd("mailbox list").as(user))
	}
	unknown := []command{
		cmd("quota"),
		cmd("mailbox"),
		cmd("mailbox lis"),
		cmd("Mailbox List"),
		cmd("mailbox  list"),
		cmd("nosuchcommand"),
		cmd("nosuchcommand", "-A").refused(unknownForAll, doveadm.CodeUsage,
			"nosuchcommand for several users: the number of columns is not known, so the user name cannot be put in front of each row").
			refused(allUsersNew, doveadm.CodeUsage, "options -A and -F: send one command for each user"),
		cmd("no\tsuch\ncommand"),
		cmd(""),
		cmd("help"),
		cmd("exec", "imap"),
		cmd("pw"),
		cmd("auth test", "user1", "password"),
	}
	for _, c := range unknown {
		list = append(list, c.by(rawOnly))
	}
	list = append(list, command{name: "quota get", noUser: true}, command{name: "mailbox create", args: []string{"New"}, noUser: true})
	// Their mailboxes have names with all bytes that are escaped.
	for _, args := range [][]string{{}, {"*"}, {"-7"}, {"line*"}} {
		list = append(list, cmd("mailbox list", args...).as(oddUser))
	}
	list = append(list,
		cmd("mailbox status", "messages", "*").as(oddUser),
		cmd("mailbox path", "tab\tname").as(oddUser),
		cmd("mailbox path", "line\nend\r").as(oddUser),
		cmd("mailbox path", "\x01").as(oddUser),
		cmd("mailbox path", "\x011").as(oddUser),
		cmd("acl get", "\x01t\t\t").as(oddUser),
	)
	return list
}

// largeCases have large output and many rows.
func largeCases() (list []command) {
	for _, args := range [][]string{
		{"text", "mailbox", "Large", "all"},
		{"body", "mailbox", "Large", "all"},
		{"hdr", "mailbox", "Large", "all"},
		{"uid text", "mailbox", "Large", "all"},
		{"text uid", "mailbox", "Large", "all"},
		{"uid text uid", "mailbox", "Large", "all"},
		{"hdr.x-long uid", "mailbox", "Large", "all"},
		{"uid hdr.subject", "mailbox", "Many", "all"},
		{"uid text", "mailbox", "Many", "all"},
		{"uid text", "all"},
	} {
		list = append(list, cmd("fetch", args...).as(bigUser))
	}
	return append(list,
		cmd("mailbox list").as(bigUser),
		cmd("mailbox status", "all", "*").as(bigUser),
		cmd("mailbox status", "-t", "all", "*").as(bigUser),
		cmd("search", "all").as(bigUser),
		cmd("search", "mailbox", "Many", "subject", "message 1").as(bigUser),
		cmd("quota get").as(bigUser),
	)
}

// formatters of the doveadm program.
var formatters = []string{"table", "tab", "pager", "flow", "json", "formatted"}

func formatCases() (list []command) {
	for _, format := range formatters {
		for _, c := range []command{
			cmd("quota get"),
			cmd("quota get").as(nobody),
			cmd("mailbox list"),
			cmd("mailbox list", "NoSuch"),
			cmd("mailbox status", "all", "*"),
			cmd("mailbox status", "-t", "all", "*"),
			cmd("fetch", "uid hdr.subject text", "all"),
			cmd("fetch", "hdr", "all"),
			cmd("fetch", "text", "mailbox", "Large", "all").as(bigUser),
			cmd("fetch", "uid text", "mailbox", "Large", "all").as(bigUser),
			cmd("fetch", "uid text uid", "mailbox", "Large", "all").as(bigUser),
			cmd("fetch", "uid hdr.subject", "mailbox", "Many", "all").as(bigUser),
			cmd("mailbox list").as(oddUser),
			cmd("search", "all"),
			cmd("acl get", "Work"),
			cmd("mailbox metadata get", "INBOX", "/private/comment"),
			cmd("mailbox cache decision", "INBOX"),
			cmd("sieve get", "main"),
			cmd("sieve list"),
			cmd("mailbox cryptokey list", "Work"),
			cmd("mailbox create", "New"),
		} {
			c.format = format
			list = append(list, c.by(cliOnly))
		}
	}
	return list
}

// commonOptionCases have the options that say for whom a command runs, on the
// wire, in all their spellings.
func commonOptionCases() (list []command) {
	list = []command{
		cmd("mailbox list", "-u", self),
		cmd("mailbox list", "-u"+self),
		cmd("mailbox list", "--user="+self),
		cmd("mailbox list", "--user", self),
		cmd("mailbox list", "-u", nobody),
		cmd("mailbox list", "-u", "team1", "INBOX"),
		cmd("mailbox list", "-S", "127.0.0.1:1"),
		cmd("mailbox list", "--socket-path="+nowhere),
		cmd("mailbox list", "--trans-flags", "3"),
		cmd("mailbox list", "INBOX", "-u", self, "Work"),
		cmd("mailbox list", "-su", self),
		cmd("mailbox list", "--", "-A"),
		cmd("mailbox list", "--", "-u", "a*"),
		cmd("mailbox list", "-F", someFile).
			refused(serverFile, doveadm.CodeNoPerm, "option -F names a file of the backend: let the client read it, which then sends one command for each user"),
		cmd("mailbox list", "--no-userdb-lookup").withOption(optionNoLookup, 1),
		cmd("mailbox list", "-s", "--no-userdb", "*").withOption(optionNoLookup, 1, "-s", "*"),

		cmd("mailbox list", "-A").withOption(optionA, 1),
		cmd("mailbox list", "-sA").withOption(optionA, 1, "-s"),
		cmd("mailbox list", "INBOX", "-A").withOption(optionA, 1, "INBOX"),
		cmd("mailbox list", "--all-users").withOption(optionA, 1),
		cmd("mailbox list", "--all").withOption(optionA, 1),
		cmd("quota get", "-A").withOption(optionA, 5),
		cmd("mailbox status", "-A", "messages vsize", "INBOX", "Archive").withOption(optionA, 3, "messages vsize", "INBOX", "Archive"),
		cmd("fetch", "-A", "text", "mailbox", "INBOX", "all").withOption(optionA, 1, "text", "mailbox", "INBOX", "all"),
		cmd("mailbox list", "-F", "").withOption(optionF, 1),
		cmd("quota get", "--user-file=").withOption(optionF, 5),

		cmd("mailbox list", "-u", "user*").withOption(optionMask, 1),
		cmd("mailbox list", "-u", "nomatch?").withOption(optionMask, 1),
		cmd("mailbox list", "--user=*").withOption(optionMask, 1),
		cmd("mailbox list", "-u", "*").as(nobody).withOption(optionMask, 1),
		cmd("mailbox list", "-u", "*").as(oddUser).withOption(optionMask, 1),
		cmd("quota get", "-u", "user*").withOption(optionMask, 5),
		cmd("mailbox status", "-u", "user*", "-t", "all", "*").withOption(optionMask, 4, "-t", "all", "*"),
		cmd("fetch", "-u", "*", "uid hdr.subject text", "all").withOption(optionMask, 3, "uid hdr.subject text", "all"),
		cmd("search", "-u", "us?r*", "mailbox", "Archive", "all").withOption(optionMask, 2, "mailbox", "Archive", "all"),
		cmd("search", "-u", "*", "mailbox", "NoSuch", "all").withOption(optionMask, 2, "mailbox", "NoSuch", "all"),
		cmd("acl get", "-u", "*", "Work").withOption(optionMask, 3, "Work"),
		cmd("sieve list", "-u", "*").withOption(optionMask, 2),
		cmd("mailbox metadata get", "-u", "*", "INBOX", "/private/comment").withOption(optionMask, 1, "INBOX", "/private/comment"),
		cmd("mailbox create", "-u", "*", "New"),
		cmd("mailbox create", "-u", "*", "Work"),
	}
	for i := range list {
		list[i].clients = rawOnly
	}
	return list
}

// withOption says what an option for several users would leave without it, and
// how many columns the rows have.
func (c command) withOption(kind optionKind, columns int, plain ...string) command {
	c.common = &commonOption{kind, plain, columns}
	if kind == optionA || kind == optionF {
		return c.refused(allUsersNew, doveadm.CodeUsage, "options -A and -F: send one command for each user")
	}
	return c
}

// wireCases have what only a program that speaks the protocol itself can send.
func wireCases() (list []command) {
	for _, extra := range [][]string{
		{"proxy-ttl=5"},
		{"proxy-ttl=2"},
		{"proxy-ttl=1"},
		{"proxy-ttl=0"},
		{"proxy-ttl=-1"},
		{"proxy-ttl=NaN"},
		{"proxy-ttl=99"},
		{""},
		{"unknown"},
		{"unknown=value"},
		{"forward=key=value"},
		{"forward=key=tab\tvalue"},
		{"proxy-ttl=3", "forward=a=b", "forward=c=d"},
		{"proxy-ttl=3", "proxy-ttl=4"},
	} {
		c := command{name: "mailbox list", extra: extra, clients: rawOnly}
		if slices.Contains([]string{"proxy-ttl=1", "proxy-ttl=0", "proxy-ttl=-1"}, extra[0]) {
			c = c.refused(ttlReached, doveadm.CodeTempFail, "TTL reached zero - proxies appear to be looping?")
		}
		list = append(list, c)
	}
	for _, line := range []string{
		"\n",
		"\t\n",
		"\tSELF\n",
		"\tSELF\t\n",
		"\tSELF\tquota get\t\n",
		"\tSELF\tmailbox list\r\n",
		"\tSELF\tmailbox list\tINBOX\r\n",
		"Q\tSELF\tmailbox list\n",
		"vv\tSELF\tmailbox list\n",
		"Dv\tSELF\tmailbox list\n",
		"vDvD\tSELF\tmailbox list\n",
		"\x01\tSELF\tmailbox list\n",
		"\x01v\tSELF\tmailbox list\n",
		"\x01t\tSELF\tmailbox list\n",
		"\tSELF\x01\tmailbox list\n",
		"\tSELF\tmailbox list\tIN\x01BOX\n",
		"\tSELF\tmailbox list\tINBOX\x01\n",
		"\tSELF\tmailbox\tlist\n",
		"\tSELF\tmailbox\tlist\tINBOX\n",
		"\tSELF\tmailbox\tcache\tdecision\tINBOX\n",
		"\tSELF\tmailbox\n",
		"\tSELF\tmailbox list\x01tINBOX\n",
		"VERSION\tdoveadm-server\t1\t2\n",
		"PLAIN\tAGRvdmVhZG0Ac2VjcmV0\n",
		"quota get SELF\n",
	} {
		list = append(list, command{line: line, clients: rawOnly})
	}
	return list
}

// globalCases are commands of the server. The doveadm program does not send
// them.
func globalCases() (list []command) {
	list = []command{
		cmd("user", "SELF"),
		cmd("user", "-f", "uid", "SELF"),
		cmd("user", nobody),
		cmd("user", "team*"),
		cmd("who"),
		cmd("who", "nomatch"),
		cmd("kick", nobody),
		cmd("kick"),
		cmd("auth cache flush", nobody),
		cmd("auth cache flush"),
		cmd("mailbox mutf7", "Grüße"),
		cmd("penalty"),
		cmd("log find"),
		cmd("service status", "nosuch"),
		cmd("process status", "nosuch"),
		cmd("instance remove", "nosuch"),
		cmd("sis find", nowhere, "0123456789"),
		cmd("stats add"),
		cmd("stats remove", "nosuch"),
		cmd("stats dump", "-y"),
		cmd("director status"),
		cmd("replicator status"),
		cmd("proxy list"),
		cmd("dict get", "file:"+nowhere, "priv/x"),
		cmd("dict iter"),
		cmd("fs iter", "posix", "", nowhere),
		cmd("fs get", "posix"),
		cmd("indexer list"),
		{name: "who", user: nobody},
		deadly("stop", "stop"),
		deadly("reload", "reload"),
		deadly("service stop", "service stop", "doveadm"),
		deadly("service stop", "service", "stop", "doveadm").titled("words in fields"),
	}
	for i := range list {
		list[i].clients = rawOnly
		list[i].noUser = list[i].user == ""
	}
	return list
}

// deadly is a command that ends or reloads the server.
func deadly(whole, name string, args ...string) command {
	c := cmd(name, args...).refused(wholeServer, doveadm.CodeNoPerm, whole+" stops or reloads a whole server: run it there")
	c.deadly = true
	return c
}

// manyCases run the doveadm program for several users.
func manyCases() (list []command) {
	for _, many := range []string{"-u team*", "-F TEAMFILE", "-A", "-u *", "-u team?", "-u nomatch*"} {
		for n, c := range []command{
			cmd("quota get"),
			cmd("mailbox list", "INBOX", "Work*"),
			cmd("mailbox status", "messages vsize", "INBOX", "Archive"),
			cmd("mailbox status", "-t", "all", "*"),
			cmd("fetch", "uid hdr.subject", "mailbox", "INBOX", "all"),
			cmd("search", "mailbox", "Empty", "all"),
			cmd("acl get", "Work"),
			cmd("mailbox metadata get", "INBOX", "/private/comment"),
			cmd("sieve list"),
			cmd("mailbox subscribe", "Work"),
			cmd("mailbox status", "messages", "NoSuch"),
		} {
			if c.many = many; c.reachesEverybody() && n >= 4 {
				break // each takes long
			}
			list = append(list, c.by(cliOnly))
		}
	}
	for _, format := range formatters {
		c := cmd("quota get").by(cliOnly)
		c.many, c.format = "-u team*", format
		list = append(list, c)
	}
	return list
}
