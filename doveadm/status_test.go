package doveadm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStatus(t *testing.T) {
	tests := map[string]Status{
		"+":                                {OK: true},
		"+ it is done":                     {OK: true, Text: " it is done"},
		"-":                                {},
		"-NOUSER":                          {Code: CodeNoUser},
		"-TEMPFAIL":                        Failure(CodeTempFail),
		"-UNKNOWN":                         {Code: CodeUnknown},
		"-73":                              {Code: "73"},
		"-REFERRAL doveadm@10.0.0.1:24245": {Code: CodeReferral, Text: "doveadm@10.0.0.1:24245"},
		"-A b c":                           {Code: "A", Text: "b c"},
		"- text":                           {Text: "text"},
		"-A\x00\rB":                        {Code: "A\x00\rB"},
	}
	for line, want := range tests {
		t.Run(line, func(t *testing.T) {
			got, err := ParseStatus([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.String() != line {
				t.Errorf("written again: %q", got.String())
			}
			if again := string(AppendStatus([]byte("x"), got)); again != "x"+line+"\n" {
				t.Errorf("appended again: %q", again)
			}
		})
	}
}

func TestNoStatus(t *testing.T) {
	for _, line := range []string{"", " +", "OK", "\x00", "\n+"} {
		_, err := ParseStatus([]byte(line))
		var perr *ProtocolError
		if !errors.As(err, &perr) {
			t.Errorf("%q: got %v, want a ProtocolError", line, err)
		}
	}
}

func TestStatusIsOneLine(t *testing.T) {
	for _, s := range []Status{{Code: "A\n+"}, {Code: "A", Text: "b\n+\n"}, {OK: true, Text: "\n-"}} {
		got := AppendStatus([]byte("\n"), s)
		if bytes.Count(got[1:], []byte{'\n'}) != 1 {
			t.Errorf("%+v became %q", s, got)
		}
		if got[0] != '\n' {
			t.Errorf("%+v changed what was there: %q", s, got)
		}
	}
}

func TestStatusError(t *testing.T) {
	tests := map[string]Status{
		"server answered -":        {},
		"server answered -NOUSER":  {Code: CodeNoUser},
		"server answered -A where": {Code: "A", Text: "where"},
	}
	for want, status := range tests {
		if got := (&StatusError{Status: status}).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
