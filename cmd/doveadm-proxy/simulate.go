package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// unixPeer is the address of who comes by a UNIX socket.
const unixPeer = "unix"

// expectation is one line of a table of expectations:
//
//	VERDICT CLIENT FROM USER COMMAND ARGS...
type expectation struct {
	line    int
	verdict string // allow, deny or nouser
	shard   string // empty: any
	question
}

// simulate compares what a configuration says with a table and prints what is
// different.
func simulate(stdout io.Writer, cfg *config.Config, path string) error {
	table, err := readExpectations(path)
	if err != nil {
		return &exitError{exitNo, err}
	}
	explainer, err := proxy.NewExplainer(cfg)
	if err != nil {
		return &exitError{exitNo, err}
	}
	defer explainer.Close()
	wrong := 0
	for _, e := range table {
		if problem := e.compare(explainer); problem != "" {
			wrong++
			fmt.Fprintf(stdout, "%s:%d: %s\n", path, e.line, problem)
		}
	}
	if wrong > 0 {
		return &exitError{exitNo, fmt.Errorf("%s: %d of %d expectations are not met", path, wrong, len(table))}
	}
	fmt.Fprintf(stdout, "%s: all %d expectations are met\n", path, len(table))
	return nil
}

// compare returns what is different, or nothing.
func (e expectation) compare(explainer *proxy.Explainer) string {
	if !explainer.HasClient(e.client) {
		return fmt.Sprintf("the configuration has no client %q", e.client)
	}
	x := explainer.Explain(context.Background(), e.question.question())
	what := fmt.Sprintf("%s from %s: %s for %q", e.client, e.from, strings.Join(e.words, " "), e.user)
	got := "deny"
	switch {
	case x.Allowed:
		got = "allow"
	case x.NoShard:
		got = "nouser"
	}
	switch {
	case got != e.verdict && x.Allowed:
		return fmt.Sprintf("%s: expected %s, is allowed by %s", what, e.verdict, x.Rule)
	case got != e.verdict:
		return fmt.Sprintf("%s: expected %s, is answered %s: %s", what, e.verdict, x.Status, x.Reason)
	case e.shard != "" && x.Shard != e.shard:
		return fmt.Sprintf("%s: expected on shard %s, is on %q", what, e.shard, x.Shard)
	}
	return ""
}

// readExpectations reads a table. Everything that is wrong with it is reported
// at once, joined.
func readExpectations(path string) ([]expectation, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var table []expectation
	var errs []error
	lines := bufio.NewScanner(f)
	for number := 1; lines.Scan(); number++ {
		words, err := splitWords(lines.Text())
		if err == nil && len(words) == 0 {
			continue
		}
		e := expectation{line: number}
		if err == nil {
			err = e.parse(words)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, number, err))
		}
		table = append(table, e)
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	if len(table) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s has no expectation: write \"allow CLIENT FROM USER COMMAND\" lines", path))
	}
	return table, errors.Join(errs...)
}

func (e *expectation) parse(words []string) error {
	if len(words) < 5 {
		return errors.New("write: allow|deny|nouser CLIENT FROM USER COMMAND and its arguments")
	}
	e.verdict, e.shard, _ = strings.Cut(words[0], "@")
	if e.verdict != "allow" && words[0] != "deny" && words[0] != "nouser" {
		return fmt.Errorf("%q is not allow, allow@SHARD, deny or nouser", words[0])
	}
	e.question = question{client: words[1], from: words[2], user: words[3], words: words[4:]}
	if _, err := e.address(); err != nil {
		return fmt.Errorf("%q is not an address, and not the word %s", e.from, unixPeer)
	}
	return nil
}

// splitWords splits a line at spaces. A word in double quotes is one as in Go,
// with spaces and \t, \n, \x01; # in front of a word begins a comment.
func splitWords(line string) (words []string, err error) {
	for {
		line = strings.TrimLeft(line, " \t")
		switch {
		case line == "" || line[0] == '#':
			return words, nil
		case line[0] == '"':
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, errors.New("a quote is not closed, or has a backslash that means nothing")
			}
			word, _ := strconv.Unquote(quoted)
			words, line = append(words, word), line[len(quoted):]
			if line != "" && line[0] != ' ' && line[0] != '\t' {
				return nil, fmt.Errorf("no space behind %s", quoted)
			}
		default:
			end := strings.IndexAny(line, " \t")
			if end < 0 {
				end = len(line)
			}
			words, line = append(words, line[:end]), line[end:]
		}
	}
}
