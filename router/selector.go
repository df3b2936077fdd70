package router

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
)

// selector says whom a route is for.
type selector struct {
	users    []string       // patterns, in the form of users
	domains  map[string]int // to the number of the clause
	patterns []string       // of domains; an empty one is a clause of another kind
	regexes  []*regexp.Regexp
	clauses  []string // why a user is selected
}

// newSelector returns the selector of m, nil if that is for everybody.
func newSelector(m config.Match, names *Names) (*selector, []error) {
	if m.Empty() {
		return nil, nil
	}
	s := &selector{domains: make(map[string]int)}
	var errs []error
	for _, pattern := range m.Users {
		normal, err := names.Pattern(pattern)
		if err := cmp.Or(checkPattern(pattern), err); err != nil {
			errs = append(errs, err)
		}
		s.users = append(s.users, normal)
		s.clauses = append(s.clauses, fmt.Sprintf("%q matches the user", pattern))
	}
	for _, domain := range m.Domains {
		normal, err := names.Pattern("*@" + domain)
		if domain == "" || strings.Contains(domain, "@") {
			err = fmt.Errorf("%q is no domain: write one without an @, like \"example.com\"", domain)
		}
		if err := cmp.Or(checkPattern(domain), err); err != nil {
			errs = append(errs, err)
			continue
		}
		normal = strings.TrimPrefix(normal, "*@")
		if glob.HasWildcard(normal) {
			s.patterns = append(s.patterns, normal)
		} else {
			s.patterns = append(s.patterns, "")
			if _, ok := s.domains[normal]; !ok {
				s.domains[normal] = len(s.clauses)
			}
		}
		s.clauses = append(s.clauses, fmt.Sprintf("the user's domain is %q", domain))
	}
	for _, expr := range m.Regex {
		compiled, err := regexp.Compile(`\A(?:` + expr + `)\z`)
		if err == nil {
			err = checkCase(expr, names)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("regex %q: %w", expr, err))
		}
		s.regexes = append(s.regexes, compiled)
		s.clauses = append(s.clauses, fmt.Sprintf("the regular expression %q matches the user", expr))
	}
	return s, errs
}

// selects returns the number of the clause that selects a user in normal form,
// -1 if none does. It does not allocate.
func (s *selector) selects(user string) int {
	for i, pattern := range s.users {
		if glob.Match(pattern, user) {
			return i
		}
	}
	if at := strings.IndexByte(user, '@'); at >= 0 && len(s.patterns) > 0 {
		domain := user[at+1:]
		if clause, ok := s.domains[domain]; ok {
			return clause
		}
		for i, pattern := range s.patterns {
			if pattern != "" && glob.Match(pattern, domain) {
				return len(s.users) + i
			}
		}
	}
	for i, regex := range s.regexes {
		if regex.MatchString(user) {
			return len(s.users) + len(s.patterns) + i
		}
	}
	return -1
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

// checkCase reports letters of an expression that no user in normal form has.
// Patterns are brought into that form; what a letter of an expression means is
// not known well enough.
func checkCase(expr string, names *Names) error {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return err
	}
	var walk func(*syntax.Regexp) error
	walk = func(r *syntax.Regexp) error {
		if r.Op == syntax.OpLiteral && r.Flags&syntax.FoldCase == 0 {
			for _, c := range r.Rune {
				if text := string(c); c < 0x80 && names.fold(text) != text {
					return fmt.Errorf("no user has the letter %s, because username_format changes its case: write %s", text, names.fold(text))
				}
			}
		}
		for _, sub := range r.Sub {
			if err := walk(sub); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(parsed)
}
