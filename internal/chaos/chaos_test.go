package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestChaos is this program for a short time. "make chaos" is the long one.
func TestChaos(t *testing.T) {
	dir := t.TempDir()
	build := func(name, pkg string, flags ...string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		args := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
		cmd := exec.Command("go", append(args, pkg)...)
		if !slices.Contains(flags, "-race") {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build has it
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		return path
	}
	proxy, chaos := build("proxy", "../../cmd/doveadm-proxy", "-race"), build("chaos", ".", "-trimpath")
	run := func(t *testing.T, verdict string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), chaos, append(args, "-proxy", proxy)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), verdict) {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	t.Run("faults", func(t *testing.T) {
		// The race detector takes several times the memory.
		notEmpty(t, run(t, "the ledger balances: zero violations", "-seed", "4", "-time", "15s", "-memory", "1024"))
	})
	t.Run("isolation", func(t *testing.T) {
		// Strict figures are for a machine that does nothing else.
		run(t, "nobody else notices", "-isolate", "-time", "7s", "-ratio", "10", "-fast", "100ms")
	})
}

// notEmpty fails the test if a run is so empty that it proves nothing.
func notEmpty(t *testing.T, report string) {
	for _, least := range []struct {
		pattern string
		number  int
	}{
		{`(?m)^all +(\d+)`, 300},                // commands
		{`answers:.* -TEMPFAIL (\d+)`, 5},       // failures that were told
		{`answers:.* succeeded (\d+)`, 200},     //
		{`(?m)^answers:.*client left (\d+)`, 1}, //
	} {
		found := regexp.MustCompile(least.pattern).FindStringSubmatch(report)
		if found == nil {
			t.Fatalf("nothing like %s in the report:\n%s", least.pattern, report)
		}
		if n, _ := strconv.Atoi(found[1]); n < least.number {
			t.Errorf("%s: %d is less than %d:\n%s", least.pattern, n, least.number, report)
		}
	}
}

func TestRefusals(t *testing.T) {
	got, err := refusals(`2026-01-02T03:04:05.000Z [INFO]  doveadm-proxy: ready
2026-01-02T03:04:06.500Z [ERROR] doveadm-proxy.pool: circuit breaker opened: commands for this backend fail at once: backend=mail1
2026-01-02T03:04:06.501Z [ERROR] doveadm-proxy: command: user=a outcome=unavailable wait_ms=997.000 duration_ms=997.100 bytes=0 reason="backend mail1: circuit breaker is open"
2026-01-02T03:04:06.900Z [ERROR] doveadm-proxy: command: user=a outcome=unavailable wait_ms=0.010 duration_ms=0.090 bytes=0 reason="backend mail1: circuit breaker is open"
2026-01-02T03:04:07.900Z [ERROR] doveadm-proxy: command: user=a outcome=lost wait_ms=0.010 duration_ms=900.000 bytes=0 reason="backend mail1 was lost"
2026-01-02T03:04:08.000Z [ERROR] doveadm-proxy: command: user=a outcome=unavailable wait_ms=0.010 duration_ms=150.000 bytes=0 reason="backend mail1: circuit breaker is open"
`)
	if err != nil || !slices.Equal(got, []time.Duration{90 * time.Microsecond, 150 * time.Millisecond}) {
		t.Errorf("%v, %v", got, err)
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

func TestOpenAt(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
   2: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0
   3: 0100007F:1F90 0100007F:C002 08 00000000:00000000 00:00000000 00000000     0        0 4 1 0
   4: 0100007F:1F90 0100007F:C003 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
`
	got := openAt(table, map[string]string{"1F90": "mail1"})
	if len(got) != 1 || got[0] != "mail1 from 0100007F:C001" {
		t.Errorf("%q", got)
	}
}
