package router

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// BenchmarkMillions is a map of five million users: load-s is how long it takes
// to read it, B/user what it takes of the heap, and the rest a decision.
//
//	go test ./router -run '^$' -bench Millions
func BenchmarkMillions(b *testing.B) {
	const users = 5_000_000
	path := filepath.Join(b.TempDir(), "users.map")
	out, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(out)
	for i := range users {
		fmt.Fprintf(w, "user%07d@example.com s%d\n", i, i%3+1)
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	out.Close()
	for _, format := range []string{config.MapText, config.MapCDB} {
		b.Run(format, func(b *testing.B) {
			path := path
			if format == config.MapCDB {
				text := path
				path += ".cdb"
				if out, err := exec.Command("cdb", "-c", "-m", path, text).CombinedOutput(); err != nil {
					b.Fatalf("cdb (Debian package tinycdb, see scripts/deps): %v\n%s", err, out)
				}
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			began := time.Now()
			table := newTable(b, config.Route{Kind: "file", Path: path, Format: format})
			took := time.Since(began)
			runtime.GC()
			runtime.ReadMemStats(&after)
			names := make([]string, 100_000)
			for i := range names {
				names[i] = fmt.Sprintf("user%07d@example.com", i*7919%users)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := table.Route(b.Context(), names[i%len(names)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.ReportMetric(took.Seconds(), "load-s")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/users, "B/user")
		})
	}
}
