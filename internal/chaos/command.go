package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// What every user has from the beginning, and nobody changes.
const (
	archive   = "Archive" // one small message
	large     = "Large"   // replies that are under way for a while
	largeMail = 6
)

// header is that of a saved message by which it is found again.
const header = "X-Ledger"

// user is a mail user, whom one worker has for itself: what that worker was
// told about him is true until it does something else.
type user struct {
	name    string
	shard   string
	version dovecot.Version
	guid    string // of archive
	made    []string
	kept    []string // mailboxes that are not deleted any more
	count   int      // of what was made, for unique names
}

func (u *user) unique(prefix string) string {
	u.count++
	return fmt.Sprintf("%s%s-%d", prefix, u.name, u.count)
}

// largeText is the text of a message in large. Each line names its user.
func largeText(u string, n int) []byte {
	line := fmt.Sprintf("line of message %d for %s %s\r\n", n, u, strings.Repeat("=", 60))
	return bytes.Repeat([]byte(line), 40<<10/len(line))
}

// command is what a worker sends, and what it may get.
type command struct {
	ledger.Command
	request doveadm.Command
	input   []byte
	columns int
	code    string                       // the right answer is this failure instead of "+"
	row     func(row []string) string    // what is not so in a row; nil: nothing is known
	reply   func(rows [][]string) string // what is not so in a whole reply that ends in "+"
	done    func()                       // it has succeeded
}

// kinds are the commands of the load with their shares.
var kinds = []struct {
	share int
	make  func(u *user, random *rand.Rand) *command
}{
	{3, quotaGet},
	{3, fetchSubject},
	{2, fetchLarge},
	{2, mailboxList},
	{2, search},
	{3, mailboxCreate},
	{2, mailboxDelete},
	{4, save},
	{1, copyMail},
	{1, who},
	{1, kick},
	{1, unknownUser},
}

// pick makes a command for u.
func pick(u *user, random *rand.Rand) *command {
	all := 0
	for _, k := range kinds {
		all += k.share
	}
	for n, i := random.IntN(all), 0; ; i++ {
		if n -= kinds[i].share; n >= 0 {
			continue
		}
		if c := kinds[i].make(u, random); c != nil {
			return c
		}
		return mailboxCreate(u, random) // what the other one needs
	}
}

func newCommand(u *user, columns int, name string, args ...string) *command {
	return &command{
		Command: ledger.Command{User: u.name, Name: name},
		request: doveadm.Command{User: u.name, Name: name, Args: args},
		columns: columns,
	}
}

func (c *command) leaves(e ledger.Effect, object string) *command {
	c.Effect, c.Object = e, object
	return c
}

func quotaGet(u *user, _ *rand.Rand) *command {
	c := newCommand(u, 5, "quota get")
	c.row = func(row []string) string {
		if row[0] != quotaRoot(u.version, u.name) || row[1] != "STORAGE" && row[1] != "MESSAGE" {
			return fmt.Sprintf("quota of somebody else: %q", row)
		}
		return ""
	}
	c.reply = numberOfRows(2)
	return c
}

// quotaRoot is the name of a user's quota. In 2.3 it can be the user's.
func quotaRoot(v dovecot.Version, name string) string {
	if v == dovecot.V23 {
		return "Quota of " + name
	}
	return "User quota"
}

func fetchSubject(u *user, _ *rand.Rand) *command {
	c := newCommand(u, 2, "fetch", "mailbox hdr.subject", "mailbox", archive, "all")
	c.row = wantRow(archive, "old message for "+u.name)
	c.reply = numberOfRows(1)
	return c
}

func fetchLarge(u *user, _ *rand.Rand) *command {
	c := newCommand(u, 2, "fetch", "hdr.subject body", "mailbox", large, "all")
	c.row = func(row []string) string {
		for n := range largeMail {
			if row[0] == fmt.Sprintf("large %d for %s", n, u.name) && row[1] == string(largeText(u.name, n)) {
				return ""
			}
		}
		return fmt.Sprintf("no message of his: %.80q and %d bytes: %.80q", row[0], len(row[1]), row[1])
	}
	c.reply = func(rows [][]string) string {
		for n, row := range rows {
			if slices.ContainsFunc(rows[:n], func(r []string) bool { return r[0] == row[0] }) {
				return fmt.Sprintf("a row twice: %.80q", row[0])
			}
		}
		return numberOfRows(largeMail)(rows)
	}
	return c
}

func mailboxList(u *user, _ *rand.Rand) *command {
	c := newCommand(u, 1, "mailbox list")
	there := slices.Concat([]string{"INBOX", archive, large}, u.made, u.kept)
	c.row = func(row []string) string {
		if strings.HasPrefix(row[0], ledger.Prefix) && !strings.HasPrefix(row[0], ledger.Prefix+u.name+"-") {
			return fmt.Sprintf("a mailbox of somebody else: %q", row[0])
		}
		return ""
	}
	c.reply = func(rows [][]string) string {
		listed := make(map[string]bool)
		for _, row := range rows {
			listed[row[0]] = true
		}
		for _, name := range there {
			if !listed[name] {
				return fmt.Sprintf("the list lacks %q", name)
			}
		}
		return ""
	}
	return c
}

func search(u *user, _ *rand.Rand) *command {
	c := newCommand(u, 2, "search", "mailbox", archive, "all")
	c.row = wantRow(u.guid, "1")
	c.reply = numberOfRows(1)
	return c
}

func mailboxCreate(u *user, _ *rand.Rand) *command {
	name := u.unique(ledger.Prefix)
	c := newCommand(u, 1, "mailbox create", name).leaves(ledger.Creates, name)
	c.done = func() { u.made = append(u.made, name) }
	return c
}

func mailboxDelete(u *user, random *rand.Rand) *command {
	name, ok := u.takeMade(random)
	if !ok {
		return nil
	}
	return newCommand(u, 1, "mailbox delete", name).leaves(ledger.Deletes, name)
}

// takeMade returns a mailbox that is there and that nobody else uses.
func (u *user) takeMade(random *rand.Rand) (name string, ok bool) {
	if len(u.made) == 0 {
		return "", false
	}
	n := random.IntN(len(u.made))
	name = u.made[n]
	u.made = slices.Delete(u.made, n, n+1)
	return name, true
}

func copyMail(u *user, random *rand.Rand) *command {
	name, ok := u.takeMade(random)
	if !ok {
		return nil
	}
	u.kept = append(u.kept, name)
	return newCommand(u, 1, "copy", name, "mailbox", archive, "all").leaves(ledger.Copies, name)
}

func save(u *user, random *rand.Rand) *command {
	id := u.unique("saved-")
	c := newCommand(u, 1, "save").leaves(ledger.Saves, id)
	var b bytes.Buffer
	// A server that does not read this as mail reads it as commands, which
	// leave mailboxes that nobody created.
	line := fmt.Sprintf("\t%s\tmailbox create\t%sinjected-%s\n.\n", u.name, ledger.Prefix, id)
	fmt.Fprintf(&b, "%s%s: %s\nSubject: saved\n\n", line, header, id)
	lines := 1 + random.IntN(10)
	if random.IntN(30) == 0 {
		lines = 3000 // more than is kept in memory
	}
	b.WriteString(strings.Repeat(line, lines))
	c.input = b.Bytes()
	return c
}

func who(u *user, _ *rand.Rand) *command { return newCommand(u, 5, "who") }

func kick(u *user, _ *rand.Rand) *command {
	c := newCommand(u, 1, "kick", u.name)
	if u.version == dovecot.V23 {
		c.code = doveadm.CodeNotFound // nobody is logged in
	}
	return c
}

func unknownUser(u *user, _ *rand.Rand) *command {
	c := newCommand(&user{name: "nobody-" + u.shard}, 5, "quota get")
	c.code = doveadm.CodeNoUser
	return c
}

func wantRow(want ...string) func([]string) string {
	return func(row []string) string {
		if !slices.Equal(row, want) {
			return fmt.Sprintf("a row %.200q instead of %q", row, want)
		}
		return ""
	}
}

func numberOfRows(want int) func([][]string) string {
	return func(rows [][]string) string {
		if len(rows) != want {
			return fmt.Sprintf("%d rows instead of %d end in +", len(rows), want)
		}
		return ""
	}
}

// judge returns what the client was told, and what is not so in it.
func (c *command) judge(output []byte, status doveadm.Status) (a ledger.Answer, problem string) {
	fields := fields(output)
	whole := fields[:len(fields)/c.columns*c.columns]
	var rows [][]string
	for row := range slices.Chunk(whole, c.columns) {
		rows = append(rows, row)
	}
	a = ledger.Failed
	if status.OK || c.code != "" && status.Code == c.code {
		a = ledger.Succeeded
	}
	if len(output) > 0 && output[len(output)-1] != '\t' {
		return a, fmt.Sprintf("a field without an end: %.80q", fields[len(fields)-1])
	}
	if len(whole) < len(fields) {
		return a, fmt.Sprintf("%d fields, which is no whole number of rows of %d", len(fields), c.columns)
	}
	for n, row := range rows {
		if n == len(rows)-1 && !status.OK {
			break // it may have been broken off and filled up
		}
		if c.row != nil {
			if problem := c.row(row); problem != "" {
				return a, problem
			}
		}
	}
	switch {
	case a == ledger.Succeeded && c.code != "":
		if status.OK {
			return a, "+ instead of -" + c.code
		}
	case a == ledger.Succeeded:
		if c.reply != nil {
			return a, c.reply(rows)
		}
	case saysMore(status.Code) && !(c.Effect == ledger.Deletes && status.Code == doveadm.CodeNotFound):
		return a, "-" + status.Code + ", which is not so"
	}
	return a, ""
}

// saysMore reports whether a failure says something about the command itself,
// which is always wrong here. A repeated "mailbox delete" may find nothing.
func saysMore(code string) bool {
	switch code {
	case doveadm.CodeNoUser, doveadm.CodeNotFound, doveadm.CodeNoPerm, doveadm.CodeUsage, doveadm.CodeProtocol:
		return true
	}
	return false
}
