package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Problem is a diagnostic as a program reads it.
type Problem struct {
	File     string `json:"file,omitempty"` // empty: not about a place in a file
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"` // in characters, from 1
	Severity string `json:"severity"`         // error or warning
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
}

// Problems returns the diagnostics of [Load] or [Parse] for programs and logs.
func Problems(diags hcl.Diagnostics) []Problem {
	problems := make([]Problem, 0, len(diags))
	for _, d := range diags {
		p := Problem{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			p.Severity = "warning"
		}
		if d.Subject != nil {
			p.File, p.Line, p.Column = d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column
		}
		problems = append(problems, p)
	}
	return problems
}

// WriteDiagnostics writes the diagnostics of [Load] or [Parse] for people, each
// with the lines that it is about. What may be a secret on these lines is
// shown as ***. With color it uses the escape sequences of terminals.
func WriteDiagnostics(w io.Writer, diags hcl.Diagnostics, color bool) error {
	var b bytes.Buffer
	for _, d := range diags {
		red, yellow, bold, reset := "", "", "", ""
		if color {
			red, yellow, bold, reset = "\x1b[31m", "\x1b[33m", "\x1b[1;4m", "\x1b[0m"
		}
		if d.Severity == hcl.DiagWarning {
			fmt.Fprintf(&b, "%sWarning%s: %s\n\n", yellow, reset, d.Summary)
		} else {
			fmt.Fprintf(&b, "%sError%s: %s\n\n", red, reset, d.Summary)
		}
		if s, ok := d.Extra.(*shown); ok {
			fmt.Fprintf(&b, "  on %s line %d", d.Subject.Filename, d.Subject.Start.Line)
			if in := s.context(*d.Subject); in != "" {
				fmt.Fprintf(&b, ", in %s", in)
			}
			b.WriteString(":\n")
			before, subject, after := s.lines(*d.Subject)
			text := before + strings.ReplaceAll(bold+subject+reset, "\n", reset+"\n"+bold) + after
			for i, line := range strings.Split(text, "\n") {
				fmt.Fprintf(&b, "%4d: %s\n", d.Subject.Start.Line+i, strings.TrimRight(line, "\r"))
			}
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s\n\n", d.Detail)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// finish puts diagnostics in the order of the sources and gives each what
// WriteDiagnostics needs to show its lines. All of them have a subject.
func finish(diags hcl.Diagnostics, sources []*source) hcl.Diagnostics {
	order := map[string]int{}
	for i, s := range sources {
		order[s.name] = i
		for _, d := range diags {
			if d.Subject.Filename == s.name {
				d.Extra = s.shown
			}
		}
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		return cmp.Or(
			cmp.Compare(order[a.Subject.Filename], order[b.Subject.Filename]),
			cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte),
		)
	})
	return diags
}

// problem is a diagnostic in the making. What it leaves out is for the caller
// to fill in.
type problem struct {
	warning bool
	form    bool // the form of a value is wrong: say which one is right
	summary string
	detail  string
	at      *hcl.Range
}

func (l *loader) report(p problem) {
	if l.isBroken(*p.at) {
		return // the syntax error says it
	}
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: p.summary, Detail: p.detail, Subject: p.at}
	if p.warning {
		d.Severity = hcl.DiagWarning
	}
	l.diags = append(l.diags, d)
}

func (l *loader) errorf(at hcl.Range, summary, detail string, args ...any) {
	l.report(problem{summary: summary, detail: fmt.Sprintf(detail, args...), at: &at})
}

func (l *loader) warnf(at hcl.Range, summary, detail string, args ...any) {
	l.report(problem{warning: true, summary: summary, detail: fmt.Sprintf(detail, args...), at: &at})
}

// missing reports what is not there, and what refers to it. After a syntax
// error outside all blocks it says nothing: the thing may be there, unread.
func (l *loader) missing(at hcl.Range, summary, detail string, args ...any) {
	if !l.unsure {
		l.errorf(at, summary, detail, args...)
	}
}

// missingIn reports what is not in a block, unless there is a syntax error in
// the block. at is the header of the block and in all of it.
func (l *loader) missingIn(in, at hcl.Range, summary, detail string, args ...any) {
	for _, s := range l.sources {
		if s.name == in.Filename && (s.isLost(in.End.Line) ||
			slices.ContainsFunc(s.broken, func(b line) bool { return in.Start.Line <= b.number && b.number <= in.End.Line })) {
			return
		}
	}
	l.errorf(at, summary, detail, args...)
}

func (l *loader) isBroken(at hcl.Range) bool {
	for _, s := range l.sources {
		if s.name == at.Filename && s.isBroken(at.Start.Line) {
			return true
		}
	}
	return false
}

// reason is the error of a file as a sentence.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Sprintf("%s: %v.", pe.Path, pe.Err)
	}
	return err.Error() + "."
}

// list writes names for a sentence: a, b and c.
func list(names []string) string {
	switch len(names) {
	case 0:
		return ""
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
