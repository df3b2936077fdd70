package doveadm

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var updateCommands = flag.Bool("update-commands", false, "write docs/commands.md")

func yesOrDash(b bool) string {
	if b {
		return "yes"
	}
	return "–"
}

func describeVersions(s Series) string {
	switch s {
	case Series23:
		return "2.3"
	case Series24:
		return "2.4"
	default:
		return "2.3, 2.4"
	}
}

func describeRepeat(c *CommandInfo) string {
	text := map[Repeat]string{
		RepeatNever:      "no",
		RepeatReadOnly:   "yes, only reads",
		RepeatIdempotent: "yes, same end",
		RepeatServerWide: "no, whole server",
	}[c.Repeat]
	if c.RepeatCode != "" {
		text += " (may report " + c.RepeatCode + ")"
	}
	return text
}

func describeColumns(c *CommandInfo) string {
	switch c.columns {
	case columnsUnknown:
		if c.Kind == ClientCommand {
			return "–"
		}
		return "depends"
	case columnsNotSent:
		return "none arrive"
	case columnsPerField:
		return "one per field"
	case columnsPerStatus:
		return "mailbox (not with `-t`), one per field"
	case columnsPerConnection:
		return "5; depends with `-1`"
	case 0:
		return "none"
	default:
		return fmt.Sprint(int(c.columns))
	}
}

func describeDanger(c *CommandInfo) string {
	var all []string
	if c.Danger != 0 {
		all = append(all, c.Danger.String())
	}
	for _, p := range c.Params {
		if p.Danger == 0 || p.common != notCommon {
			continue
		}
		name := "--" + p.Long
		switch {
		case p.Positional:
			name = p.Long
		case p.Short != 0:
			name = "-" + string(rune(p.Short))
		}
		all = append(all, "`"+name+"` "+p.Danger.String())
	}
	if len(all) == 0 {
		return "–"
	}
	return strings.Join(all, "; ")
}

func commandsDocument() string {
	var b strings.Builder
	b.WriteString(`# Commands

<!-- Written from the command table by "go generate ./doveadm". Changes belong there. -->

What doveadm-proxy knows about the commands of Dovecot 2.3.19 and 2.4.1.

* **Versions**: the releases whose server has the command. A command of a
  plugin is an unknown command to a server that has not loaded it.
* **Per user**: runs for one mail user and is routed by that name. The others
  concern a server, not a user.
* **Reads input**: the client sends a mail or a script after the command.
* **Repeatable**: whether the command may be sent once more if the reply was
  lost on the way. "Same end" means that it changes something, but a second run
  leaves the same state; a status in parentheses is what the second run may
  report although the first succeeded.
* **Right** and **dangers**: what the rights of clients are about; see
  [rights.md](rights.md). A danger stands beside the argument that it comes from,
  or alone where the command has it whatever its arguments are.
* **Class**: how long the proxy waits for it, by the ` + "`timeouts`" + ` of that name in
  the configuration.
* **Columns**: fields in a row of output. "None arrive": the server prints to
  its own standard output, the client gets an empty reply.

A command that is not listed here is treated as one that runs for a user, reads
no input, must not be repeated, is of class normal, and whose columns and options are unknown. Only
clients who have been granted it by its name may run it.

All mail commands have the options -A, -F, -S and -u. They are taken out of a
command before it is sent (-F with a file is refused): the user of a command is
the one in the user name field of the request.
`)
	section := func(title, text string, kind CommandKind) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", title, text)
		b.WriteString("| command | right | dangers | versions | per user | reads input | repeatable | class | columns | remarks |\n|---|---|---|---|---|---|---|---|---|---|\n")
		for _, c := range Commands() {
			if c.Kind != kind {
				continue
			}
			remarks := c.note
			if c.Plugin != "" {
				remarks = strings.TrimSpace("Plugin " + c.Plugin + ". " + remarks)
			}
			input := yesOrDash(c.Input)
			if c.Tunnel {
				input = "stream"
			}
			repeat, class := describeRepeat(c), c.Class().String()
			if c.Kind == ClientCommand {
				repeat, class = "–", "–"
			}
			row := []string{
				"`" + c.Name + "`", c.Right.String(), describeDanger(c), describeVersions(c.Series), yesOrDash(c.Kind == MailCommand),
				input, repeat, class, describeColumns(c), remarks,
			}
			b.WriteString(strings.TrimRight("| "+strings.Join(row, " | "), " ") + " |\n")
		}
	}
	section("Mail commands", "The doveadm program sends these, and only these, to a server.", MailCommand)
	section("Commands of the server",
		"A server runs these with administrator rights for whoever sends them; the doveadm\nprogram does not send them over TCP.", GlobalCommand)
	section("Commands of the doveadm program", "A server does not have these and answers them like any unknown command.", ClientCommand)
	return b.String()
}

func TestCommandsDocument(t *testing.T) {
	const path = "../docs/commands.md"
	want := commandsDocument()
	if *updateCommands {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go generate ./doveadm", err)
	}
	if string(got) != want {
		t.Errorf("%s does not say what the table says; write it with: go generate ./doveadm", path)
	}
}
