package config

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Match says whom a route is for.
type Match struct {
	Users   []string // globs on the user
	Domains []string // globs on the domain
	Regex   []string // RE2, matching the whole user
}

// Empty reports whether nothing is said, so that a route is for everybody.
func (m Match) Empty() bool { return len(m.Users) == 0 && len(m.Domains) == 0 && len(m.Regex) == 0 }

func (r *Route) matchBlock() block {
	return block{
		name: "route", kind: "match", label: "kind", many: true,
		doc: "Users by their names: those of one of the patterns, domains or regular expressions.",
		example: `
route "match" {
  domains = ["sales.example", "*.sales.example"]
  users   = ["postmaster@*"]
  regex   = ["[a-m].*@example\\.com"]
  shard   = "s2"
}`,
		attrs: append(r.selectors(""), attr{
			name: "shard", field: text(&r.Shard), required: true, example: `"s2"`,
			doc: "The shard of these users.",
		}),
	}
}

// selectors are the attributes of Match.
func (r *Route) selectors(doc string) []attr {
	return []attr{
		{
			name: "users", field: texts(&r.Match.Users), example: `["*@sales.example", "postmaster@*"]`,
			doc: doc + "Patterns, one of which the whole user name has to match: `*` stands for any number of characters, `?` for one.",
		},
		{
			name: "domains", field: texts(&r.Match.Domains), example: `["example.com", "*.example.com"]`,
			doc: doc + "Domains, what follows the first `@` of a user; patterns as in `users` are allowed. Many domains cost no more time than one.",
		},
		{
			name: "regex", field: regexes(&r.Match.Regex), example: `["[a-m].*@example[.]com"]`,
			doc: doc + "Regular expressions (RE2), one of which the whole user in its normal form has to match.",
		},
	}
}

// regexes is a list of regular expressions.
func regexes(to *[]string) field {
	f := texts(to)
	f.takes = "a list of regular expressions"
	read := f.set
	f.set = func(v value) *problem {
		if p := read(v); p != nil {
			return p
		}
		for i, expr := range *to {
			if _, err := regexp.Compile(expr); err != nil {
				remark := "It cannot be understood."
				if e, ok := err.(*syntax.Error); ok {
					remark = fmt.Sprintf("This one cannot be understood: %s.", e.Code)
				}
				p := wrong(remark)
				p.at = &v.is.([]value)[i].rng
				return p
			}
		}
		return nil
	}
	return f
}

// checkMatch reports a route that is for nobody.
func (l *loader) checkMatch(r *placed[Route]) {
	if r.value.Match.Empty() && !r.at.has("users") && !r.at.has("domains") && !r.at.has("regex") {
		l.missingIn(r.at.whole, r.at.header, "No users", "The route is for nobody. For example: users = [\"*@sales.example\"], domains = [\"sales.example\"] or regex = [\"[a-m].*\"]")
	}
}
