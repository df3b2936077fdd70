package acceptance

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// memoryOf returns what a process has of memory, in KiB: all of it, its part of
// what it shares with others, and what nobody else has.
func memoryOf(t *testing.T, pid int) (rss, pss, private int) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		var n int
		fmt.Sscan(rest, &n)
		switch name {
		case "Rss":
			rss = n
		case "Pss":
			pss = n
		case "Private_Clean", "Private_Dirty":
			private += n
		}
	}
	return rss, pss, private
}

// TestProcessSize measures what docs/sizing.md says of the processes that
// connections are on a backend. The bounds are there to notice another order of
// magnitude.
func TestProcessSize(t *testing.T) {
	t.Parallel()
	const connections = 8
	for _, v := range dovecot.Versions() {
		s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
		if err := s.Seed(1000); err != nil {
			t.Fatal(err)
		}
		measure := func(what string) {
			t.Helper()
			pids := s.Processes("doveadm-server")
			if len(pids) != connections {
				t.Fatalf("%d processes for %d connections", len(pids), connections)
			}
			var rss, pss, private int
			for _, pid := range pids {
				r, p, own := memoryOf(t, pid)
				rss, pss, private = rss+r, pss+p, private+own
			}
			t.Logf("Dovecot %s, %s: each of %d processes has RSS %d KiB, PSS %d KiB, private %d KiB", v, what, connections, rss/connections, pss/connections, private/connections)
			if mean := pss / connections; mean < 200 || mean > 40_000 {
				t.Errorf("PSS of %d KiB", mean)
			}
		}
		var all []*doveadm.ClientConn
		for range connections {
			c, err := doveadm.Dial(t.Context(), s.Addr, doveadm.ClientOptions{Password: s.Password})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all = append(all, c)
		}
		measure("logged in")
		for _, c := range all {
			if _, err := runCommand(t.Context(), c, "ann", "mailbox list"); err != nil {
				t.Fatal(err)
			}
		}
		measure("after mailbox list")
		for _, c := range all {
			if _, err := runCommand(t.Context(), c, "ann", "fetch", "hdr", "all"); err != nil {
				t.Fatal(err)
			}
		}
		measure("after fetch of 1000 mails")
	}
}
