package glob

import (
	"regexp"
	"strings"
	"testing"
	"testing/quick"
	"unicode/utf8"
)

func TestMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, user string
		want          bool
	}{
		{"*", "anyone", true},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"?", "", false},
		{"?", "a", true},
		{"?", "ü", true},
		{"?", "用", true},
		{"??", "ü", false},
		{"*??", "用", false}, // a character is never taken in parts
		{"?", "\xff", true},
		{"a*c", "abbbc", true},
		{"a*c", "ac", true},
		{"a*c", "acd", false},
		{"*@example.com", "alice@example.com", true},
		{"*@example.com", "alice@example.com.evil", false},
		{"*@example.com", "@example.com", true},
		{"*@example.com", "example.com", false},
		{"*@*.example.com", "a@b.c.example.com", true},
		{"a?b@*", "a.b@x", true},
		{"a?b@*", "a@b@x", true},
		{"a.b", "axb", false},
		{"*a*b*c*", "xxaxxbxxcxx", true},
		{"*a*b*c*", "xxaxxcxxbxx", false},
		{"**a**", "bab", true},
		{"[a]", "a", false},
		{"[a]", "[a]", true},
		{`\*`, `\x`, true},
		{"*aab", "aaab", true},
		{"*abc*abd", "abcabcabd", true},
		{"*ü", "üü", true},
	}
	for _, test := range tests {
		if got := Match(test.pattern, test.user); got != test.want {
			t.Errorf("Match(%q, %q) = %v", test.pattern, test.user, got)
		}
	}
}

// globRegexp says with the standard library what a pattern means.
func globRegexp(pattern string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(pattern)
	quoted = strings.ReplaceAll(quoted, `\*`, `(?s:.*)`)
	quoted = strings.ReplaceAll(quoted, `\?`, `(?s:.)`)
	return regexp.MustCompile(`\A` + quoted + `\z`)
}

// TestMatchAgainstRegexp uses few letters, so that much matches in part.
func TestMatchAgainstRegexp(t *testing.T) {
	t.Parallel()
	pick := func(seed []uint8, alphabet []string) string {
		var b strings.Builder
		for _, n := range seed {
			b.WriteString(alphabet[int(n)%len(alphabet)])
		}
		return b.String()
	}
	agree := func(pattern, user []uint8) bool {
		p := pick(pattern[:min(len(pattern), 8)], []string{"a", "b", "ü", "*", "*", "?"})
		u := pick(user[:min(len(user), 10)], []string{"a", "a", "b", "ü"})
		want := globRegexp(p).MatchString(u)
		if Match(p, u) != want {
			t.Logf("Match(%q, %q) = %v", p, u, !want)
			return false
		}
		return true
	}
	if err := quick.Check(agree, &quick.Config{MaxCount: 20_000}); err != nil {
		t.Error(err)
	}
}

func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{{"*@example.com", "alice@example.com"}, {"a?b*", "a.bc"}, {"*ü?", "üü"}, {"**", ""}, {"[", "["}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, user string) {
		got := Match(pattern, user)
		if !utf8.ValidString(pattern) || !utf8.ValidString(user) || len(pattern) > 200 {
			return // the regular expression sees bytes that are not UTF-8 otherwise
		}
		if want := globRegexp(pattern).MatchString(user); got != want {
			t.Errorf("Match(%q, %q) = %v", pattern, user, got)
		}
	})
}

// BenchmarkMatchWorst is a pattern that makes backtracking matchers
// exponential.
func BenchmarkMatchWorst(b *testing.B) {
	pattern, user := strings.Repeat("*a", 30)+"b", strings.Repeat("a", 200)
	b.ReportAllocs()
	for b.Loop() {
		if Match(pattern, user) {
			b.Fatal("it matches")
		}
	}
}
