package doveadm

import "testing"

func TestVersion(t *testing.T) {
	tests := map[string]struct {
		line  string
		minor Minor
		ok    bool
	}{
		"1.0":              {"VERSION\tdoveadm-server\t1\t0", 0, true},
		"1.3":              {"VERSION\tdoveadm-server\t1\t3", 3, true},
		"of the future":    {"VERSION\tdoveadm-server\t1\t4000000000", 4_000_000_000, true},
		"other major":      {"VERSION\tdoveadm-server\t2\t0", 0, false},
		"other service":    {"VERSION\tdoveadm-client\t1\t0", 0, false},
		"field missing":    {"VERSION\tdoveadm-server\t1", 0, false},
		"field empty":      {"VERSION\tdoveadm-server\t1\t", 0, false},
		"field too many":   {"VERSION\tdoveadm-server\t1\t0\t", 0, false},
		"minor no number":  {"VERSION\tdoveadm-server\t1\t0x1", 0, false},
		"minor signed":     {"VERSION\tdoveadm-server\t1\t-1", 0, false},
		"minor very large": {"VERSION\tdoveadm-server\t1\t4294967296", 0, false},
		"empty":            {"", 0, false},
		"lower case":       {"version\tdoveadm-server\t1\t0", 0, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			minor, ok := parseVersion([]byte(tc.line), serviceWantedByClient)
			if minor != tc.minor || ok != tc.ok {
				t.Errorf("got %d, %v, want %d, %v", minor, ok, tc.minor, tc.ok)
			}
			if !ok {
				return
			}
			if got := string(appendVersion(nil, serviceWantedByClient, minor)); got != tc.line+"\n" {
				t.Errorf("written again: %q", got)
			}
		})
	}
}
