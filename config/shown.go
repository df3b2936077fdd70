package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// shown is what snippets of a source may show: the source with *** for
// everything that may be a secret. That is what follows a name which the
// format does not know as harmless, so that a mistyped password attribute is
// hidden too, and every comment.
type shown struct {
	bytes  []byte
	cuts   []cut
	blocks hclsyntax.Blocks // as parsed
}

// cut is a part of one line, in bytes of the source, that is shown as ***.
type cut struct {
	from, to int
	comment  bool
}

// show finds what of a parsed source may be shown. It looks at tokens, because
// there is no syntax tree of the lines that could not be parsed.
func show(src *source, root block) *shown {
	names := names{plain: map[string]bool{placeholder: true}, secret: map[string]bool{}}
	names.learn(root)

	s := &shown{}
	inside := map[int]bool{} // numbers of broken lines that begin inside something hidden
	cuts, _ := names.hide(src.text)
	for _, c := range cuts {
		i, ok := slices.BinarySearchFunc(src.broken, c.from, func(l line, at int) int {
			switch {
			case l.to < at:
				return -1
			case l.from > at:
				return 1
			}
			return 0
		})
		if !ok {
			s.cuts = append(s.cuts, c)
		} else if c.from == src.broken[i].from && !c.comment {
			inside[src.broken[i].number] = true
		}
	}
	hidden := 0 // the line before, if it hides something: that may go on
	for _, l := range src.broken {
		own, hides := names.hide(src.bytes[l.from:l.to])
		if (inside[l.number] || hidden == l.number-1) && l.from < l.to {
			own, hides = []cut{{to: l.to - l.from}}, true
		}
		if hides {
			hidden = l.number
		}
		for _, c := range own {
			s.cuts = append(s.cuts, cut{c.from + l.from, c.to + l.from, c.comment})
		}
	}
	if src.lost.number > 0 && src.lost.from < len(src.bytes) {
		s.cuts = slices.DeleteFunc(s.cuts, func(c cut) bool { return c.to > src.lost.from })
		s.cuts = append(s.cuts, cut{from: src.lost.from, to: len(src.bytes)})
	}
	slices.SortFunc(s.cuts, func(a, b cut) int { return a.from - b.from })

	at := 0
	for _, c := range s.cuts {
		s.bytes = append(s.bytes, src.bytes[at:c.from]...)
		s.bytes = append(s.bytes, masked...)
		at = c.to
	}
	s.bytes = append(s.bytes, src.bytes[at:]...)
	return s
}

// names are the names of attributes and blocks that the format knows.
type names struct {
	plain, secret map[string]bool
}

// learn takes in the names of a block and of those inside it.
func (n names) learn(b block) {
	for _, a := range b.attrs {
		if a.secret {
			n.secret[a.name] = true
		} else {
			n.plain[a.name] = true
		}
	}
	for _, l := range b.later {
		n.plain[l.name] = true
	}
	for _, inner := range slices.Concat(b.blocks, b.kinds) {
		n.plain[inner.name] = true
		n.learn(inner)
	}
}

// hide returns what of a text must not be shown, and whether something of it
// other than a comment is, or would have been if it went on.
func (n names) hide(text []byte) (cuts []cut, hides bool) {
	// Errors of the lexer come back from the parser.
	tokens, _ := hclsyntax.LexConfig(text, "", hcl.InitialPos)
	h := hider{names: n, text: text}
	for i := range tokens {
		if tokens[i].Type == hclsyntax.TokenQuotedNewline {
			// What follows is read with strings and code exchanged.
			if !h.hiding {
				h.start(tokens[i].Range.Start.Byte)
			}
			break
		}
		h.token(tokens, i)
	}
	if h.hiding {
		h.cut(h.from, len(text), false)
	}
	return h.cuts, h.hides
}

// hider walks over the tokens of a text and cuts out what must not be shown.
type hider struct {
	names
	text   []byte
	cuts   []cut
	lists  int // depth of brackets and parentheses, while showing
	hiding bool
	hides  bool // ever
	from   int  // where hiding began
	hidden int  // depth of everything that opens and closes, while hiding
}

func (h *hider) token(tokens hclsyntax.Tokens, i int) {
	t := tokens[i]
	before := hclsyntax.TokenNewline
	if i > 0 {
		before = tokens[i-1].Type
		if before == hclsyntax.TokenComment && bytes.HasSuffix(tokens[i-1].Bytes, []byte("\n")) {
			before = hclsyntax.TokenNewline
		}
	}
	if h.hiding {
		h.conceal(t, before)
		return
	}
	first := h.lists == 0 && (before == hclsyntax.TokenNewline || before == hclsyntax.TokenOBrace)
	switch t.Type {
	case hclsyntax.TokenComment:
		h.cut(t.Range.Start.Byte+1, t.Range.End.Byte, true)
	case hclsyntax.TokenOHeredoc:
		h.start(t.Range.Start.Byte)
		h.hidden = 1
	case hclsyntax.TokenOParen, hclsyntax.TokenOBrack:
		h.lists++
	case hclsyntax.TokenCParen, hclsyntax.TokenCBrack:
		h.lists = max(h.lists-1, 0)
	case hclsyntax.TokenIdent:
		h.ident(tokens, i, first, before)
	case hclsyntax.TokenOBrace, hclsyntax.TokenCBrace, hclsyntax.TokenNewline, hclsyntax.TokenEOF:
	default:
		if first {
			h.start(t.Range.Start.Byte)
			h.conceal(t, before)
		}
	}
}

// ident decides at a name whether what follows may be shown.
func (h *hider) ident(tokens hclsyntax.Tokens, i int, first bool, before hclsyntax.TokenType) {
	name := string(tokens[i].Bytes)
	value := before == hclsyntax.TokenEqual || before == hclsyntax.TokenOBrack || before == hclsyntax.TokenComma ||
		before == hclsyntax.TokenOParen || before == hclsyntax.TokenTemplateInterp
	switch {
	case h.plain[name] && !h.secret[name]:
	case value && (name == "env" || name == "file" || name == "true" || name == "false"):
	case h.secret[name] && isCall(tokens[i+1:]):
	case before == hclsyntax.TokenIdent && h.plain[string(tokens[i-1].Bytes)]: // a label without quotes
	case first || value:
		next := i + 1
		if tokens[next].Type == hclsyntax.TokenEqual {
			next++
		}
		h.start(tokens[next].Range.Start.Byte)
	default:
		h.start(tokens[i].Range.Start.Byte)
	}
}

// isCall reports whether tokens begin with an assignment of env("NAME") or
// file("path") and nothing else on the line: the only form of a secret that
// says where it is and not what it is.
func isCall(tokens hclsyntax.Tokens) bool {
	form := []hclsyntax.TokenType{
		hclsyntax.TokenEqual, hclsyntax.TokenIdent, hclsyntax.TokenOParen,
		hclsyntax.TokenOQuote, hclsyntax.TokenQuotedLit, hclsyntax.TokenCQuote, hclsyntax.TokenCParen,
	}
	if len(tokens) <= len(form) {
		return false
	}
	for i, typ := range form {
		if tokens[i].Type != typ {
			return false
		}
	}
	switch tokens[len(form)].Type {
	case hclsyntax.TokenNewline, hclsyntax.TokenComment, hclsyntax.TokenCBrace, hclsyntax.TokenEOF:
	default:
		return false
	}
	switch name := string(tokens[1].Bytes); name {
	case "env":
		return isEnvName(string(tokens[4].Bytes))
	default:
		return name == "file"
	}
}

func (h *hider) start(from int) {
	h.hiding, h.hides, h.from, h.hidden = true, true, from, 0
}

// conceal looks for the end of what is hidden: the end of the line on which
// everything that was opened is closed again.
func (h *hider) conceal(t hclsyntax.Token, before hclsyntax.TokenType) {
	switch t.Type {
	case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
		hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		h.hidden++
	case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
		hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
		h.hidden--
	case hclsyntax.TokenNewline, hclsyntax.TokenComment:
		// The value may stand, wrongly, on the line after the equals sign.
		if h.hidden <= 0 && before != hclsyntax.TokenEqual && bytes.HasSuffix(t.Bytes, []byte("\n")) {
			h.cut(h.from, t.Range.End.Byte, false)
			h.hiding, h.lists = false, 0
		}
	}
}

// cut records a part of the source, line by line and without line ends.
func (h *hider) cut(from, to int, comment bool) {
	for from < to {
		line := h.text[from:to]
		next := to
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line, next = line[:i], from+i+1
		}
		if line = bytes.TrimRight(line, "\r"); len(line) > 0 {
			h.cuts = append(h.cuts, cut{from, from + len(line), comment})
		}
		from = next
	}
}

// hides reports whether something in r is cut out, other than a comment.
func (s *shown) hides(r *hcl.Range) bool {
	if r == nil {
		return false
	}
	for _, c := range s.cuts {
		if !c.comment && c.from < max(r.End.Byte, r.Start.Byte+1) && r.Start.Byte < c.to {
			return true
		}
	}
	return false
}

// lines returns the lines of r that may be shown, in three parts, of which r is
// the second. What is cut out is taken as a whole.
func (s *shown) lines(r hcl.Range) (before, subject, after string) {
	start, end, shift := r.Start.Byte, r.End.Byte, 0
	for _, c := range s.cuts {
		if c.from > r.End.Byte {
			break
		}
		grown := len(masked) - (c.to - c.from)
		switch {
		case r.Start.Byte >= c.to:
			start += grown
		case r.Start.Byte >= c.from:
			start = c.from + shift
		}
		switch {
		case r.End.Byte > c.to:
			end += grown
		case r.End.Byte > c.from:
			end = c.from + shift + len(masked)
		}
		shift += grown
	}
	end = max(start, end)
	from, to := lineOf(s.bytes, start).from, lineOf(s.bytes, end).to
	return string(s.bytes[from:start]), string(s.bytes[start:end]), string(s.bytes[end:to])
}

// context returns the headers of the blocks around r.
func (s *shown) context(r hcl.Range) string {
	var headers []string
	blocks := s.blocks
	for blocks != nil {
		var inner hclsyntax.Blocks
		header := ""
		for _, b := range blocks {
			def := b.DefRange()
			if !b.Range().ContainsOffset(r.Start.Byte) || b.Type == placeholder || s.hides(&def) {
				continue
			}
			// The last of several is the one that was parsed as a part of others.
			header, inner = b.Type, b.Body.Blocks
			for _, label := range b.Labels {
				header += fmt.Sprintf(" %q", label)
			}
		}
		if header != "" {
			headers = append(headers, header)
		}
		blocks = inner
	}
	return strings.Join(headers, ", ")
}
