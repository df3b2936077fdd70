package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// What hclsyntax calls the two problems behind which it goes on as it should.
const (
	redefined = "Attribute redefined"
	unclosed  = "Unclosed configuration block"
)

// notRead is what we call the place behind which nothing was parsed.
const notRead = "Not read from here on"

// placeholder stands for the header of a block that could not be parsed.
const placeholder = "_"

const (
	// maxRepairs bounds the syntax errors that are reported of one file, and
	// maxParsed the bytes that are parsed for that.
	maxRepairs = 50
	maxParsed  = 2 << 20

	// The parser calls itself for what stands inside something else, until it
	// is out of stack. Nothing of the format is so deep.
	maxDepth = 100
)

// parseText parses the source into s.file. Behind a syntax error the parser
// reports no other and reads little that is right, so the line with the error
// is taken out and the rest parsed again, until there is nothing to report.
// blocks are the names of blocks.
func (s *source) parseText(blocks map[string]bool) hcl.Diagnostics {
	s.text = slices.Clone(s.bytes)
	var found hcl.Diagnostics
	if r := tooDeep(s.text, s.name); r != nil {
		found = append(found, s.giveUp(*r))
	}
	isSyntax := func(d *hcl.Diagnostic) bool { return d.Summary != redefined && d.Summary != unclosed }
	for n := 0; ; n++ {
		file, diags := hclsyntax.ParseConfig(s.text, s.name, hcl.InitialPos)
		slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return a.Subject.Start.Byte - b.Subject.Start.Byte })
		switch i := slices.IndexFunc(diags, isSyntax); {
		case i < 0 || n > maxRepairs:
			s.file = file
			slices.SortFunc(s.broken, func(a, b line) int { return a.number - b.number })
			s.broken = slices.Compact(s.broken)
			return append(found, slices.DeleteFunc(diags, isSyntax)...)
		case n == maxRepairs || n*len(s.text) > maxParsed || s.isBroken(diags[i].Subject.Start.Line):
			found = append(found, s.giveUp(*diags[i].Subject))
			n = maxRepairs
		case s.takeOut(diags[i], blocks):
			found = append(found, diags[i])
		}
	}
}

// giveUp removes everything from the line of r on.
func (s *source) giveUp(r hcl.Range) *hcl.Diagnostic {
	l := lineOf(s.text, r.Start.Byte)
	for i := l.from; i < len(s.text); i++ {
		if s.text[i] != '\n' {
			s.text[i] = ' '
		}
	}
	s.lost = l
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  notRead,
		Detail:   "There are too many syntax errors, or too many braces or brackets inside each other. Correct what stands here and before it.",
		Subject:  &r,
	}
}

// tooDeep returns the first place where more than maxDepth brackets are open,
// or as many operators have been used.
func tooDeep(text []byte, name string) *hcl.Range {
	tokens, _ := hclsyntax.LexConfig(text, name, hcl.InitialPos)
	depth, operators := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenTemplateSeqEnd:
			depth = max(depth-1, 0)
		case hclsyntax.TokenMinus, hclsyntax.TokenBang, hclsyntax.TokenQuestion:
			operators++
		}
		if depth > maxDepth || operators > maxDepth {
			return &t.Range
		}
	}
	return nil
}

func (s *source) isLost(number int) bool { return s.lost.number > 0 && number >= s.lost.number }

func (s *source) isBroken(number int) bool {
	return s.isLost(number) || slices.ContainsFunc(s.broken, func(l line) bool { return l.number == number })
}

// topLevel returns the blocks of a source that belong into no other, in order.
// Where the closing brace of a block is missing, those behind it were parsed
// as a part of it; they are taken out and reported once.
func (l *loader) topLevel(root block, s *source) hclsyntax.Blocks {
	var top hclsyntax.Blocks
	var lift func(parent *hclsyntax.Block, body *hclsyntax.Body)
	lift = func(parent *hclsyntax.Block, body *hclsyntax.Body) {
		var kept hclsyntax.Blocks
		reported := false
		for _, b := range body.Blocks {
			switch _, ok := root.block(b.Type); {
			case parent == nil:
				top = append(top, b)
			case !ok:
				kept = append(kept, b)
			default:
				top = append(top, b)
				if !reported {
					l.errorf(b.DefRange(), fmt.Sprintf("%s inside %s", b.Type, parent.Type),
						"A %s block stands in no other block. Write the closing brace } of the %s block of line %d before it.", b.Type, parent.Type, parent.TypeRange.Start.Line)
				}
				reported = true
			}
			lift(b, b.Body)
		}
		if reported {
			body.Blocks = kept
			l.diags = slices.DeleteFunc(l.diags, func(d *hcl.Diagnostic) bool {
				return d.Summary == unclosed && d.Subject.Filename == s.name
			})
		}
	}
	lift(nil, s.body())
	s.shown.blocks = top
	l.unsure = l.unsure || s.lost.number > 0
	for _, broken := range s.broken {
		if !slices.ContainsFunc(top, func(b *hclsyntax.Block) bool {
			r := b.Range()
			return b.Type != placeholder && r.Start.Line <= broken.number && broken.number <= r.End.Line
		}) {
			l.unsure = true
		}
	}
	return top
}

// takeOut removes the lines that a syntax error is about from the text, and
// keeps the braces on them, so that blocks begin and end where they did. It
// reports false for a line that only continues one that was taken out before.
func (s *source) takeOut(d *hcl.Diagnostic, blocks map[string]bool) bool {
	last := lineOf(s.text, d.Subject.Start.Byte)
	first := last
	if strings.HasSuffix(d.Summary, "separator") && d.Context != nil && d.Context.Start.Byte < first.from {
		first = lineOf(s.text, d.Context.Start.Byte) // where the list begins
	}
	follows := !startsItem(s.text[first.from:first.to]) && s.isBroken(first.number-1)
	if first != last && startsItem(s.text[last.from:last.to]) {
		// The list is not closed. This line belongs to the next attribute.
		d.Subject.Start = hcl.Pos{Line: first.number, Column: 1, Byte: first.from}
		last = lineOf(s.text, last.from-1)
	}
	for l := first; ; l = lineOf(s.text, l.to+1) {
		s.blank(l, d, blocks)
		if l == last {
			return !follows
		}
	}
}

// line is a line of a text, without its end.
type line struct{ number, from, to int }

func lineOf(text []byte, at int) line {
	at = min(at, len(text))
	l := line{
		number: bytes.Count(text[:at], []byte("\n")) + 1,
		from:   bytes.LastIndexByte(text[:at], '\n') + 1,
		to:     len(text),
	}
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		l.to = at + i
	}
	return l
}

// startsItem reports whether an attribute or a block may begin on the line, or
// the block around it end.
func startsItem(text []byte) bool {
	text = bytes.TrimLeft(text, " \t")
	return len(text) > 0 && (isWordByte(text[0]) || text[0] == '}')
}

func firstWord(text []byte) string {
	text = bytes.TrimLeft(text, " \t")
	i := bytes.IndexFunc(text, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) })
	return string(text[:max(i, 0)])
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

// blank overwrites a line, of the same length, with something that parses.
func (s *source) blank(l line, d *hcl.Diagnostic, blocks map[string]bool) {
	text := s.text[l.from:l.to]
	kept := ""
	switch n := depth(string(text)); {
	case n > 0 || d.Summary == "Invalid block definition" && blocks[firstWord(text)]:
		kept = placeholder + " {"
	case n < 0 && !bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("}")):
		kept = "}"
	}
	if len(kept) > len(text) {
		kept = ""
	}
	copy(text, kept+strings.Repeat(" ", len(text)-len(kept)))
	s.broken = append(s.broken, l)
}

// depth returns how many more braces a line opens than it closes. A quote
// that is not closed is taken to be so before a brace at the end.
func depth(text string) int {
	n, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '#':
			return n
		case c == '{':
			n++
		case c == '}':
			n--
		}
	}
	switch text = strings.TrimRight(text, " \t\r"); {
	case quoted && strings.HasSuffix(text, "{"):
		n++
	case quoted && strings.HasSuffix(text, "}"):
		n--
	}
	return n
}
