package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxFile bounds every file that a configuration consists of or names, in bytes.
const maxFile = 1 << 20

// source is one configuration file.
type source struct {
	name  string // as the diagnostics call it
	bytes []byte
	// Set by parse:
	text   []byte // what could be parsed of bytes, at its place
	broken []line // what could not
	lost   line   // from here on nothing was parsed; the zero line: all was
	file   *hcl.File
	shown  *shown
}

// readSources reads the file or the directory that path names.
func readSources(path string) ([]*source, hcl.Diagnostics) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(err)
	}
	names := []string{path}
	if info.IsDir() {
		if names, err = hclFiles(path); err != nil {
			return nil, unreadable(err)
		}
		if len(names) == 0 {
			return nil, hcl.Diagnostics{{
				Severity: hcl.DiagError,
				Summary:  "No configuration file",
				Detail:   fmt.Sprintf("The directory %s holds no file whose name ends in .hcl. Put one there, or give the path of a file.", path),
			}}
		}
	}
	var sources []*source
	var diags hcl.Diagnostics
	for _, name := range names {
		src, err := readFile(name)
		if err != nil {
			diags = append(diags, unreadable(err)...)
			continue
		}
		sources = append(sources, &source{name: name, bytes: src})
	}
	return sources, diags
}

// hclFiles returns the paths of the configuration files of a directory, in the
// order of their names.
func hclFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		// Editors leave hidden files of the same ending behind.
		if strings.HasSuffix(e.Name(), ".hcl") && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

func unreadable(err error) hcl.Diagnostics {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError,
		Summary:  "Cannot read the configuration",
		Detail:   reason(err) + " Check the path, and that the user who runs this may read it.",
	}}
}

// readFile returns what is in a regular file of at most maxFile bytes. Others
// are refused before they are opened, because a pipe may block for ever.
func readFile(path string) ([]byte, error) {
	if err := checkRegular(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %s", path, formatSize(maxFile))
	}
	return b, nil
}

func checkRegular(path string) error {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	return err
}

// parse parses the source and finds out what may be shown of it. Its
// diagnostics are ours: each is of one mistake and has a remedy, and none has
// text of the source in it that may be secret.
func (s *source) parse(root block) hcl.Diagnostics {
	blocks := map[string]bool{}
	root.blockNames(blocks)
	diags := s.parseText(blocks)
	s.shown = show(s, root)
	for _, d := range diags {
		d.Expression, d.EvalContext, d.Context = nil, nil, nil
		d.Subject = s.clip(*d.Subject)
		switch d.Summary {
		case "Invalid multi-line string", "Unterminated template string":
			d.Summary = "Quote not closed"
			d.Detail = `A string ends on the line where it begins. Write the missing " or, for one that belongs to the string, \".`
			continue
		case "Missing newline after argument", "Invalid single-argument block definition":
			d.Detail = "Each attribute stands on a line of its own; a block on one line holds one attribute. Write the next attribute, or the brace, on the next line."
		case "Invalid block definition":
			d.Detail = `A block begins with its kind, its name in double quotes where it has one, and an opening brace, on one line: listener "main" {`
		case "Argument or block definition required":
			d.Detail = `An attribute is written: name = value. A block is written: name { … }`
			if bytes.HasPrefix(s.bytes[d.Subject.Start.Byte:], []byte("}")) {
				d.Summary, d.Detail = "Closing brace without a block", "There is no open block that this brace could close. Remove it, or the one too many before it."
			}
		case "Invalid expression":
			d.Detail = "Behind the equals sign stands a value: text in double quotes, a number, or a list in brackets."
		case "Invalid escape sequence":
			d.Detail = `In text, \ begins one of \n, \r, \t, \", \\, \uNNNN and \UNNNNNNNN. Write \\ for the character itself.`
		case "Invalid number literal":
			d.Detail = "Text that begins with a digit, an address for example, stands in double quotes like all text."
		case "Missing item separator":
			d.Detail = "There is a comma between the items of a list, and a ] behind the last."
		case unclosed:
			d.Detail = "The closing brace of this block is missing. Write a } on the line after its last attribute or block."
		case redefined:
			d.Detail = "The attribute stands in this block twice. Remove one of the two."
		}
		if d.Summary != notRead && s.shown.hides(d.Subject) {
			d.Summary = "Syntax error"
			d.Detail = `What stands here cannot be understood. It is not shown, because it may be a secret. Write one attribute a line, and strings in double quotes: password_file = "/path/to/the/file". In a string, %%{ stands for %{.`
		}
	}
	return diags
}

// clip makes a range one of a part of its first line.
func (s *source) clip(r hcl.Range) *hcl.Range {
	l := lineOf(s.bytes, r.Start.Byte)
	text := strings.TrimRight(string(s.bytes[l.from:l.to]), " \t\r")
	if r.Start.Byte >= l.from+len(text) {
		r.Start.Column, r.Start.Byte = 1, l.from
	}
	if r.End.Byte > l.to || r.Empty() {
		r.End = hcl.Pos{Line: l.number, Column: utf8.RuneCountInString(text) + 1, Byte: l.from + len(text)}
	}
	return &r
}

func (s *source) body() *hclsyntax.Body { return s.file.Body.(*hclsyntax.Body) }
