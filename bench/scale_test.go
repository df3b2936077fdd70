package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// The run with small numbers is complete; its figures are no matter of a test.
func TestScale(t *testing.T) {
	document := filepath.Join(t.TempDir(), "document.md")
	const markers = "<!-- growth: begin -->\n<!-- growth: end -->\n<!-- sizing formulae: begin -->\n<!-- sizing formulae: end -->\n"
	if err := os.WriteFile(document, []byte(markers), 0o644); err != nil {
		t.Fatal(err)
	}
	sc := scale{
		binary: buildProxy(t), backends: 20, users: 5000, sessions: 200, maxOpen: 2, rounds: 1,
		duration: 50 * time.Millisecond, idle: 50 * time.Millisecond, timeout: "3s", profiles: t.TempDir(), update: []string{document},
	}
	var stdout, progress bytes.Buffer
	if err := sc.run(t.Context(), &stdout, &progress); err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Log(&stdout)
	content, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| and a map of 5000 users | ", "| instead of those 200 sessions, idle | ", "| a command on each session | 200 | 20 | ",
		"| another map in use after | ", "> memory in use = ",
	} {
		if !strings.Contains(string(content), want) {
			t.Errorf("the document lacks %q", want)
		}
	}
	for _, name := range []string{"heap.pprof", "goroutine.pprof", "cpu-64.pprof", "cpu-all.pprof"} {
		if _, err := os.Stat(filepath.Join(sc.profiles, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestScaleDocuments(t *testing.T) {
	for _, path := range []string{"../docs/performance.md", "../docs/sizing.md"} {
		if _, err := markdown.Filled(path, new(grown).blocks()); err != nil {
			t.Error(err)
		}
	}
}

// Each session in turn, whoever ends first.
func TestTurns(t *testing.T) {
	clients := []*client{{slot: 0}, {slot: 1}, {slot: 2}}
	q := turns{waiting: make([]*client, len(clients))}
	for _, c := range clients {
		q.add(c)
	}
	for n := range 7 {
		c := q.next()
		if c.slot != n%3 {
			t.Errorf("turn %d is that of %d", n, c.slot)
		}
		q.add(c)
	}
}
