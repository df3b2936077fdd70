package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// The median ratio is not the ratio of the medians.
func TestReport(t *testing.T) {
	ms, us := time.Millisecond, time.Microsecond
	r := &report{
		memory:     memory{highest: 75 << 20, now: 12 << 20},
		conditions: [][2]string{{"machine", "a machine"}, {"clients", "one program"}},
		pairs: []*pair{{keep: true, clients: 8, samples: [2][]sample{
			direct: {
				{rate: 100, p50: ms, p99: 9 * ms, processes: 3, dovecot: 30 * us, commands: 10},
				{rate: 200, p50: 3 * ms, p99: 7 * ms, processes: 4, dovecot: 10 * us, commands: 20},
				{rate: 300, p50: 2 * ms, p99: 8 * ms, processes: 2, dovecot: 20 * us, commands: 30},
			},
			proxied: {
				{rate: 300, p50: ms / 4, p99: ms, processes: 8, dovecot: 5 * us, proxy: 3 * us, commands: 30},
				{rate: 50, p50: ms / 2, p99: ms, processes: 7, dovecot: 5 * us, proxy: us, commands: 5},
				{rate: 600, p50: ms / 8, p99: ms, processes: 6, dovecot: 5 * us, proxy: 2 * us, commands: 60},
			},
		}}},
	}
	const full = `| condition | value |
|---|---|
| machine | a machine |
| clients | one program |

| what | clients | commands/s | ratio to direct | p50 ms | p99 ms | processes | Dovecot µs | proxy µs |
|---|---|---|---|---|---|---|---|---|
| ` + "`quota get`" + ` on a connection that is kept, directly at the user's backend | 8 | 200 (100–300) | – | 2.00 | 8.00 | 4 | 20 | – |
| ` + "`quota get`" + ` on a connection that is kept, through the proxy | 8 | 300 (50–600) | 2.00 (0.25–3.00) | 0.25 | 1.00 | 8 | 5 | 2 |

155 commands were measured, and none failed. Resident memory of the proxy: 75 MiB at its highest, 12 MiB at the end.
`
	if diff := cmp.Diff(full, r.full()); diff != "" {
		t.Errorf("full (-want +got):\n%s", diff)
	}
	const summary = `| commands a second | clients | directly | through the proxy | ratio |
|---|---|---|---|---|
| ` + "`quota get`" + ` on a connection that is kept | 8 | 200 | 300 | 2.00 |

Medians of all rounds. Machine: a machine.
`
	if diff := cmp.Diff(summary, r.summary()); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
}

// The documents that make bench is to update have the place for it.
func TestDocuments(t *testing.T) {
	for _, path := range []string{"../../docs/performance.md", "../../README.md"} {
		if _, err := markdown.Filled(path, (&report{}).blocks()); err != nil {
			t.Error(err)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values numbers
		want   string
	}{
		{numbers{7}, "7 (7–7)"},
		{numbers{9, 1}, "5 (1–9)"},
		{numbers{9, 1, 2}, "2 (1–9)"},
		{numbers{4, 9, 1, 2}, "3 (1–9)"},
	} {
		if got := tt.values.spread(0); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.values, got, tt.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for n := range 100 {
		hundred = append(hundred, time.Duration(n+1))
	}
	for _, tt := range []struct {
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred[:1], 50, 1},
		{hundred[:1], 99, 1},
		{hundred[:3], 50, 2},
		{hundred[:10], 99, 10},
	} {
		if got := percentile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("percentile %d of %d values: %d, want %d", tt.p, len(tt.sorted), got, tt.want)
		}
	}
}
