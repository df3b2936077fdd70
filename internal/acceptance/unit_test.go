package acceptance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnits has systemd itself judge the units that are shipped.
func TestUnits(t *testing.T) {
	t.Parallel()
	binary, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"doveadm-proxy.service", "doveadm-proxy.socket"} {
		text, err := os.ReadFile("../../systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/bin/doveadm-proxy", binary)), 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, path)
	}
	analyze := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze %s: %v (not installed? make deps)\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for line := range strings.Lines(analyze(append([]string{"verify", "--man=no"}, units...)...)) {
		// What is wrong elsewhere on the machine is not ours. systemd before
		// 253 does not know notify-reload, as the unit says.
		if strings.Contains(line, "doveadm-proxy") && !strings.Contains(line, "ignoring: notify-reload") {
			t.Errorf("verify: %s", line)
		}
	}
	// In tenths: 2.0 is the limit.
	out := analyze("security", "--offline=true", "--no-pager", "--threshold=20", units[0])
	if !strings.Contains(out, "Overall exposure level") {
		t.Errorf("no verdict: %s", out)
	} else {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
	}
}
