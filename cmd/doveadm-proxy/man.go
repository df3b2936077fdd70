package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func newMan(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the man pages to a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := writeManPages(root, args[0]); err != nil {
				return &exitError{exitNo, fmt.Errorf("man pages: %w", err)}
			}
			return nil
		},
	}
}

// writeManPages writes a page of section 8 for each command, and
// doveadm-proxy.hcl(5), the reference of the configuration.
func writeManPages(root *cobra.Command, dir string) error {
	date, err := pageDate()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err = doc.GenManTree(root, &doc.GenManHeader{
		Title:   "DOVEADM-PROXY",
		Section: "8",
		Source:  "doveadm-proxy " + version,
		Manual:  "System administration",
	}, dir)
	if err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.8"))
	if err != nil {
		return err
	}
	for _, path := range pages {
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".8")
		if err := os.WriteFile(path, tidyPage(page, name, date), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "doveadm-proxy.hcl.5"), configPage(date), 0o644)
}

// pageDate is today, or what a reproducible build says.
func pageDate() (string, error) {
	date := time.Now()
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "", fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		date = time.Unix(seconds, 0)
	}
	return date.UTC().Format(time.DateOnly), nil
}

var (
	titleLine   = regexp.MustCompile(`(?m)^\.TH "[^"]*" "8" "[^"]*"`)
	optionEntry = regexp.MustCompile(`(?m)^(?:\.PP\n)?(\\fB-.*)\n\t`)
)

// tidyPage gives a page of cobra its own title, a date that mandoc reads, and
// options as a list instead of paragraphs with a tab.
func tidyPage(page []byte, name, date string) []byte {
	page = titleLine.ReplaceAll(page, fmt.Appendf(nil, `.TH "%s" "8" "%s"`, strings.ToUpper(name), date))
	page = optionEntry.ReplaceAll(page, []byte(".TP\n$1\n"))
	// What is left stands in running text.
	page = bytes.ReplaceAll(page, []byte("\n\t"), []byte("\n"))
	return bytes.ReplaceAll(page, []byte("\t"), []byte(" "))
}

var (
	comment  = regexp.MustCompile(`(?s)<!--.*?-->\n*`)
	linkText = regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`)
)

// configPage makes a man page of the reference of the configuration. Its tables
// are too wide for a terminal: they become lists.
func configPage(date string) []byte {
	text := comment.ReplaceAllString(config.Reference(), "")
	text = linkText.ReplaceAllString(text, "$1")
	_, text, _ = strings.Cut(text, "# Configuration\n")
	head := fmt.Sprintf("%% \"DOVEADM-PROXY.HCL\" \"5\" %q %q \"File formats\"\n# NAME\n\ndoveadm-proxy.hcl - configuration of doveadm-proxy\n\n# DESCRIPTION\n", date, "doveadm-proxy "+version)
	tail := "\n# SEE ALSO\n\n**doveadm-proxy**(8), **doveadm-proxy-check**(8), **doveadm-proxy-init**(8)\n"
	page := md2man.Render([]byte(head + listsForTables(text) + tail))
	// Lists that follow a paragraph need no paragraph of their own.
	page = bytes.ReplaceAll(page, []byte(".PP\n.TP\n"), []byte(".TP\n"))
	return bytes.ReplaceAll(page, []byte("\t"), []byte(" "))
}

// listsForTables turns each row of a table into the definition of its first
// column.
func listsForTables(text string) string {
	var out strings.Builder
	var header []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "|--") {
			header = nil
			out.WriteString(line)
			continue
		}
		if strings.HasPrefix(line, "|--") {
			continue
		}
		cells := tableCells(line)
		if header == nil {
			header = cells
			continue
		}
		if n := len(header); len(cells) > n { // a bar in a text, unescaped
			cells = append(cells[:n-1], strings.Join(cells[n-1:], " | "))
		}
		var rest []string
		for i, cell := range cells[1:] {
			if cell == "" {
				continue
			}
			// The last column is the meaning, and needs no name.
			if label := header[i+1]; i+2 < len(cells) && label != "how many" {
				cell = label + ": " + cell
			}
			rest = append(rest, cell)
		}
		fmt.Fprintf(&out, "%s\n: %s\n\n", cells[0], strings.Join(rest, ". "))
	}
	return out.String()
}

// tableCells splits a row at the bars that are not escaped.
func tableCells(line string) []string {
	line = strings.Trim(strings.TrimSpace(line), "|")
	var cells []string
	for cell := range strings.SplitSeq(strings.ReplaceAll(line, `\|`, "\x00"), "|") {
		cells = append(cells, strings.ReplaceAll(strings.TrimSpace(cell), "\x00", "|"))
	}
	return cells
}
