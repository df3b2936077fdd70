package proxy_test

import (
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// TestCommandDoesNotAllocate: a command on a kept connection costs the garbage
// collector nothing, with its line in the log and its metrics, from the client's
// bytes to the backend's and back.
func TestCommandDoesNotAllocate(t *testing.T) {
	for name, line := range map[string]string{
		"1.3": "x\tproxy-ttl=5\talice\tquota get\n",
		"1.2": "\talice\tquota get\n",
	} {
		s, n := benchmarked(t, quota)
		c := s.login(t, client13)
		line, reply := []byte(line), make([]byte, n)
		run := func() { c.command(t, line, reply) }
		for range 100 { // until there is a connection, and buffers have their size
			run()
		}
		// What happens once a second is not the command's: the result is rounded
		// down.
		if n := testing.AllocsPerRun(2000, run); n != 0 && !proxy.UnderRace {
			t.Errorf("%s: %v allocations a command", name, n)
		}
	}
}
