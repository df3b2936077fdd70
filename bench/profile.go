package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// "bench profile" tells where the processor time of the proxy goes while it
// works, by perf(1), which sees the kernel's part too: as flame graphs, and as a
// table of what the stacks have in them.

// profiled are the works that it looks at.
var profiled = []string{"null-connect-64", "null-kept-64", "null-pipelined-8"}

func runProfile(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("bench profile", flag.ContinueOnError)
	binary := flags.String("proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	duration := flags.Duration("time", 4*time.Second, "`length` of a profile")
	dir := flags.String("graphs", "", "`directory` that gets the flame graphs")
	update := flags.String("update", "", "`file` that gets the table between its markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if _, err := exec.LookPath("perf"); err != nil {
		return errors.New("perf is missing: install the package linux-perf")
	}
	works, err := chosen(false, strings.Join(profiled, "|"))
	if err != nil {
		return err
	}
	s, err := startSite(ctx, *binary, works)
	if err != nil {
		return err
	}
	var all []*profile
	for i := range works {
		p, err := s.profile(ctx, &works[i], *duration)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", works[i].name, err), s.close())
		}
		all = append(all, p)
	}
	if err := s.close(); err != nil {
		return err
	}
	table := profileTable(all)
	fmt.Fprint(stdout, table)
	if *dir != "" {
		for _, p := range all {
			if err := os.WriteFile(filepath.Join(*dir, "flame-"+p.work.name+".svg"), p.flameGraph(), 0o644); err != nil {
				return err
			}
		}
	}
	if *update == "" {
		return nil
	}
	return markdown.Fill(*update, map[string]string{"profile": table})
}

// profile is the stacks that were seen while a work was done, outermost first.
type profile struct {
	work   *work
	stacks [][]frame
	each   time.Duration // CPU time of the proxy for a command
}

type frame struct {
	name   string
	kernel bool
}

// profile has perf look at the proxy while clients work.
func (s *site) profile(ctx context.Context, w *work, duration time.Duration) (*profile, error) {
	var ops [][]op
	for slot := range w.clients {
		ops = append(ops, w.ops(w.backend, slot))
	}
	l, err := newLoad(s.endpoints[w.backend][proxied], ops)
	if err != nil {
		return nil, err
	}
	defer l.close()
	data := filepath.Join(s.dir, "perf.data")
	pid := s.pids[proxied]
	var perf *exec.Cmd
	var before time.Duration
	d, err := l.run(200*time.Millisecond, duration, func() (err error) {
		perf = exec.CommandContext(ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", "2999", "-g",
			"-p", strconv.Itoa(pid), "-o", data, "--", "sleep", fmt.Sprint(duration.Seconds()))
		perf.Stderr = os.Stderr
		if before, err = cpuTime(pid); err != nil {
			return err
		}
		return perf.Start()
	})
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(pid)
	if err := errors.Join(err, perf.Wait()); err != nil {
		return nil, fmt.Errorf("perf record: %w", err)
	}
	script := exec.CommandContext(ctx, "perf", "script", "-i", data, "-F", "ip,sym,dso")
	out, err := script.Output()
	if err != nil {
		return nil, fmt.Errorf("perf script: %w", err)
	}
	stacks := readStacks(out)
	if len(stacks) == 0 {
		return nil, errors.New("perf has seen nothing")
	}
	return &profile{w, stacks, (after - before) / time.Duration(d.all)}, nil
}

// readStacks reads what perf script writes: a line "ADDRESS NAME (FILE)" for each
// frame, innermost first, and an empty one behind each stack.
func readStacks(script []byte) (all [][]frame) {
	var stack []frame
	end := func() {
		if len(stack) > 0 {
			slices.Reverse(stack)
			all = append(all, stack)
			stack = nil
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		_, rest, ok := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if !ok {
			end()
			continue
		}
		name, file := rest, ""
		if i := strings.LastIndex(rest, " ("); i >= 0 {
			name, file = rest[:i], strings.Trim(rest[i:], " ()")
		}
		name, _, _ = strings.Cut(name, "+0x")
		stack = append(stack, frame{
			name:   strings.TrimPrefix(name, "github.com/doveadm-proxy/doveadm-proxy/"),
			kernel: strings.HasPrefix(file, "[k") || file == "[guest.kernel.kallsyms]",
		})
	}
	end()
	return all
}

// parts are what the table tells apart. The first whose pattern a frame of the
// stack begins with has it; so the order matters.
var parts = []struct {
	name     string
	patterns []string
}{
	{"the Go runtime's watch over its threads", []string{"runtime.sysmon"}},
	{"garbage collection, growing stacks", []string{"runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.newstack"}},
	{"choosing what runs next, waking and parking threads", []string{"runtime.mcall", "runtime.schedule", "runtime.findRunnable", "runtime.park_m", "runtime.notewakeup", "runtime.goready", "runtime.mstart"}},
	{"writes to sockets", []string{"net.(*conn).Write", "proxy.(*sender).writeSome"}},
	{"reads from sockets", []string{"net.(*conn).Read"}},
	{"accepting connections", []string{"net.(*TCPListener).Accept"}},
	{"closing connections", []string{"net.(*conn).Close"}},
	{"the look at a connection before it is used again", []string{"pool.(*link).unusable"}},
	{"the log line", []string{"proxy.(*task).log"}},
	{"the login: password, penalties, rights of the connection", []string{"proxy.(*session).logIn", "proxy.(*session).recognize"}},
	{"the pool: queue, breaker, numbers", []string{"pool."}},
	{"protocol: lines, packets, arguments", []string{"doveadm."}},
	{"all else of a session: rights, route, counters, deadlines", []string{"proxy."}},
	{"the rest", []string{""}},
}

func part(stack []frame) int {
	for i, p := range parts {
		for _, pattern := range p.patterns {
			if slices.ContainsFunc(stack, func(f frame) bool { return strings.HasPrefix(f.name, pattern) }) {
				return i
			}
		}
	}
	return len(parts) - 1
}

func profileTable(all []*profile) string {
	var b strings.Builder
	b.WriteString("| part of the proxy's processor time |")
	for _, p := range all {
		fmt.Fprintf(&b, " %s: %% |", p.work.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(all)) + "\n")
	share := func(n, of int) string { return format(100*float64(n)/float64(of), 1) }
	counts := make([][]int, len(all))
	kernel := make([]int, len(all))
	for i, p := range all {
		counts[i] = make([]int, len(parts))
		for _, stack := range p.stacks {
			counts[i][part(stack)]++
			if stack[len(stack)-1].kernel {
				kernel[i]++
			}
		}
	}
	for n, p := range parts {
		fmt.Fprintf(&b, "| %s |", p.name)
		for i := range all {
			fmt.Fprintf(&b, " %s |", share(counts[i][n], len(all[i].stacks)))
		}
		b.WriteByte('\n')
	}
	b.WriteString("| of all that in the kernel |")
	for i := range all {
		fmt.Fprintf(&b, " %s |", share(kernel[i], len(all[i].stacks)))
	}
	b.WriteString("\n| µs a command |")
	for _, p := range all {
		fmt.Fprintf(&b, " %d |", p.each.Microseconds())
	}
	b.WriteByte('\n')
	return b.String()
}

// block is a function in a flame graph, with what it has called.
type block struct {
	frame
	count int
	calls []*block
}

func (b *block) add(stack []frame) {
	b.count++
	if len(stack) == 0 {
		return
	}
	i := slices.IndexFunc(b.calls, func(c *block) bool { return c.frame == stack[0] })
	if i < 0 {
		i = len(b.calls)
		b.calls = append(b.calls, &block{frame: stack[0]})
	}
	b.calls[i].add(stack[1:])
}

const (
	flameWidth  = 1200
	flameRow    = 16
	flameDepth  = 48
	flameLetter = 6.2 // width of one
)

// flameGraph draws the profile: each row is called by the one below it, and as
// wide as its part of the time. What is narrower than a pixel is left out.
func (p *profile) flameGraph() []byte {
	root := &block{frame: frame{name: "doveadm-proxy, " + p.work.name}}
	for _, stack := range p.stacks {
		root.add(stack[:min(len(stack), flameDepth)])
	}
	var rows bytes.Buffer
	depth := root.draw(&rows, 0, flameWidth, 0, root.count)
	height := (depth + 1) * flameRow
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 %d %d %d" font-family="monospace" font-size="10">`+"\n",
		flameWidth, height, -height+flameRow, flameWidth, height)
	fmt.Fprintf(&b, "<title>Where the processor time of doveadm-proxy goes: %s</title>\n", p.work.name)
	b.Write(rows.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

var xmlText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// draw draws b and what it called, and returns how many rows that are.
func (b *block) draw(w io.Writer, x, width float64, row, all int) (depth int) {
	color := "#f2b066" // libraries and the Go runtime
	switch {
	case b.kernel:
		color = "#c9c9c9"
	case strings.HasPrefix(b.name, "runtime."):
		color = "#f0d9b0"
	case strings.HasPrefix(b.name, "proxy.") || strings.HasPrefix(b.name, "pool.") || strings.HasPrefix(b.name, "doveadm.") ||
		strings.HasPrefix(b.name, "router.") || strings.HasPrefix(b.name, "internal/logs."):
		color = "#8fc1e3"
	}
	fmt.Fprintf(w, `<g><title>%s: %s %%</title><rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`,
		xmlText.Replace(b.name), format(100*float64(b.count)/float64(all), 2), x, -row*flameRow, max(0.3, width-0.3), flameRow-1, color)
	if letters := int(width/flameLetter) - 1; letters >= 3 {
		name := b.name
		if len(name) > letters {
			name = name[:letters]
		}
		fmt.Fprintf(w, `<text x="%.1f" y="%d">%s</text>`, x+2, -row*flameRow+11, xmlText.Replace(name))
	}
	fmt.Fprint(w, "</g>\n")
	depth = row + 1
	slices.SortFunc(b.calls, func(a, c *block) int { return strings.Compare(a.name, c.name) })
	for _, c := range b.calls {
		part := width * float64(c.count) / float64(b.count)
		if part >= 1 {
			depth = max(depth, c.draw(w, x, part, row+1, all))
		}
		x += part
	}
	return depth
}
