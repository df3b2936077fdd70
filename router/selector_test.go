package router

import (
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func TestSelector(t *testing.T) {
	match := config.Match{
		Users:   []string{"postmaster@*"},
		Domains: []string{"Example.com", "*.example.com", "example.org"},
		Regex:   []string{"[a-m].*@split[.]example", "(?i)BIG"},
	}
	names := newNames(t, config.Router{DomainAliases: []config.DomainAlias{{Domain: "main.example", Aliases: []string{"example.org"}}}})
	table, err := New(names, []config.Route{{Kind: "match", Match: match, Shard: "s2"}, {Kind: "match", Match: config.Match{Users: []string{"*"}}, Shard: "s1"}}, shards)
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{
		"Postmaster@anywhere":   `"postmaster@*" matches the user`,
		"alice@EXAMPLE.com":     `the user's domain is "Example.com"`,
		"a@b@example.com":       `"*" matches the user`, // the domain begins at the first @
		"alice@sub.example.com": `the user's domain is "*.example.com"`,
		"alice@notexample.com":  `"*" matches the user`,
		"alice@example.org":     `the user's domain is "example.org"`,
		"alice@main.example":    `the user's domain is "example.org"`,
		"alice@split.example":   `the regular expression "[a-m].*@split[.]example" matches the user`,
		"zoe@split.example":     `"*" matches the user`,
		"alice@split.example2":  `"*" matches the user`, // all of it has to match
		"xalice@split.example":  `"*" matches the user`,
		"Big":                   `the regular expression "(?i)BIG" matches the user`,
		"example.com":           `"*" matches the user`,
	} {
		if d, err := table.Route(t.Context(), user); err != nil || d.Reason != want {
			t.Errorf("Route(%q) = %+v, %v; want %s", user, d, err, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { table.Route(t.Context(), "zoe@sub.example.org") }); n != 0 && !underRace {
		t.Errorf("%v allocations", n)
	}
}

// Rings that are for some users stand before that for all others.
func TestRingForSome(t *testing.T) {
	t.Parallel()
	table := newTable(t,
		config.Route{Kind: "ring", Match: config.Match{Domains: []string{"eu.example"}}, Shards: []string{"s1"}},
		config.Route{Kind: "ring", Shards: []string{"s2"}},
	)
	for user, want := range map[string]string{"a@eu.example": "s1 by ring", "a@us.example": "s2 by ring #2"} {
		d, err := table.Route(t.Context(), user)
		if got := d.Shard + " by " + d.Route; err != nil || got != want {
			t.Errorf("%s is on %s, %v; want %s", user, got, err, want)
		}
	}
	answers := table.Explain(t.Context(), "a@us.example")
	if len(answers) != 2 || answers[0].Reason != "the ring is not for this user" {
		t.Errorf("%+v", answers)
	}
	if answers = table.Explain(t.Context(), "a@eu.example"); !strings.HasPrefix(answers[0].Reason, `the user's domain is "eu.example"; `) {
		t.Errorf("%+v", answers)
	}
}

func TestSelectorErrors(t *testing.T) {
	t.Parallel()
	for want, m := range map[string]config.Match{
		`regex "a("`:                          {Regex: []string{"a("}},
		"no user has the letter A":            {Regex: []string{"Alice"}},
		`"@example.com" is no domain`:         {Domains: []string{"@example.com"}},
		"contains a control character":        {Domains: []string{"a\x01"}},
		"an empty pattern matches nobody":     {Users: []string{""}},
		`no pattern in users: write one like`: {},
	} {
		if _, err := New(new(Names), []config.Route{{Kind: "match", Match: m, Shard: "s1"}}, shards); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", m, err, want)
		}
	}
}
