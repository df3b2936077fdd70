package access

import (
	"syscall"
	"testing"
	"time"
)

// BenchmarkDecide reports, besides the time, that of the processor, which is
// the same on a machine that does other things too.
func BenchmarkDecide(b *testing.B) {
	rules := many(b)
	for name, q := range cases(b, rules) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime(b)
			for b.Loop() {
				rules.Decide(q)
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
