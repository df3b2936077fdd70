package main

import (
	"fmt"
	"os"
	"strings"
)

// The documents, from the top of the project.
const (
	document = "docs/compatibility.md"
	readme   = "README.md"
)

// The totals stand between these lines.
const (
	totalsBegin = "<!-- compatibility totals: begin -->\n"
	totalsEnd   = "<!-- compatibility totals: end -->\n"
)

// totals returns what stands between the markers of both documents.
func (m *matrix) totals() string { return m.table() + "\n" + m.summary() }

// documentText returns docs/compatibility.md with given totals.
func documentText(totals string) string {
	var b strings.Builder
	b.WriteString(`# Compatibility

<!-- Written by "make compat COMPAT=-update". Changes belong into internal/compat. -->

What a client sees of a command is the same through the proxy as directly at the
backend, but for the differences that this page lists.

` + "```\nmake compat\n```" + `

runs each command twice: directly at a real Dovecot, and through the proxy at a
second one whose users have the same mail. It does so with every version of the
protocol, spoken by a client that passes on each byte, and with the real
` + "`doveadm`" + ` program of both release series, in every combination with backends of
both series. Compared are

- the output, byte for byte (of the program: its standard output),
- the status line (of the program: its exit code),
- the lines of the log channel (of the program: its standard error),
- what a command that may change something has made of the user's mail: mailboxes,
  mails with their flags and contents, subscriptions, rights, metadata, scripts.

The cases are every mail command with good and bad arguments, the flags ` + "`-v` and `-D`" + `,
users that do not exist or have odd names, arguments with control characters and
8-bit text, large and empty output, all formatters of the program, the commands of
the server, and lines that are no commands. With ` + "`-A`, `-F` and masks" + ` the program is
compared with itself on the machine of a server of its own release, because directly
the releases disagree about who prints the user names.

## Totals

`)
	b.WriteString(totalsBegin + totals + totalsEnd)
	b.WriteString(`
*Equal*: nothing differs. *Explained*: the client sees exactly what the explanations
below say, nothing else. *Unexplained*: any other difference; ` + "`make compat`" + ` fails if
there is one. It also fails if an explanation no longer explains anything.

## Explained differences

| where | through the proxy | reason |
|---|---|---|
`)
	for _, e := range explanations() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cellText(string(e.id)), cellText(e.what), cellText(e.reason))
	}
	b.WriteString(`
## What is not compared

These differ between any two runs of a command and are replaced by a word on both
sides before the comparison:

| what | reason |
|---|---|
`)
	for _, n := range normalizations() {
		fmt.Fprintf(&b, "| %s | %s |\n", cellText(n.what), cellText(n.reason))
	}
	for _, n := range orderNormalizations() {
		fmt.Fprintf(&b, "| %s | %s |\n", cellText(n.what), cellText(n.reason))
	}
	return b.String()
}

// cellText makes text fit into a cell of a table.
func cellText(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// withTotals returns a document with other totals.
func withTotals(path, text, totals string) (string, error) {
	before, rest, begin := strings.Cut(text, totalsBegin)
	_, after, end := strings.Cut(rest, totalsEnd)
	if !begin || !end {
		return "", fmt.Errorf("%s has no place for the totals: add the lines %q and %q", path, totalsBegin, totalsEnd)
	}
	return before + totalsBegin + totals + totalsEnd + after, nil
}

// documents returns what both documents have to say.
func (m *matrix) documents() (map[string]string, error) {
	text, err := os.ReadFile(readme)
	if err != nil {
		return nil, err
	}
	updated, err := withTotals(readme, string(text), m.totals())
	if err != nil {
		return nil, err
	}
	return map[string]string{document: documentText(m.totals()), readme: updated}, nil
}

func (m *matrix) writeDocuments() error {
	texts, err := m.documents()
	if err != nil {
		return err
	}
	for path, text := range texts {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// checkDocuments fails if the documents say something else than was found.
func (m *matrix) checkDocuments() error {
	texts, err := m.documents()
	if err != nil {
		return err
	}
	for path, want := range texts {
		got, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if string(got) != want {
			return fmt.Errorf("%s does not say what was found; write it with: make compat COMPAT=-update", path)
		}
	}
	return nil
}
