package config

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// label is the name of a block; the decoder has reported one that is missing.
func label(b *hclsyntax.Block) string {
	if len(b.Labels) == 0 {
		return ""
	}
	return b.Labels[0]
}

// unique reports a name that a block of the same kind has already, and else
// remembers it in seen.
func (l *loader) unique(kind, name string, at *place, seen map[string]hcl.Range) {
	if name == "" {
		return
	}
	if first, ok := seen[name]; ok {
		l.errorf(at.label, fmt.Sprintf("Second %s %q", kind, name),
			"There is one of this name already, at %s. Rename one of the two; the name is free to choose.", position(first))
		return
	}
	seen[name] = at.label
}

// known reports a reference to a block that is not there, and returns whether
// it is. v is where it is written; an empty name is no reference.
func (l *loader) known(kind string, v value, name string, names []string) bool {
	if name == "" || slices.Contains(names, name) {
		return true
	}
	summary := fmt.Sprintf("Unknown %s", kind)
	if !v.computed {
		summary = fmt.Sprintf("Unknown %s %q", kind, name)
	}
	there := fmt.Sprintf("The configuration has none: write a block %s \"name\" { … }", kind)
	if len(names) > 0 {
		there = fmt.Sprintf("The configuration has %s: write one of them, or a block for a new one.", list(names))
	}
	l.missing(v.rng, summary, "%s", join(nearest(name, names), there))
	return false
}
