package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// needed are comparisons that need an explanation, one or more for each.
var needed = map[explanationID][]string{}

// every is how many comparisons there are for one in the sample, besides those.
const every = 41

// TestSample runs a part of what "make compat" runs, with the race detector in
// the proxy: some cases of each client on each backend, and all explanations.
func TestSample(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "doveadm-proxy")
	out, err := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", binary, "../../cmd/doveadm-proxy").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var named []string
	for _, names := range needed {
		named = append(named, names...)
	}
	var jobs []job
	for i, j := range allJobs() {
		if at := slices.Index(named, j.String()); at >= 0 {
			named = slices.Delete(named, at, at+1)
		} else if i%every != 0 || j.cmd.reachesEverybody() {
			continue
		}
		jobs = append(jobs, j)
	}
	if len(named) > 0 {
		t.Fatalf("there are no such comparisons: %q", named)
	}

	var progress bytes.Buffer
	m, err := compare(t.Context(), binary, jobs, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("%s\n%s\n%s", &progress, m.table(), m.summary())
	if n := m.total(unexplained); n > 0 {
		t.Errorf("%d unexplained differences:\n%s", n, m.report())
	}
	if stale := m.stale(explanations()); len(stale) > 0 {
		t.Errorf("these explanations were not needed: %q", stale)
	}
	for _, c := range clients() {
		for _, version := range dovecot.Versions() {
			if m.cases(cell{c, version}) < 10 {
				t.Errorf("%s on Dovecot %s: only %d cases", c, version, m.cases(cell{c, version}))
			}
		}
	}
}
