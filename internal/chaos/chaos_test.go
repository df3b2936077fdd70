package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestShort is a short run with a fixed seed and the race detector in the
// proxy. "make chaos" is the long one.
func TestShort(t *testing.T) {
	dir := t.TempDir()
	build := func(name, pkg string, flags ...string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		args := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
		if out, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		return path
	}
	proxy, chaos := build("proxy", "../../cmd/doveadm-proxy", "-race"), build("chaos", ".")
	// The race detector takes several times the memory.
	out, err := exec.CommandContext(t.Context(), chaos, "-proxy", proxy, "-seed", "4", "-time", "15s", "-memory", "1024").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the ledger balances: zero violations") {
		t.Fatalf("%v\n%s", err, out)
	}
	// A run in which nothing happens proves nothing.
	for _, least := range []struct {
		pattern string
		number  int
	}{
		{`(?m)^all +(\d+)`, 300},                // commands
		{`answers:.* -TEMPFAIL (\d+)`, 5},       // failures that were told
		{`answers:.* succeeded (\d+)`, 200},     //
		{`(?m)^answers:.*client left (\d+)`, 1}, //
	} {
		found := regexp.MustCompile(least.pattern).FindSubmatch(out)
		if found == nil {
			t.Fatalf("nothing like %s in the report:\n%s", least.pattern, out)
		}
		if n, _ := strconv.Atoi(string(found[1])); n < least.number {
			t.Errorf("%s: %d is less than %d:\n%s", least.pattern, n, least.number, out)
		}
	}
}

func TestParseDump(t *testing.T) {
	dump := `SIGQUIT: quit
PC=0x1 m=0 sigcode=0

goroutine 0 gp=0x1 m=0 mp=0x1 [idle]:
runtime.futex(0x1)

goroutine 1 gp=0x2 m=nil [chan receive]:
main.(*daemon).handle(0x1)
	/src/cmd/serve.go:90

goroutine 7 gp=0x3 m=nil [IO wait]:
net.(*conn).Read(0x1)
github.com/doveadm-proxy/doveadm-proxy/proxy.(*session).serve(0x1)
	/src/proxy/session.go:90

goroutine 9 gp=0x4 m=nil [select]:
github.com/doveadm-proxy/doveadm-proxy/pool.(*Pool).maintain(0x1)

rax    0xca
`
	left, all := parseDump([]byte(dump))
	if len(left) != 1 || left[0] != "proxy.(*session)" || all != 4 {
		t.Errorf("%q of %d", left, all)
	}
}
