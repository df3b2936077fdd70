package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// report is everything that a run found.
type report struct {
	pairs      []*pair
	memory     memory      // of the proxy, at the end
	conditions [][2]string // under which it was measured: what, and its value
}

// pair is two rows that are compared.
type pair struct {
	keep    bool // connections are kept open for many commands
	clients int
	samples [2][]sample // by way and by round
}

// title says in words what a row is.
func title(keep bool, w way) string {
	if keep {
		return fmt.Sprintf("`quota get` on a connection that is kept, %s", w)
	}
	return fmt.Sprintf("connect, log in, `quota get`, close, %s", w)
}

// conditions returns what the figures depend on.
func conditions(ctx context.Context, s *site, o options, load string) ([][2]string, error) {
	cpu, err := cpuModel()
	if err != nil {
		return nil, err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return nil, err
	}
	version, err := s.servers[0].Doveadm(ctx, "config", "-n")
	if err != nil {
		return nil, err
	}
	dovecot, ok := strings.CutPrefix(strings.SplitN(version.Stdout, "\n", 2)[0], "# ")
	if dovecot, _, _ = strings.Cut(dovecot, ":"); !ok {
		return nil, fmt.Errorf("doveadm config does not begin with Dovecot's version: %+v", version)
	}
	proxy, err := exec.CommandContext(ctx, s.proxy.Path, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("version of the proxy: %w", err)
	}
	measurement := fmt.Sprintf("%d rounds, each row %s in each round", o.rounds, o.duration)
	return [][2]string{
		{"command", strings.Join(append([]string{"go run ./internal/bench"}, o.args...), " ")},
		{"measured", time.Now().UTC().Format("2006-01-02 15:04 UTC") + ", " + measurement},
		{"machine", fmt.Sprintf("%s, %d cores, Linux %s", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)))},
		{"load before", strings.Join(strings.Fields(load)[:3], " ") + " (running processes on average of 1, 5 and 15 minutes)"},
		{"backends", fmt.Sprintf("%d times Dovecot %s, %d users each with %d mails", backends, dovecot, usersPerBackend, mailsPerUser)},
		{"proxy", strings.TrimSpace(string(proxy))},
		{"clients", "one program, built with " + runtime.Version()},
	}, nil
}

func cpuModel() (string, error) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	return runtime.GOARCH + " CPU", nil // not every architecture names it
}

// blocks are what documents may have a place for.
func (r *report) blocks() map[string]string {
	return map[string]string{"benchmark results": r.full(), "benchmark summary": r.summary()}
}

// full returns the whole report in Markdown.
func (r *report) full() string {
	t := markdown.NewTable("condition", "value")
	for _, c := range r.conditions {
		t.Row(c[0], c[1])
	}
	conditions := t.String()

	t = markdown.NewTable("what", "clients", "commands/s", "ratio to direct",
		"p50 ms", "p99 ms", "processes", "Dovecot µs", "proxy µs")
	commands := 0
	for _, p := range r.pairs {
		for _, w := range []way{direct, proxied} {
			t.Row(p.row(w)...)
			for _, s := range p.samples[w] {
				commands += s.commands
			}
		}
	}
	return fmt.Sprintf("%s\n%s\n%d commands were measured, and none failed. Resident memory of the proxy: %d MiB at its highest, %d MiB at the end.\n",
		conditions, t, commands, r.memory.highest>>20, r.memory.now>>20)
}

// summary returns a short report in Markdown.
func (r *report) summary() string {
	t := markdown.NewTable("commands a second", "clients", "directly", "through the proxy", "ratio")
	for _, p := range r.pairs {
		what := "connect, log in, `quota get`, close"
		if p.keep {
			what = "`quota get` on a connection that is kept"
		}
		t.Row(what, fmt.Sprint(p.clients), p.rates(direct).format(0), p.rates(proxied).format(0), p.ratios().format(2))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nMedians of all rounds.", t)
	for _, c := range r.conditions {
		if slices.Contains([]string{"measured", "machine", "backends"}, c[0]) {
			fmt.Fprintf(&b, " %s: %s.", strings.ToUpper(c[0][:1])+c[0][1:], c[1])
		}
	}
	b.WriteString("\n")
	return b.String()
}

// row returns the cells of one row of the full report.
func (p *pair) row(w way) []string {
	samples := p.samples[w]
	ratio, proxy := "–", "–"
	if w == proxied {
		ratio = p.ratios().spread(2)
		proxy = micros(samples, func(s sample) time.Duration { return s.proxy }).format(0)
	}
	processes := 0
	for _, s := range samples {
		processes = max(processes, s.processes)
	}
	return []string{
		title(p.keep, w),
		fmt.Sprint(p.clients),
		p.rates(w).spread(0),
		ratio,
		millis(samples, func(s sample) time.Duration { return s.p50 }).format(2),
		millis(samples, func(s sample) time.Duration { return s.p99 }).format(2),
		fmt.Sprint(processes),
		micros(samples, func(s sample) time.Duration { return s.dovecot }).format(0),
		proxy,
	}
}

func (p *pair) rates(w way) numbers {
	return pick(p.samples[w], func(s sample) float64 { return s.rate })
}

// ratios are computed in each round by itself: its two samples were taken one
// after the other, under the same conditions as far as that goes.
func (p *pair) ratios() numbers {
	ratios := p.rates(proxied)
	for n, rate := range p.rates(direct) {
		ratios[n] /= rate
	}
	return ratios
}
