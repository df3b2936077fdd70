package proxy

import (
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// FillMeters counts something in everything that the commands of a backend are
// counted in: four outcomes of each class, and all times.
func FillMeters(p *Proxy) {
	for _, m := range p.meters.backends {
		for i := range m.classes {
			for _, o := range []outcome{answered, unavailable, unanswered, timedOut} {
				m.classes[i].outcomes[o].Add(1)
			}
			m.classes[i].wait.Observe(time.Millisecond)
			m.classes[i].firstByte.Observe(time.Millisecond)
			m.classes[i].total.Observe(time.Millisecond)
		}
		for i := range m.replies {
			m.replies[i].Add(1)
		}
	}
}

func TestWords(t *testing.T) {
	seen := make(map[string]bool)
	for o := answered; o < outcomes; o++ {
		if o.String() == "" || seen[o.String()] {
			t.Errorf("outcome %d has no word of its own", o)
		}
		seen[o.String()] = true
	}
}

// TestCountAllocates: what a command that is answered adds to the metrics costs
// it no memory.
func TestCountAllocates(t *testing.T) {
	info, _ := doveadm.LookupCommand("quota get")
	p := &Proxy{meters: newMeters()}
	task := &task{session: &session{proxy: p}, request: request{info: info}}
	task.res = result{outcome: answered, status: doveadm.Status{OK: true}, backend: "b1", meter: p.meters.backend("b1"), firstByte: 1, bytes: 10}
	c := client{meter: p.meters.client("c")}
	for range 20 { // the slowest of this minute
		task.count(c, time.Now(), time.Second)
	}
	if n := testing.AllocsPerRun(100, func() { task.count(c, time.Now(), time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCount(b *testing.B) {
	info, _ := doveadm.LookupCommand("quota get")
	p := &Proxy{meters: newMeters()}
	task := &task{session: &session{proxy: p}, request: request{info: info}}
	task.res = result{outcome: answered, status: doveadm.Status{OK: true}, backend: "b1", meter: p.meters.backend("b1"), firstByte: 1, bytes: 10}
	c := client{meter: p.meters.client("c")}
	for range 20 {
		task.count(c, time.Now(), time.Second)
	}
	b.ReportAllocs()
	now := time.Now()
	for b.Loop() {
		task.count(c, now, time.Millisecond)
	}
}
