package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestTimerSlack: a child has it, and the next one does not; and it is that of
// the unit.
func TestTimerSlack(t *testing.T) {
	slack := func() string {
		t.Helper()
		out, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.TrimSpace(out))
	}
	before := slack()
	within := ""
	if err := withTimerSlack(3*time.Millisecond, func() error { within = slack(); return nil }); err != nil {
		t.Fatal(err)
	}
	if after := slack(); within != "3000000" || after != before {
		t.Errorf("%s within, %s before and %s after; want 3000000 within and the same before and after", within, before, after)
	}
	unit, err := os.ReadFile("../systemd/doveadm-proxy.service")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nTimerSlackNSec=" + unitTimerSlack.String() + "\n"; !bytes.Contains(unit, []byte(want)) {
		t.Errorf("the unit has no line %q", want)
	}
}
