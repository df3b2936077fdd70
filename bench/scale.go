package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// "bench scale" measures how memory, descriptors and CPU time of the proxy grow
// with backends, users, connections and sessions: it starts a small proxy and
// a large one, and looks at both from outside after each step.

// scale is how large, and how long to look.
type scale struct {
	binary   string
	backends int
	users    int // in the map
	sessions int
	maxOpen  int // connections to each backend
	rounds   int
	duration time.Duration // of one measurement
	idle     time.Duration // how long the CPU time of a proxy is counted that has nothing to do
	timeout  string        // idle_timeout of the pools where it is not to be the default
	profiles string        // directory
	update   []string
}

// together is how many commands are under way in the comparison of a small and
// a large proxy.
const together = 64

// scaleLoad is one way to spread commands.
type scaleLoad struct {
	title    string
	sessions int
	backends int
	samples  []sample
}

// state is what a proxy has.
type state struct {
	memory
	inUse int64 // of the memory that Go has: what is live, with the stacks
	files int
}

func runScale(ctx context.Context, args []string, stdout, progress io.Writer) error {
	var sc scale
	flags := flag.NewFlagSet("bench scale", flag.ContinueOnError)
	flags.StringVar(&sc.binary, "proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	flags.IntVar(&sc.backends, "backends", 500, "`number` of null backends")
	flags.IntVar(&sc.users, "users", 5_000_000, "`number` of lines in the map")
	flags.IntVar(&sc.sessions, "sessions", 20_000, "`number` of client sessions, or as many as the limit of descriptors leaves")
	flags.IntVar(&sc.maxOpen, "max-open", 2, "`number` of connections to each backend")
	flags.IntVar(&sc.rounds, "rounds", 5, "measurements of each load")
	flags.DurationVar(&sc.duration, "time", 2*time.Second, "`length` of one measurement")
	flags.DurationVar(&sc.idle, "idle", 10*time.Second, "how `long` an idle proxy is looked at")
	flags.StringVar(&sc.profiles, "profiles", "", "`directory` for Go's profiles of the large proxy: heap.pprof and goroutine.pprof of idle sessions, and CPU time")
	update := flags.String("update", "", "`files`, with commas, that get the results between their markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *update != "" {
		sc.update = strings.Split(*update, ",")
	}
	return sc.run(ctx, stdout, progress)
}

func (sc scale) run(ctx context.Context, stdout, progress io.Writer) error {
	if sc.backends < 2 || sc.backends > 60_000 || sc.users < sc.backends || sc.sessions < together || sc.maxOpen < 1 || sc.rounds < 1 {
		return fmt.Errorf("scale: 2 to 60000 backends, no fewer users than backends, %d or more sessions, 1 or more connections and rounds", together)
	}
	for _, path := range sc.update { // not after all the work
		if _, err := markdown.Filled(path, new(grown).blocks()); err != nil {
			return err
		}
	}
	s := &site{}
	g, err := sc.measure(ctx, s, progress)
	if err = errors.Join(interrupted(ctx, err), s.close()); err != nil {
		return err
	}
	blocks := g.blocks()
	fmt.Fprintf(stdout, "%s\n%s", blocks["growth"], blocks["sizing formulae"])
	for _, path := range sc.update {
		if err := markdown.Fill(path, blocks); err != nil {
			return err
		}
		fmt.Fprintf(progress, "updated %s\n", path)
	}
	return nil
}

func (sc scale) measure(ctx context.Context, s *site, progress io.Writer) (*grown, error) {
	// The proxy gets the limit that this process has.
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	const others = 100 // the proxy leaves 64 for itself, and this program has some
	g := &grown{scale: sc, wanted: sc.sessions}
	if most := int64(files.Max) - int64(sc.backends*sc.maxOpen) - others; int64(g.sessions) > most {
		if g.sessions = int(most); g.sessions < together {
			return nil, fmt.Errorf("%d descriptors are too few for %d backends: ulimit -n %d", files.Max, sc.backends, sc.backends*sc.maxOpen+sc.sessions+others)
		}
	}
	var err error
	if g.conditions, err = g.describe(ctx); err != nil {
		return nil, err
	}
	step := func(format string, args ...any) { fmt.Fprintf(progress, format+"\n", args...) }

	if s.dir, err = os.MkdirTemp("/tmp", "bench-"); err != nil {
		return nil, err
	}
	backend, addresses, err := s.startMany(ctx, sc.backends)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir, "users.map")
	if g.mapBytes, err = writeMap(path, sc.users, sc.backends); err != nil {
		return nil, err
	}
	step("%d null backends, a map of %d users", sc.backends, sc.users)

	small, _, err := s.startScaled(ctx, &sc, "small", addresses[:1], "")
	if err != nil {
		return nil, err
	}
	if g.small, err = small.look(); err != nil {
		return nil, err
	}
	plain, took, err := s.startScaled(ctx, &sc, "plain", addresses, "")
	if err != nil {
		return nil, err
	}
	g.plainStart = took
	if g.plain, err = plain.look(); err != nil {
		return nil, err
	}
	if g.plainIdle, err = plain.idle(ctx, sc.idle); err != nil {
		return nil, err
	}
	if err := s.end(plain.child); err != nil {
		return nil, err
	}
	large, took, err := s.startScaled(ctx, &sc, "large", addresses, path)
	if err != nil {
		return nil, err
	}
	g.mappedStart = took
	if g.mapped, err = large.look(); err != nil {
		return nil, err
	}
	step("the map is loaded: %s", took.Round(time.Millisecond))

	// As many clients as there may be connections fill the pools.
	if err := large.fill(&sc); err != nil {
		return nil, err
	}
	if g.connected, err = large.look(); err != nil {
		return nil, err
	}
	if g.connections = g.connected.files - g.mapped.files; g.connections < sc.backends {
		return nil, fmt.Errorf("only %d connections to %d backends", g.connections, sc.backends)
	}
	step("%d connections to backends", g.connections)

	few, err := newLoad(small.at, sc.clients(together, true))
	if err != nil {
		return nil, err
	}
	defer few.close()
	many, err := newLoad(large.at, sc.clients(g.sessions, false))
	if err != nil {
		return nil, err
	}
	defer many.close()
	g.loads = [3]scaleLoad{
		{title: fmt.Sprintf("%d commands at the same time", together), sessions: together, backends: 1},
		{title: fmt.Sprintf("%d commands at the same time", together), sessions: g.sessions, backends: sc.backends},
		{title: "a command on each session", sessions: g.sessions, backends: sc.backends},
	}
	drive := func(l *load, p *scaledProxy, together int) (sample, done, error) {
		var before, after [2]time.Duration
		read := func(into *[2]time.Duration) (err error) {
			if into[0], err = cpuTime(p.pid()); err == nil {
				into[1], err = cpuTime(backend)
			}
			return err
		}
		l.together = together
		d, err := l.run(0, sc.duration, func() error { return read(&before) })
		if err = errors.Join(err, ctx.Err()); err == nil {
			err = read(&after)
		}
		each := func(sum time.Duration) time.Duration { return sum / time.Duration(max(d.all, 1)) }
		return sample{
			rate: float64(d.commands) / sc.duration.Seconds(), p50: d.p50, p99: d.p99,
			between: each(after[0] - before[0]), backend: each(after[1] - before[1]), clients: each(d.own),
		}, d, err
	}
	// The sessions are opened in turns, and then have nothing to do until the
	// pools have closed what they had.
	if _, _, err := drive(many, large, together); err != nil {
		return nil, err
	}
	step("%d sessions", g.sessions)
	if err := large.waitFiles(ctx, g.mapped.files+g.sessions); err != nil {
		return nil, err
	}
	if g.crowded, err = large.look(); err != nil {
		return nil, err
	}
	if sc.profiles != "" {
		for _, what := range []string{"heap", "goroutine"} {
			if err := large.profile(what, filepath.Join(sc.profiles, what+".pprof")); err != nil {
				return nil, err
			}
		}
	}
	if g.crowdedIdle, err = large.idle(ctx, sc.idle); err != nil {
		return nil, err
	}
	step("idle")

	var longest []time.Duration
	for round := range sc.rounds {
		for n, target := range []struct {
			load     *load
			proxy    *scaledProxy
			together int
		}{{few, small, 0}, {many, large, together}, {many, large, 0}} {
			got, d, err := drive(target.load, target.proxy, target.together)
			if err != nil {
				return nil, fmt.Errorf("%s, %d backends: %w", g.loads[n].title, g.loads[n].backends, err)
			}
			g.loads[n].samples = append(g.loads[n].samples, got)
			if n == 1 {
				longest = append(longest, d.longest)
			}
		}
		step("round %d of %d", round+1, sc.rounds)
	}
	if sc.profiles != "" {
		for name, together := range map[string]int{"cpu-64.pprof": together, "cpu-all.pprof": 0} {
			written := make(chan error, 1)
			go func() {
				written <- large.profile(fmt.Sprintf("profile?seconds=%d", max(1, int(sc.duration.Seconds()))), filepath.Join(sc.profiles, name))
			}()
			_, _, err := drive(many, large, together)
			if err = errors.Join(err, <-written); err != nil {
				return nil, err
			}
		}
	}
	slices.Sort(longest)
	g.usualLongest = longest[len(longest)/2]
	end, err := readMemory(large.pid())
	if err != nil {
		return nil, err
	}
	g.resident = end.highest

	if err := large.scrapes(g); err != nil {
		return nil, err
	}
	if err := large.reloads(ctx, g); err != nil {
		return nil, err
	}
	step("reloaded")
	if err := large.changes(ctx, g, path, many); err != nil {
		return nil, err
	}
	step("the map was replaced")
	return g, nil
}

// startMany starts one null backend that listens on many addresses, and
// returns its process.
func (s *site) startMany(ctx context.Context, n int) (pid int, addresses []string, err error) {
	first, err := s.port()
	if err != nil {
		return 0, nil, err
	}
	_, port, _ := net.SplitHostPort(first)
	for i := range n {
		addresses = append(addresses, fmt.Sprintf("127.77.%d.%d:%s", i/250, i%250+1, port))
	}
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	// When it accepts connections at the last one it listens on all.
	c, err := s.run(ctx, "null backends", addresses[n-1], self, "null", "-listen", strings.Join(addresses, ","))
	if err != nil {
		return 0, nil, err
	}
	return c.cmd.Process.Pid, addresses, nil
}

func scaleUser(n int) string { return fmt.Sprintf("user%07d@example.com", n) }

// writeMap writes the lines of n users and returns their size.
func writeMap(path string, users, shards int) (int64, error) {
	var b bytes.Buffer
	for n := range users {
		fmt.Fprintf(&b, "%s s%d\n", scaleUser(n), n%shards+1)
	}
	return int64(b.Len()), os.WriteFile(path, b.Bytes(), 0o644)
}

// clients are the commands of so many sessions: those of one backend all for
// one user each, or for users of all backends, one after the other.
func (sc *scale) clients(n int, one bool) [][]op {
	random := rand.New(rand.NewPCG(1, 2))
	all := make([][]op, n)
	for slot := range all {
		if one {
			all[slot] = []op{scaleOp(slot % sc.users)}
			continue
		}
		const each = 4
		for k := range each {
			// The next session asks the next backend, and the next command of a
			// session one that is far away.
			shard := (slot + k*sc.backends/each) % sc.backends
			all[slot] = append(all[slot], scaleOp(shard+sc.backends*random.IntN((sc.users-shard+sc.backends-1)/sc.backends)))
		}
	}
	return all
}

func scaleOp(user int) op {
	return op{request: fmt.Appendf(nil, "\t%s\tquota get\n", scaleUser(user)), replies: 1, size: quotaSize}
}
