package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// report is everything that a run found.
type report struct {
	rows       []*rows
	conditions [][2]string // under which it was measured: what, and its value
}

// conditions returns what the figures depend on.
func conditions(ctx context.Context, s *site, o options) ([][2]string, error) {
	machine, err := machine()
	if err != nil {
		return nil, err
	}
	list := [][2]string{
		{"command", o.command},
		{"measured", time.Now().UTC().Format("2006-01-02 15:04 UTC") + fmt.Sprintf(", %d rounds, each row %s in each round", o.rounds, o.duration)},
		{"machine", machine},
		{"load before", strings.Join(strings.Fields(o.load)[:3], " ") + " (running processes on average of 1, 5 and 15 minutes)"},
	}
	for _, d := range []struct {
		kind    backendKind
		version dovecot.Version
	}{{dovecot23, dovecot.V23}, {dovecot24, dovecot.V24}} {
		if s.dovecots[d.kind] == nil {
			continue
		}
		cmd, err := dovecot.Command(ctx, d.version, "dovecot", "--version")
		if err != nil {
			return nil, err
		}
		version, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("dovecot --version: %w", err)
		}
		list = append(list, [2]string{d.kind.String(), fmt.Sprintf("%s, %d users with %d mails each", strings.TrimSpace(string(version)), usersPerDovecot, mailsPerUser)})
	}
	for _, p := range []struct {
		name string
		pid  int
		arg  string
	}{{"proxy", s.pids[proxied], "version"}, {"HAProxy", s.pids[haproxy], "-v"}, {"nginx", s.pids[nginx], "-v"}} {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid))
		if err != nil {
			return nil, err
		}
		version, err := firstLine(ctx, path, p.arg)
		if err != nil {
			return nil, err
		}
		list = append(list, [2]string{p.name, version})
	}
	return append(list, [2]string{"clients and null backend", "one thread each, built with " + runtime.Version()}), nil
}

// machine names the processor and the kernel.
func machine() (string, error) {
	cpu, err := cpuModel()
	if err != nil {
		return "", err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d cores, Linux %s", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel))), nil
}

// firstLine returns that of what a program prints, which is its version.
func firstLine(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", program, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
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
	var b strings.Builder
	t := markdown.NewTable("condition", "value")
	for _, c := range r.conditions {
		t.Row(c[0], c[1])
	}
	fmt.Fprintf(&b, "%s\n", t)
	if goals := r.goals(); len(goals) > 0 {
		t := markdown.NewTable("what was promised", "goal", "measured", "reached")
		for _, g := range goals {
			t.Row(g.what, g.goal(), g.got.spread(g.decimals), g.verdict())
		}
		fmt.Fprintf(&b, "%s\n", t)
	}
	for k := range kinds {
		t := markdown.NewTable("what", "clients", "by way of", "commands/s", "the proxy's ratio to it", "p50 ms", "p99 ms",
			"CPU µs between", "CPU µs backend", "CPU µs clients", "system calls", "allocations", "MiB")
		found := false
		for _, row := range r.rows {
			if row.backend != k {
				continue
			}
			found = true
			for _, target := range row.targets {
				t.Row(row.cells(target)...)
			}
		}
		if found {
			fmt.Fprintf(&b, "%s:\n\n%s\n", strings.ToUpper(k.String()[:1])+k.String()[1:], t)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// cells returns those of one row of the report.
func (r *rows) cells(t target) []string {
	samples := r.samples[t]
	known := func(value float64, decimals int) string {
		if value < 0 {
			return "–"
		}
		return format(value, decimals)
	}
	rate := r.rates(t).spread(0)
	if r.volume {
		rate += " MB/s"
	}
	ratio, between, mib := "–", "–", "–"
	if t != proxied && slices.Contains(r.targets, proxied) {
		ratio = r.ratio(proxied, t).spread(2)
	}
	if t != direct {
		between = micros(samples, func(s sample) time.Duration { return s.between }).format(1)
		mib = fmt.Sprint(r.counts[t].memory.now >> 20)
	}
	return []string{
		r.title, fmt.Sprint(r.clients), t.String(), rate, ratio,
		millis(samples, func(s sample) time.Duration { return s.p50 }).format(3),
		millis(samples, func(s sample) time.Duration { return s.p99 }).format(3),
		between,
		micros(samples, func(s sample) time.Duration { return s.backend }).format(1),
		micros(samples, func(s sample) time.Duration { return s.clients }).format(1),
		known(r.counts[t].calls, 1), known(r.counts[t].allocations, 1), mib,
	}
}

func (r *rows) rates(t target) numbers {
	return pick(r.samples[t], func(s sample) float64 { return s.rate })
}

// ratio is computed in each round by itself: its two samples were taken one
// soon after the other, under the same conditions as far as that goes.
func (r *rows) ratio(a, b target) numbers { return r.rates(a).by(r.rates(b)) }

// goal is what the proxy is to reach.
type goal struct {
	what     string
	value    float64
	most     bool // value is the most that it may be, and not the least
	decimals int
	unit     string
	got      numbers
}

func (g *goal) goal() string {
	sign := "≥"
	if g.most {
		sign = "≤"
	}
	return fmt.Sprintf("%s %g%s", sign, g.value, g.unit)
}

func (g *goal) verdict() string {
	if m := g.got.median(); g.most && m <= g.value || !g.most && m >= g.value {
		return "yes"
	}
	return "no"
}

// row returns the row of a work, or nil.
func (r *report) row(name string) *rows {
	for _, row := range r.rows {
		if row.name == name {
			return row
		}
	}
	return nil
}

// goals returns what there are figures for.
func (r *report) goals() []goal {
	var list []goal
	add := func(g goal) { list = append(list, g) }
	for _, k := range []struct {
		kind  backendKind
		least float64
	}{{dovecot23, 13}, {dovecot24, 35}} {
		for _, n := range []int{32, 128} {
			row := r.row(fmt.Sprintf("%s-connect-%d", k.kind.domain(), n))
			if row == nil {
				continue
			}
			what := fmt.Sprintf("%s, `quota get`, a connection for each command, %d clients: ", k.kind, n)
			add(goal{what: what + "times direct", value: k.least, decimals: 2, got: row.ratio(proxied, direct)})
			var best *rows
			for _, other := range r.rows {
				if strings.HasPrefix(other.name, k.kind.domain()+"-kept-") && (best == nil || other.rates(direct).median() > best.rates(direct).median()) {
					best = other
				}
			}
			if best != nil {
				add(goal{what: fmt.Sprintf("%stimes the best of kept direct connections (%d of them)", what, best.clients), value: 0.98, decimals: 2, got: row.rates(proxied).by(best.rates(direct))})
			}
		}
	}
	for _, g := range []struct {
		name, what string
		least      float64
	}{
		{"null-connect-64", "null backend, a connection for each command, 64 clients: times HAProxy", 1.3},
		{"null-kept-64", "null backend, kept connections, 64 clients: times HAProxy", 1},
		{"null-pipelined-1", "null backend, sent ahead, 1 client: times HAProxy", 1},
		{"null-pipelined-8", "null backend, sent ahead, 8 clients: times HAProxy", 1},
		{"slow-pipelined-1", "null backend with 1 ms a command, sent ahead, 1 client: times HAProxy", 1},
		{"slow-pipelined-8", "null backend with 1 ms a command, sent ahead, 8 clients: times HAProxy", 1},
		{"null-5MB", "null backend, replies of 5 MB: times HAProxy", 0.9},
		{"null-100MB", "null backend, replies of 100 MB: times HAProxy", 0.9},
	} {
		if row := r.row(g.name); row != nil {
			add(goal{what: g.what, value: g.least, decimals: 2, got: row.ratio(proxied, haproxy)})
		}
	}
	if row := r.row("null-kept-1"); row != nil {
		p50 := func(t target) numbers {
			return micros(row.samples[t], func(s sample) time.Duration { return s.p50 })
		}
		added := p50(proxied).less(p50(direct)).by(p50(haproxy).less(p50(direct)))
		add(goal{what: "null backend, one client, kept connection, added median latency: times HAProxy's", value: 1, most: true, decimals: 2, got: added})
	}
	for _, name := range []string{"null-kept-64", "null-kept-1"} {
		row := r.row(name)
		if row == nil {
			continue
		}
		what := fmt.Sprintf("null backend, kept connections, %d clients: ", row.clients)
		for _, t := range []target{proxied, quiet} {
			if n := row.counts[t].calls; n >= 0 && slices.Contains(row.targets, t) {
				add(goal{what: what + "system calls a command, " + t.String(), value: 4, most: true, decimals: 2, got: numbers{n}})
			}
		}
		if n := row.counts[proxied].allocations; n >= 0 {
			add(goal{what: what + "allocations a command", value: 0, most: true, decimals: 1, got: numbers{math.Round(n*10) / 10}})
		}
	}
	for _, row := range r.rows {
		if slices.Contains(row.targets, ownProxy) && slices.Contains(row.targets, proxied) {
			add(goal{what: fmt.Sprintf("%s, %s, %d clients: times Dovecot's own proxy", row.backend, row.title, row.clients), value: 50, decimals: 1, got: row.ratio(proxied, ownProxy)})
		}
	}
	return list
}

// summary returns a short report in Markdown.
func (r *report) summary() string {
	t := markdown.NewTable("commands a second", "clients", "directly", "through HAProxy", "through the proxy", "ratio to direct", "ratio to HAProxy")
	for _, row := range r.rows {
		if row.volume || !slices.Contains(row.targets, proxied) || row.backend == slow {
			continue
		}
		t.Row(row.backend.String()+", "+row.title, fmt.Sprint(row.clients), row.rates(direct).format(0), row.rates(haproxy).format(0), row.rates(proxied).format(0),
			row.ratio(proxied, direct).format(2), row.ratio(proxied, haproxy).format(2))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nMedians of all rounds.", t)
	for _, c := range r.conditions {
		if slices.Contains([]string{"measured", "machine", "load before"}, c[0]) {
			fmt.Fprintf(&b, " %s: %s.", strings.ToUpper(c[0][:1])+c[0][1:], c[1])
		}
	}
	b.WriteString("\n")
	return b.String()
}
