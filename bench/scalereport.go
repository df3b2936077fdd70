package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// grown is what was found.
type grown struct {
	scale
	wanted     int // sessions
	conditions [][2]string

	small, plain, mapped state // one backend; all of them; and the map
	connected            state // and the pools full
	crowded              state // and the sessions, with pools that have nothing open
	connections          int   // of connected
	mapBytes             int64
	plainStart           time.Duration // until it serves
	mappedStart          time.Duration
	plainIdle            float64 // processors in use
	crowdedIdle          float64
	loads                [3]scaleLoad
	reload               numbers       // milliseconds
	changed              time.Duration // until a changed map is in use
	changedPeak          int64         // resident
	changedBeside        time.Duration // the same beside commands
	changedLongest       time.Duration // command beside it
	usualLongest         time.Duration
	scrape               numbers // milliseconds
	scrapeBytes          int
	scrapeCPU            time.Duration
	resident             int64 // the highest outside of reloads
}

// describe returns the conditions of the run.
func (g *grown) describe(ctx context.Context) ([][2]string, error) {
	machine, err := machine()
	if err != nil {
		return nil, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	version, err := firstLine(ctx, g.binary, "version")
	if err != nil {
		return nil, err
	}
	sessions := fmt.Sprint(g.sessions)
	if g.sessions < g.wanted {
		sessions += fmt.Sprintf(" (the limit of descriptors allows no more of %d)", g.wanted)
	}
	return [][2]string{
		{"command", "make bench-scale"},
		{"measured", time.Now().UTC().Format("2006-01-02 15:04 UTC") + fmt.Sprintf(", %d rounds, each load %s in each round", g.rounds, g.duration)},
		{"machine", machine},
		{"load before", strings.Join(strings.Fields(string(load))[:3], " ")},
		{"proxy", version},
		{"sessions", sessions},
		{"backends", fmt.Sprintf("%d addresses of one null backend, `max_open` %d", g.backends, g.maxOpen)},
		{"map", fmt.Sprintf("%d users with names of %d bytes, text", g.users, len(scaleUser(0)))},
	}, nil
}

// rates of growth, each for one more.
func (g *grown) perUser() float64 {
	return float64(g.mapped.inUse-g.plain.inUse) / float64(max(g.users, 1))
}

func (g *grown) perBackend() float64 {
	return float64(g.plain.inUse-g.small.inUse) / float64(max(g.backends-1, 1))
}

func (g *grown) perConnection() float64 {
	return float64(g.connected.inUse-g.mapped.inUse) / float64(max(g.connections, 1))
}

func (g *grown) perSession() float64 {
	return float64(g.crowded.inUse-g.mapped.inUse) / float64(max(g.sessions, 1))
}

// allInUse is the memory with everything at once.
func (g *grown) allInUse() int64 { return g.crowded.inUse + g.connected.inUse - g.mapped.inUse }

// garbage is how many times the memory in use the proxy had at most, because Go
// collects garbage when it is as much again.
func (g *grown) garbage() float64 {
	replaced := g.allInUse() + g.mapped.inUse - g.plain.inUse
	return max(float64(g.resident)/float64(g.allInUse()), float64(g.changedPeak)/float64(replaced))
}

func kib(bytes float64) string { return format(bytes/1024, 1) + " KiB" }

func mib(bytes int64) string { return format(float64(bytes)/(1<<20), 0) + " MiB" }

// blocks are what documents may have a place for.
func (g *grown) blocks() map[string]string {
	return map[string]string{"growth": g.table(), "sizing formulae": g.formulae()}
}

func (g *grown) table() string {
	var b strings.Builder
	t := markdown.NewTable("condition", "value")
	for _, c := range g.conditions {
		t.Row(c[0], c[1])
	}
	fmt.Fprintf(&b, "%s\n", t)

	t = markdown.NewTable("the proxy has", "memory in use", "resident", "descriptors", "each one more")
	row := func(what string, st state, each string) {
		t.Row(what, mib(st.inUse), mib(st.now), fmt.Sprint(st.files), each)
	}
	row("1 backend", g.small, "")
	row(fmt.Sprintf("%d backends", g.backends), g.plain, kib(g.perBackend())+" a backend")
	row(fmt.Sprintf("and a map of %d users", g.users), g.mapped, format(g.perUser(), 1)+" bytes a user")
	row(fmt.Sprintf("and %d connections to backends, idle", g.connections), g.connected,
		fmt.Sprintf("%s and %s descriptors a connection", kib(g.perConnection()), format(float64(g.connected.files-g.mapped.files)/float64(max(g.connections, 1)), 2)))
	row(fmt.Sprintf("instead of those %d sessions, idle", g.sessions), g.crowded,
		fmt.Sprintf("%s (resident: %s) and %s descriptors a session", kib(g.perSession()), kib(float64(g.crowded.now-g.mapped.now)/float64(max(g.sessions, 1))),
			format(float64(g.crowded.files-g.mapped.files)/float64(max(g.sessions, 1)), 2)))
	fmt.Fprintf(&b, "%s\n", t)

	if len(g.loads[0].samples) > 0 {
		t = markdown.NewTable("`quota get`, null backends", "sessions", "backends", "commands/s", "p50 ms", "p99 ms", "CPU µs proxy", "CPU µs backends", "CPU µs clients")
		for _, l := range g.loads {
			t.Row(l.title, fmt.Sprint(l.sessions), fmt.Sprint(l.backends), pick(l.samples, func(s sample) float64 { return s.rate }).spread(0),
				millis(l.samples, func(s sample) time.Duration { return s.p50 }).format(3),
				millis(l.samples, func(s sample) time.Duration { return s.p99 }).format(3),
				micros(l.samples, func(s sample) time.Duration { return s.between }).spread(1),
				micros(l.samples, func(s sample) time.Duration { return s.backend }).format(1),
				micros(l.samples, func(s sample) time.Duration { return s.clients }).format(1))
		}
		fmt.Fprintf(&b, "%s\n", t)

		t = markdown.NewTable("what", "figure")
		t.Row(fmt.Sprintf("start until it serves, %d backends", g.backends), g.plainStart.Round(time.Millisecond).String())
		t.Row(fmt.Sprintf("the same with the map (%s)", mib(g.mapBytes)), g.mappedStart.Round(time.Millisecond).String())
		t.Row(fmt.Sprintf("CPU while idle, %d backends without health checks", g.backends), processors(g.plainIdle))
		t.Row(fmt.Sprintf("the same with the map and %d sessions", g.sessions), processors(g.crowdedIdle))
		t.Row("highest resident memory up to here", mib(g.resident))
		t.Row("reload, the map as it was", g.reload.spread(0)+" ms")
		t.Row("another map in use after", fmt.Sprintf("%s, beside %d commands at the same time %s", g.changed.Round(time.Millisecond), together, g.changedBeside.Round(time.Millisecond)))
		t.Row("highest resident memory meanwhile", mib(g.changedPeak))
		t.Row("the longest of the commands meanwhile",
			fmt.Sprintf("%s ms (otherwise %s ms)", format(float64(g.changedLongest)/float64(time.Millisecond), 1), format(float64(g.usualLongest)/float64(time.Millisecond), 1)))
		t.Row("a scrape of the metrics", fmt.Sprintf("%s ms, %s, %s ms of CPU", g.scrape.spread(1), kib(float64(g.scrapeBytes)), format(float64(g.scrapeCPU)/float64(time.Millisecond), 1)))
		fmt.Fprintf(&b, "%s\n", t)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func processors(n float64) string { return format(100*n, 2) + " % of a processor" }

// formulae are for who has other numbers.
func (g *grown) formulae() string {
	if len(g.loads[0].samples) == 0 {
		return ""
	}
	cpu := func(l scaleLoad) string {
		return micros(l.samples, func(s sample) time.Duration { return s.between }).format(0)
	}
	base := float64(g.small.inUse) - g.perBackend()
	each := len(scaleUser(0))
	return fmt.Sprintf(`> memory in use = %s + users × %s bytes + backends × %s + connections to backends × %s + sessions × %s
>
> resident memory = up to %s × memory in use, of which the map is twice there while it is replaced
>
> descriptors = %d + sessions + connections to backends
>
> processors = commands a second × %s to %s µs + backends × %s µs

Users are lines of a text map, with names of %d bytes; a longer name takes its bytes more. The rest of CPU is that of a machine like the one of the
measurement, at full load, and what Dovecot needs comes on top of it on its own machines. Measured with %d users, %d backends, %d connections and %d sessions: %s in use, %s resident at most, %s while the map was replaced.
`,
		mib(int64(base)), format(g.perUser(), 0), kib(g.perBackend()), kib(g.perConnection()), kib(g.perSession()),
		format(g.garbage(), 1), g.small.files, cpu(g.loads[0]), cpu(g.loads[1]), format(math.Max(0, g.plainIdle)/float64(g.backends)*1e6, 0), each,
		g.users, g.backends, g.connections, g.sessions, mib(g.allInUse()), mib(g.resident), mib(g.changedPeak))
}
