package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// block is the table of what one kind of block may hold, bound to the Go value
// that it describes as a flag is bound to its variable.
type block struct {
	name    string
	in      string // the block around it, where others have blocks of the same name
	label   string // what its label says; empty: the block has none
	kind    string // the label, where it selects one of kinds
	many    bool   // more than one is allowed
	doc     string // Markdown
	example string // HCL
	attrs   []attr
	blocks  []block
	kinds   []block // the forms of the block, by its label
	later   []later
	// open decodes a block of which each needs a Go value of its own. Without
	// it the decoder fills what the table is bound to.
	open func(*hclsyntax.Block)
}

// attr is one attribute: how it is written and the variable behind it.
type attr struct {
	name     string
	field    field
	def      string // the default in HCL; empty: none
	example  string // in HCL, where the default is none
	required bool
	secret   bool
	doc      string // Markdown
}

// later is a name that belongs to the format but not to this version of it.
type later struct {
	name   string
	remedy string
}

func (b block) by(open func(*hclsyntax.Block)) block {
	b.open = open
	return b
}

// reset gives every variable of the block its default.
func (b block) reset() {
	for _, a := range b.attrs {
		if a.def == "" {
			continue
		}
		if p := a.field.set(constant(a.def)); p != nil {
			panic("default of " + a.name + ": " + p.detail)
		}
	}
	for _, nested := range b.blocks {
		if nested.open == nil {
			nested.reset()
		}
	}
}

// empty reports whether nothing of the block would be printed.
func (b block) empty() bool {
	return !slices.ContainsFunc(b.attrs, func(a attr) bool { return a.field.get() != cty.NilVal }) &&
		!slices.ContainsFunc(b.blocks, func(n block) bool { return n.many || !n.empty() })
}

// sample is a value of the attribute as it may be written.
func (a attr) sample() string {
	if a.example != "" {
		return a.example
	}
	return a.def
}

func (b block) attr(name string) (attr, bool) {
	i := slices.IndexFunc(b.attrs, func(a attr) bool { return a.name == name })
	if i < 0 {
		return attr{}, false
	}
	return b.attrs[i], true
}

func (b block) block(name string) (block, bool) {
	i := slices.IndexFunc(b.blocks, func(n block) bool { return n.name == name })
	if i < 0 {
		return block{}, false
	}
	return b.blocks[i], true
}

// unsupported returns the remedy for a name that this version does not support.
func (b block) unsupported(name string) (remedy string, ok bool) {
	for _, l := range b.later {
		if l.name == name {
			return l.remedy, true
		}
	}
	return "", false
}

// blockNames adds the names of all blocks that may stand in b, at any depth.
func (b block) blockNames(names map[string]bool) {
	for _, inner := range b.blocks {
		names[inner.name] = true
		inner.blockNames(names)
	}
}

// header is how a block of this kind begins.
func (b block) header() string {
	switch {
	case b.kind != "":
		return fmt.Sprintf("%s %q", b.name, b.kind)
	case b.label != "":
		return fmt.Sprintf("%s %q", b.name, b.label)
	}
	return b.name
}

// contents lists what may stand in the block.
func (b block) contents() string {
	var attrs, blocks []string
	for _, a := range b.attrs {
		attrs = append(attrs, a.name)
	}
	for _, n := range b.blocks {
		blocks = append(blocks, n.name)
	}
	where := "A configuration file"
	if b.name != "" {
		where = "A " + b.name + " block"
		if b.kind != "" {
			where = "A " + b.header() + " block"
		}
	}
	switch {
	case len(attrs) == 0 && len(blocks) == 0:
		return where + " is empty."
	case len(blocks) == 0:
		return fmt.Sprintf("%s has the attributes %s.", where, list(attrs))
	case len(attrs) == 0:
		return fmt.Sprintf("%s has the blocks %s.", where, list(blocks))
	}
	return fmt.Sprintf("%s has the attributes %s, and the blocks %s.", where, list(attrs), list(blocks))
}

// meant guesses what an unknown name should have been.
func (b block) meant(name string) string {
	var names []string
	for _, a := range b.attrs {
		names = append(names, a.name)
	}
	for _, n := range b.blocks {
		names = append(names, n.name)
		if _, ok := n.attr(name); ok {
			return fmt.Sprintf("It belongs into a block %s { … } in here.", n.header())
		}
		if _, ok := n.block(name); ok {
			return fmt.Sprintf("It belongs into a block %s { … } in here.", n.header())
		}
	}
	return nearest(name, names)
}
