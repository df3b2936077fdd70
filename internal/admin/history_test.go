package admin_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// TestHistory: a command that found no backend is among those that failed, and
// among the slowest.
func TestHistory(t *testing.T) {
	s := start(t, socket)
	nc, err := net.Dial("tcp", s.proxy.Addr("main").String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(nc, "VERSION\tdoveadm-server\t1\t0\nPLAIN\tAGMAeA==\n\talice\tquota get\n")
	in := bufio.NewReader(nc)
	for line := ""; !strings.HasPrefix(line, "-TEMPFAIL"); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/v1/commands/failed", "/v1/commands/slowest"} {
		var commands []any
		for end := time.Now().Add(time.Minute); len(commands) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			_, answer := s.ask(t, "GET", path, "")
			commands = answer["commands"].([]any)
		}
		if len(commands) != 1 {
			t.Fatalf("%s: %v", path, commands)
		}
		c := commands[0].(map[string]any)
		if c["client"] != "c" || c["user"] != "alice" || c["command"] != "quota get" || c["outcome"] != "unavailable" || c["status"] != "-TEMPFAIL" ||
			!strings.Contains(c["reason"].(string), "connection refused") || c["duration_ms"].(float64) <= 0 || c["bytes"] != 0.0 {
			t.Errorf("%s: %v", path, c)
		}
	}
	code, answer := s.ask(t, "GET", "/v1/history?step=60&backend=mail1&backend=nobody", "")
	series := answer["backends"].([]any)
	if code != 200 || answer["step"] != 60.0 || len(series) != 1 {
		t.Fatalf("%d, %v", code, answer)
	}
	one := series[0].(map[string]any)
	for _, kind := range []string{"rate", "failed", "p50_ms", "p95_ms", "p99_ms", "in_use", "waiting"} {
		if _, ok := one[kind].([]any); !ok {
			t.Errorf("no %s in %v", kind, one)
		}
	}
	if _, answer := s.ask(t, "GET", "/v1/history", ""); len(answer["backends"].([]any)) != 2 {
		t.Errorf("%v", answer)
	}
	for _, bad := range []string{"x", "0", "-10", "3601"} {
		if code, _ := s.ask(t, "GET", "/v1/history?step="+bad, ""); code != 400 {
			t.Errorf("step=%s: %d", bad, code)
		}
	}
}
