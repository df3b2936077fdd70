package config

import (
	"strings"
	"testing"
)

// A file that is no configuration at all is refused with a few problems, soon,
// and without exhausting the parser's stack.
func TestParseGarbage(t *testing.T) {
	for name, src := range map[string]string{
		"lines":     strings.Repeat("a\n", 2000),
		"quotes":    strings.Repeat("\"\n", 2000),
		"blocks":    strings.Repeat("a {\n", 2000),
		"lists":     strings.Repeat("a = [\n", 2000),
		"list":      "a = [" + strings.Repeat("1,\n", 2000),
		"braces":    strings.Repeat("{", 8000),
		"brackets":  "a = " + strings.Repeat("[", 8000),
		"operators": "a = " + strings.Repeat("-", 8000) + "1",
		"choices":   "a = " + strings.Repeat("1?1:", 2000) + "1",
		"templates": "a = " + strings.Repeat("\"${", 2000),
		"binary":    strings.Repeat("\x7fELF\x02\x01\x00\xff\xfe", 400),
		"heredoc":   "a = <<EOT\n" + strings.Repeat("x\n", 2000),
		"comment":   "/*" + strings.Repeat("x\n", 2000),
		"NUL":       strings.Repeat("\x00", 8000),
	} {
		t.Run(name, func(t *testing.T) {
			cfg, diags := Parse("test.hcl", []byte(src))
			if cfg != nil || !diags.HasErrors() || len(diags) > maxRepairs+4 {
				t.Errorf("%d problems", len(diags))
			}
			var sb strings.Builder
			if err := WriteDiagnostics(&sb, diags, false); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What is nested deeper than the parser's stack is not given to it, and what
// stands before is still checked.
func TestParseTooDeep(t *testing.T) {
	src := "log {\n  level = \"x\"\n}\n" + strings.Repeat("a {\n", 1000)
	_, diags := Parse("test.hcl", []byte(src))
	problems := Problems(diags)
	if len(problems) < 2 || problems[0].Summary != "Wrong value of level" {
		t.Fatal(diags)
	}
	last := problems[len(problems)-1]
	if last.Summary != notRead || last.Line != 3+maxDepth+1 {
		t.Error(last)
	}
}
