package router

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// match gives the users of some patterns to one shard.
type match struct {
	label     string
	patterns  []string
	decisions []Decision // one a pattern
}

func newMatch(name string, r config.Route, shards []string) (*match, []error) {
	m := &match{label: name}
	var errs []error
	if len(r.Users) == 0 {
		errs = append(errs, errors.New(`no pattern in users: write one like "*@example.com"`))
	}
	for _, pattern := range r.Users {
		if err := checkPattern(pattern); err != nil {
			errs = append(errs, err)
		}
		m.patterns = append(m.patterns, NormalForm(pattern))
		m.decisions = append(m.decisions, Decision{r.Shard, name, fmt.Sprintf("%q matches the user", pattern)})
	}
	if err := checkShard(r.Shard, shards); err != nil {
		errs = append(errs, err)
	}
	return m, errs
}

func checkPattern(pattern string) error {
	switch {
	case pattern == "":
		return errors.New(`an empty pattern matches nobody: write "*" for everybody, or remove it`)
	case strings.ContainsFunc(pattern, isControl):
		return fmt.Errorf("pattern %q contains a control character, no user name does: remove it", pattern)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func (m *match) name() string { return m.label }

func (m *match) decide(user string) (Decision, bool) {
	for i, pattern := range m.patterns {
		if matchGlob(pattern, user) {
			return m.decisions[i], true
		}
	}
	return Decision{}, false
}

func (m *match) explain(user string) string {
	if d, ok := m.decide(user); ok {
		return d.Reason
	}
	return "no pattern matches the user"
}

// matchGlob reports whether all of s matches pattern, in which * stands for
// any characters or none and ? for exactly one; all else stands for itself.
//
// On a mismatch only the last * takes one character more: what earlier ones
// took cannot have been too little, since they took as little as they could.
// So the time is at most len(pattern) times len(s), whatever the pattern is.
func matchGlob(pattern, s string) bool {
	p, i := 0, 0
	star, taken := -1, 0 // where the last * stands, and the end of what it took
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, taken = p, i
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			i += charLen(s[i:])
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			taken += charLen(s[taken:])
			p, i = star+1, taken
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// charLen is the length of the first character, which ? counts as one; bytes
// that are not UTF-8 count each.
func charLen(s string) int {
	_, size := utf8.DecodeRuneInString(s)
	return size
}
