package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// place is where a block and its attributes are written.
type place struct {
	whole  hcl.Range
	header hcl.Range
	label  hcl.Range
	attrs  map[string]value // by name: max_open, pool.max_idle
	parent *place           // the block whose values this one started from, or nil
}

// placed is a value and where it is written.
type placed[T any] struct {
	value T
	at    place
}

func values[T any](all []*placed[T]) []T {
	out := make([]T, 0, len(all))
	for _, p := range all {
		out = append(out, p.value)
	}
	return out
}

// has reports whether the attribute is written in this block.
func (p *place) has(name string) bool {
	_, ok := p.attrs[name]
	return ok
}

// inherits reports whether the attribute is written in this block or in the
// one it started from.
func (p *place) inherits(name string) bool {
	return p.has(name) || p.parent != nil && p.parent.inherits(name)
}

// of returns the place of the first of the attributes that is written in this
// block, else in the one it started from, else that of the block itself.
func (p *place) of(names ...string) hcl.Range {
	for q := p; q != nil; q = q.parent {
		for _, name := range names {
			if v, ok := q.attrs[name]; ok {
				return v.rng
			}
		}
	}
	return p.header
}

// blocks decodes those of all that the table allows inside in, in the order
// of the table, and reports the others.
func (l *loader) blocks(in block, all hclsyntax.Blocks, at *place, prefix string) {
	for _, b := range all {
		if _, ok := in.block(b.Type); !ok {
			l.unknownBlock(in, b)
		}
	}
	for _, spec := range in.blocks {
		var first *hclsyntax.Block
		for _, b := range all {
			switch {
			case b.Type != spec.name:
				continue
			case first != nil && !spec.many:
				l.errorf(b.DefRange(), fmt.Sprintf("Second %s block", b.Type),
					"There is one already, at %s. Put the attributes of both into one block.", position(first.DefRange()))
				continue
			case spec.open != nil:
				spec.open(b)
			default:
				l.body(spec, b, at, prefix+spec.name+".")
			}
			first = b
		}
	}
}

// block decodes b into what spec is bound to, and returns where it all stands.
// That begins with the defaults, or, where there is a parent, with its values,
// which are there already.
func (l *loader) block(spec block, b *hclsyntax.Block, parent *place) place {
	if parent == nil {
		spec.reset()
	}
	at := place{whole: b.Range(), header: b.DefRange(), attrs: map[string]value{}, parent: parent}
	if len(b.LabelRanges) > 0 {
		at.label = b.LabelRanges[0]
	}
	l.body(spec, b, &at, "")
	return at
}

func (l *loader) body(spec block, b *hclsyntax.Block, at *place, prefix string) {
	l.labels(spec, b)
	for _, a := range inOrder(b.Body.Attributes) {
		known, ok := spec.attr(a.Name)
		if !ok {
			l.unknownAttr(spec, a)
			continue
		}
		at.attrs[prefix+a.Name] = l.attr(known, a)
	}
	for _, a := range spec.attrs {
		if a.required && !at.has(prefix+a.name) {
			l.missingIn(b.Range(), b.DefRange(), fmt.Sprintf("No %s", a.name),
				"The block needs it. %s", hint(a))
		}
	}
	l.blocks(spec, b.Body.Blocks, at, prefix)
}

// attr sets what is behind an attribute and returns what is written there.
func (l *loader) attr(known attr, a *hclsyntax.Attribute) value {
	v, p := eval(a.Expr, dirOf(a.SrcRange.Filename))
	if p == nil {
		p = known.field.set(v)
	}
	if p == nil {
		return v
	}
	if p.summary == "" {
		p.summary = "Wrong value of " + a.Name
	}
	if p.form {
		p.detail = join(fmt.Sprintf("%s takes %s.", a.Name, strings.ReplaceAll(known.field.takes, "`", "")), p.detail, hint(known))
	}
	if p.at == nil {
		p.at = &v.rng
	}
	l.report(*p)
	return v
}

// hint shows how an attribute is written.
func hint(a attr) string { return fmt.Sprintf("For example: %s = %s", a.name, a.sample()) }

func join(sentences ...string) string {
	return strings.Join(slices.DeleteFunc(sentences, func(s string) bool { return s == "" }), " ")
}

func (l *loader) labels(spec block, b *hclsyntax.Block) {
	if spec.label == "" {
		if len(b.Labels) > 0 {
			l.errorf(b.LabelRanges[0], "Label not allowed", "A %s block has no name. Write: %s { … }", spec.name, spec.name)
		}
		return
	}
	form := spec.header() + " { … }"
	switch {
	case len(b.Labels) == 0:
		l.errorf(b.DefRange(), fmt.Sprintf("No %s", spec.label), "Say the %s of the block in double quotes before the brace: %s", spec.label, form)
	case len(b.Labels) > 1:
		l.errorf(b.LabelRanges[1], "Second label not allowed", "There is one %s: %s", spec.label, form)
	default:
		if !isName(b.Labels[0]) {
			l.errorf(b.LabelRanges[0], fmt.Sprintf("Wrong %s", spec.label),
				"Names show in logs and on command lines: they are of 1 to 128 bytes, without spaces and control characters.")
		}
	}
}

func isName(s string) bool {
	return s != "" && len(s) <= 128 && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
}

func (l *loader) unknownAttr(in block, a *hclsyntax.Attribute) {
	if remedy, ok := in.unsupported(a.Name); ok {
		l.unsupported(a.Name, remedy, a.NameRange)
		return
	}
	if b, ok := in.block(a.Name); ok {
		l.errorf(a.NameRange, fmt.Sprintf("%s is a block", a.Name), "Write it without the equals sign: %s { … }", b.header())
		return
	}
	l.errorf(a.NameRange, fmt.Sprintf("Unknown attribute %s", a.Name), "%s", join(in.meant(a.Name), in.contents()))
}

func (l *loader) unknownBlock(in block, b *hclsyntax.Block) {
	if remedy, ok := in.unsupported(b.Type); ok {
		l.unsupported(b.Type, remedy, b.DefRange())
		return
	}
	if a, ok := in.attr(b.Type); ok {
		l.errorf(b.TypeRange, fmt.Sprintf("%s is an attribute", a.name), "Write it with an equals sign. %s", hint(a))
		return
	}
	l.errorf(b.TypeRange, fmt.Sprintf("Unknown block %s", b.Type), "%s", join(in.meant(b.Type), in.contents()))
}

func (l *loader) unsupported(name, remedy string, at hcl.Range) {
	l.errorf(at, fmt.Sprintf("%s is not supported by this version", name), "%s", remedy)
}

// position is a place in a sentence.
func position(r hcl.Range) string { return fmt.Sprintf("%s line %d", r.Filename, r.Start.Line) }

// dirOf returns the directory of a file, absolute where that can be found out.
func dirOf(file string) string {
	dir := filepath.Dir(file)
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}

// inOrder returns attributes as they are written; the parser has a map.
func inOrder(attrs hclsyntax.Attributes) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(attrs), func(a, b *hclsyntax.Attribute) int {
		return a.NameRange.Start.Byte - b.NameRange.Start.Byte
	})
}
