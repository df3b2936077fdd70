package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// script is what perf script writes.
const script = `	ffffffff8a0 tcp_sendmsg ([kernel.kallsyms])
	          4b21e5 internal/runtime/syscall/linux.Syscall6 (/usr/bin/doveadm-proxy)
	          6a0000 net.(*conn).Write (/usr/bin/doveadm-proxy)
	          7c1200 github.com/doveadm-proxy/doveadm-proxy/proxy.(*session).write (/usr/bin/doveadm-proxy)

	          44aa00 runtime.usleep (/usr/bin/doveadm-proxy)
	          44bb00 runtime.sysmon (/usr/bin/doveadm-proxy)

	          700000 github.com/doveadm-proxy/doveadm-proxy/pool.(*Pool).serve+0x20 (/usr/bin/doveadm-proxy)
	          7c1200 github.com/doveadm-proxy/doveadm-proxy/proxy.(*session).write<T> (/usr/bin/doveadm-proxy)
`

func TestProfile(t *testing.T) {
	stacks := readStacks([]byte(script))
	want := [][]frame{
		{{"proxy.(*session).write", false}, {"net.(*conn).Write", false}, {"internal/runtime/syscall/linux.Syscall6", false}, {"tcp_sendmsg", true}},
		{{"runtime.sysmon", false}, {"runtime.usleep", false}},
		{{"proxy.(*session).write<T>", false}, {"pool.(*Pool).serve", false}},
	}
	if diff := cmp.Diff(want, stacks, cmp.AllowUnexported(frame{})); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	p := &profile{work: &work{name: "kept"}, stacks: stacks, each: 42 * time.Microsecond}
	table := profileTable([]*profile{p})
	for _, line := range []string{
		"| writes to sockets | 33.3 |", "| the Go runtime's watch over its threads | 33.3 |", "| the pool: queue, breaker, numbers | 33.3 |",
		"| the rest | 0.0 |", "| of all that in the kernel | 33.3 |", "| µs a command | 42 |",
	} {
		if !strings.Contains(table, line+"\n") {
			t.Errorf("no line %s in\n%s", line, table)
		}
	}
	graph := string(p.flameGraph())
	for _, text := range []string{"<title>runtime.usleep: 33.33 %</title>", "proxy.(*session).write&lt;T&gt;"} {
		if !strings.Contains(graph, text) {
			t.Errorf("no %s in\n%s", text, graph)
		}
	}
	for d := xml.NewDecoder(strings.NewReader(graph)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
