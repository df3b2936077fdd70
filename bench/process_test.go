package main

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const line = "26034 (a (b) c) S 26018 26018 17592 0 -1 4194304 99 98 97 96 11 22 33 44 20 0 1 0 340765 3133440 356\n"
	got, err := parseStat(line)
	want := stat{name: "a (b) c", state: "S", own: 330 * time.Millisecond, ended: 770 * time.Millisecond}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "1", "1 (x) S 1 2 3", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 11 x 33 44 20", "1 )x( S"} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("%q: %+v, want an error", bad, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus("Name:\tdoveadm-proxy\nVmPeak:\t 1234567 kB\nVmHWM:\t   75000 kB\nVmRSS:\t   12000 kB\n")
	if want := (memory{highest: 75000 << 10, now: 12000 << 10}); err != nil || got != want {
		t.Errorf("got %+v and error %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "VmHWM:\t75000 kB\n", "VmHWM:\tx kB\nVmRSS:\t12000 kB\n"} {
		if got, err := parseStatus(bad); err == nil {
			t.Errorf("%q: %+v, want an error", bad, got)
		}
	}
}

// What the kernel writes is what is parsed.
func TestReadSelf(t *testing.T) {
	s, err := readStat(os.Getpid())
	if err != nil || s.name == "" || s.state == "" {
		t.Errorf("state %+v, error %v", s, err)
	}
	m, err := readMemory(os.Getpid())
	if err != nil || m.highest < m.now {
		t.Errorf("memory %+v, error %v", m, err)
	}
}
