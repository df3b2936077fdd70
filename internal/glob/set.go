package glob

import (
	"slices"
	"strings"
)

// Set is a set of patterns, made for many thousands of them: names without
// wildcards are looked up, and of the others only those are tried whose
// beginning or end, up to the wildcard, is that of the name. Patterns that
// begin and end with a wildcard are tried one by one.
//
// The zero value is an empty set. A set does not change; any number of
// goroutines may use it.
type Set struct {
	names    map[string]struct{}
	prefixes anchors
	suffixes anchors
	floating []string // begin and end with a wildcard
	all      bool     // has *
}

// NewSet returns the set of patterns.
func NewSet(patterns []string) Set {
	var s Set
	var wild []string
	prefixes, suffixes := make(map[string]int), make(map[string]int)
	for _, p := range patterns {
		switch {
		case strings.Trim(p, "*") == "" && p != "":
			s.all = true
		case !HasWildcard(p):
			if s.names == nil {
				s.names = make(map[string]struct{})
			}
			s.names[p] = struct{}{}
		default:
			wild = append(wild, p)
			prefixes[prefix(p)]++
			suffixes[suffix(p)]++
		}
	}
	byPrefix, bySuffix := make(map[string][]string), make(map[string][]string)
	for _, p := range wild {
		pre, suf := prefix(p), suffix(p)
		switch {
		case pre == "" && suf == "":
			s.floating = append(s.floating, p)
		case suf == "" || pre != "" && prefixes[pre] <= suffixes[suf]:
			// The one that fewer patterns share tells more.
			byPrefix[pre] = append(byPrefix[pre], p)
		default:
			bySuffix[suf] = append(bySuffix[suf], p)
		}
	}
	s.prefixes = newAnchors(byPrefix)
	s.suffixes = newAnchors(bySuffix)
	return s
}

// Match reports whether a pattern of the set matches all of name. It does not
// allocate.
func (s *Set) Match(name string) bool {
	if s.all {
		return true
	}
	if _, ok := s.names[name]; ok {
		return true
	}
	if s.prefixes.beginning(name) || s.suffixes.end(name) {
		return true
	}
	return matchAny(s.floating, name)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if Match(p, name) {
			return true
		}
	}
	return false
}

func prefix(pattern string) string { return pattern[:strings.IndexAny(pattern, "*?")] }

func suffix(pattern string) string { return pattern[strings.LastIndexAny(pattern, "*?")+1:] }

// anchors finds the patterns whose literal beginning, or end, a name has.
type anchors struct {
	lengths  []int // of the literals, each once
	patterns map[string][]string
}

func newAnchors(patterns map[string][]string) anchors {
	a := anchors{patterns: patterns}
	for literal := range patterns {
		a.lengths = append(a.lengths, len(literal))
	}
	slices.Sort(a.lengths)
	a.lengths = slices.Compact(a.lengths)
	return a
}

func (a *anchors) beginning(name string) bool {
	for _, n := range a.lengths {
		if n > len(name) {
			break
		}
		if matchAny(a.patterns[name[:n]], name) {
			return true
		}
	}
	return false
}

func (a *anchors) end(name string) bool {
	for _, n := range a.lengths {
		if n > len(name) {
			break
		}
		if matchAny(a.patterns[name[len(name)-n:]], name) {
			return true
		}
	}
	return false
}
