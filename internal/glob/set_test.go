package glob

import (
	"fmt"
	"strings"
	"testing"
)

// A set says what its patterns say one by one.
func FuzzSet(f *testing.F) {
	f.Add("*@example.com\nalice\nbob*", "alice@example.com")
	f.Add("a*\nab*\nabc*x\nb*\n*c\n*bc\n*abc", "abcx")
	f.Add("?\n*a*\n\n**", "")
	f.Add("ab*c\nab*d\na*cd\n*d", "abcd")
	f.Fuzz(func(t *testing.T, list, name string) {
		patterns := strings.Split(list, "\n")
		set := NewSet(patterns)
		if got, want := set.Match(name), matchAny(patterns, name); got != want {
			t.Errorf("%q, %q: %v, want %v", patterns, name, got, want)
		}
	})
}

// Every anchor is found among many that begin alike.
func TestSetOfMany(t *testing.T) {
	var patterns []string
	for i := range 500 {
		patterns = append(patterns, fmt.Sprintf("%d*@%d.example", i, i), fmt.Sprintf("*@%d.example", 1000+i), fmt.Sprintf("p%d*", i), fmt.Sprintf("user%d", i))
	}
	set := NewSet(patterns)
	for i := range 500 {
		for name, want := range map[string]bool{
			fmt.Sprintf("%dx@%d.example", i, i):    true,
			fmt.Sprintf("%dx@%d.example", i, i+1):  false,
			fmt.Sprintf("any@%d.example", 1000+i):  true,
			fmt.Sprintf("any@%d.example", 1500+i):  false,
			fmt.Sprintf("user%d", i):               true,
			fmt.Sprintf("user%d", i+500):           false,
			fmt.Sprintf("p%dx", i):                 true,
			fmt.Sprintf("any@x%d.example", 1000+i): false,
		} {
			if got := set.Match(name); got != want {
				t.Fatalf("%s: %v, want %v", name, got, want)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { set.Match("any@1499.example"); set.Match("nobody") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHasWildcard(t *testing.T) {
	for pattern, want := range map[string]bool{"": false, "a.b[c]": false, "a*": true, "?": true} {
		if got := HasWildcard(pattern); got != want {
			t.Errorf("%q: %v", pattern, got)
		}
	}
}

// One name against 10,000 patterns, none of which matches.
func BenchmarkSet(b *testing.B) {
	var patterns []string
	for i := range 10_000 {
		patterns = append(patterns, fmt.Sprintf("user%d*@domain%d.example", i, i%100))
	}
	set := NewSet(patterns)
	b.ReportAllocs()
	for b.Loop() {
		if set.Match("user77x@domain78.example") {
			b.Fatal("matches")
		}
	}
}
