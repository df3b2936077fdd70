package userformat

import (
	"strings"
	"testing"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ format, user, want string }{
		{"%u", "Alice@Example.com", "Alice@Example.com"},
		{"%Lu", "Alice@Example.com", "alice@example.com"},
		{"%Uu", "Alice@Example.com", "ALICE@EXAMPLE.COM"},
		{"%n@%d", "a@b@c", "a@b@c"},
		{"%n|%d", "a@b@c", "a|b@c"},
		{"%n|%d", "alice", "alice|"},
		{"%Ln", "Alice@Example.com", "alice"},
		{"%Ld", "Alice@Example.com", "example.com"},
		{"%L{user}", "Alice@Example.com", "alice@example.com"},
		{"%{username}@%{domain}", "a@b", "a@b"},
		{"%{user | lower}", "Alice@B", "alice@b"},
		{"%{user|username|upper}x", "Alice@B", "ALICEx"},
		{"%{ user | domain }", "Alice@b@c", "b@c"},
		{"%{user | domain}", "alice", ""},
		{"%{user | reverse}", "abc", "cba"},
		{"100%%", "x", "100%"},
		{"%5u", "alice@b", "alice"},
		{"%-5u", "alice@b", "alice"}, // a sign is for the offset
		{"%2.3u", "alice@b", "ice"},
		{"%-2.1u", "alice@b", "@"},
		{"%0.-2u", "alice@b", "alice"},
		{"%0.-20u", "alice@b", "alice@b"},
		{"%-20.0u", "alice", "alice"},
		{"%9.0u", "alice", ""},
		{"%08u", "alice", "000alice"},
		{"%08u", "alice@example", "alice@example"},
		{"%Ru", "alice", "ecila"},
		{"%LRu", "ALice", "ecila"},
		{"%Xu", "255", "ff"},
		{"%Xu", "alice", "0"},
		{"%Eu", `a"b`, `a\"b`},
		{"%Dd", "a@b.c", "b,dc=c"},
		{"%Tu", "a \t", "a"},
		{"%Mu", "", "d41d8cd98f00b204e9800998ecf8427e"},
		{"%MRu", "", "e7248fce8990089e402b00f89dc8d14d"},
		{"u", "x", "u"},
	} {
		f, err := Parse(test.format)
		if err != nil {
			t.Errorf("Parse(%q): %v", test.format, err)
			continue
		}
		if got := string(f.Append([]byte("x "), test.user)); got != "x "+test.want {
			t.Errorf("%q of %q is %q; want %q", test.format, test.user, got, "x "+test.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"%":               "nothing behind %",
		"%L":              "nothing behind %L",
		"%h":              `unknown variable %h`,
		"%\x01":           `unknown variable %\x01`,
		"%{user":          "no } behind",
		"%{home}":         "unknown variable %{home}",
		"%{user | md4}":   `unknown filter "md4"`,
		"%99999999999u":   "too large",
		"%09999u":         "above 1024",
		"%LLLLLLLLLLLu":   "unknown variable %L",
		"%{env:PASSWORD}": "unknown variable",
	} {
		if _, err := Parse(format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v; want %q", format, err, want)
		}
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	for _, format := range []string{"%Lu", "%Ln@%Ld", "%{user | lower}", "%2.256Nu", "%Mu", "%-3.2Ru"} {
		f, err := Parse(format)
		if err != nil {
			t.Fatal(err)
		}
		var buf [256]byte
		user := strings.Repeat("Alice", 10) + "@example.com"
		if n := testing.AllocsPerRun(100, func() { f.Append(buf[:0], user) }); n != 0 {
			t.Errorf("%s: %v allocations", format, n)
		}
	}
}

// FuzzParse checks that what parses can be applied, and leaves alone what
// stands before it.
func FuzzParse(f *testing.F) {
	for _, format := range []string{"%Lu", "%n@%d", "%{user | lower}", "%-02.05Nu", "%%", "%EDXHTMRU{domain}", "%-9.-9d"} {
		f.Add(format, "Alice@Example.com")
	}
	f.Fuzz(func(t *testing.T, format, user string) {
		if len(format) > 100 || len(user) > 100 {
			return
		}
		parsed, err := Parse(format)
		if err != nil {
			return
		}
		got := string(parsed.Append([]byte("before"), user))
		if !strings.HasPrefix(got, "before") {
			t.Fatalf("%q of %q: %q", format, user, got)
		}
		if again := string(parsed.Append(nil, user)); again != got[len("before"):] {
			t.Fatalf("%q of %q: %q and %q", format, user, again, got)
		}
	})
}
