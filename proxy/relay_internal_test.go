package proxy

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWriteEnd: timeouts.write bounds each write, inputTime all those of an
// input together.
func TestWriteEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := &relay{from: new(backend)}
		if got := r.writeEnd(start); !got.IsZero() {
			t.Errorf("without any limit: %v", got)
		}
		r.from.timeouts.Write = time.Minute
		if got := r.writeEnd(start).Sub(start); got != time.Minute {
			t.Errorf("timeouts.write: %v", got)
		}
		r.inputEnd = start.Add(inputTime)
		for after, want := range map[time.Duration]time.Duration{0: time.Minute, inputTime - 10*time.Second: inputTime, inputTime + time.Second: inputTime} {
			if got := r.writeEnd(start.Add(after)).Sub(start); got != want {
				t.Errorf("input, %v later: %v, want %v", after, got, want)
			}
		}
		time.Sleep(time.Minute)
		if got := r.stuckReason("b1"); !strings.Contains(got, "timeouts.write") {
			t.Errorf("stuck: %q", got)
		}
		time.Sleep(inputTime)
		if got := r.stuckReason("b1"); !strings.Contains(got, "within 4m0s") {
			t.Errorf("too slow: %q", got)
		}
		r.from.timeouts.Write = 0
		if got := r.writeEnd(start).Sub(start); got != inputTime {
			t.Errorf("input without timeouts.write: %v", got)
		}
	})
	// Dovecot's limit, and what may pass before its clock starts.
	if inputTime > 5*time.Minute-30*time.Second {
		t.Errorf("%v for the input", inputTime)
	}
}
