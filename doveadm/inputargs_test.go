package doveadm

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestInputArgs(t *testing.T) {
	for _, tt := range []struct {
		command string
		series  Series
		args    []string
		want    []string // nil: an error
	}{
		{"save", Series23, nil, []string{"--"}},
		{"save", Series23, []string{"-m", "Sent"}, []string{"-m", "Sent", "--"}},
		{"save", Series23, []string{"-mSent", "--"}, []string{"-m", "Sent", "--"}},
		{"save", Series23, []string{"--mailbox=a b"}, []string{"-m", "a b", "--"}},
		{"save", Series23, []string{"--mailbox", "-r"}, []string{"-m", "-r", "--"}},
		{"save", Series24, []string{"-r", "2024-01-01", "-U", "7", "-g", "x"}, []string{"-r", "2024-01-01", "-U", "7", "-g", "x", "--"}},
		{"save", Series23, []string{"-r", "2024-01-01"}, nil},
		{"save", Series23, []string{"-U", "7"}, nil},
		{"save", Series24, []string{"-U", "x"}, nil},
		{"save", Series24, []string{"-U", "-1"}, nil},
		{"save", Series24, []string{"-U", "99999999999"}, nil},
		{"save", Series24, []string{"-U"}, nil},
		{"save", Series23, []string{"-Z"}, nil},
		{"save", Series23, []string{"-m", "a", "-Z"}, nil},
		{"save", Series23, []string{"--mail=a"}, nil},
		{"save", Series23, []string{"/etc/passwd"}, nil},
		{"save", Series23, []string{"--", "/etc/passwd"}, nil},
		{"save", Series23, []string{"--file=/etc/passwd"}, nil},
		{"save", Series23, []string{"-"}, nil},
		{"save", Series23, []string{"-m"}, nil},
		{"save", Series24, []string{"-A"}, nil},
		{"save", Series24, []string{"-u", "bob"}, nil},
		{"sieve put", Series23, []string{"vacation"}, []string{"--", "vacation"}},
		{"sieve put", Series23, []string{"-a", "--", "-x"}, []string{"-a", "--", "-x"}},
		{"sieve put", Series24, []string{"vacation", "-a"}, []string{"-a", "--", "vacation"}},
		{"sieve put", Series23, []string{"--activate", "vacation"}, []string{"-a", "--", "vacation"}},
		{"sieve put", Series23, []string{"--activate=1", "vacation"}, nil},
		{"sieve put", Series23, []string{"-a"}, nil},
		{"sieve put", Series23, []string{"a", "b"}, nil},
		{"sieve put", Series23, []string{"-ab", "x"}, nil},
	} {
		info, ok := LookupCommand(tt.command)
		if !ok || !info.Input {
			t.Fatalf("%s reads no input", tt.command)
		}
		got, err := info.InputArgs(tt.series, tt.args)
		if (err == nil) != (tt.want != nil) {
			t.Errorf("%s %q on %v: %v", tt.command, tt.args, tt.series, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s %q (-want +got):\n%s", tt.command, tt.args, diff)
		}
	}
}
