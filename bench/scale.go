package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
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

// The configuration is what a user writes who has that many backends.
var scaleTemplate = template.Must(template.New("config").Parse(`listener "main" {
  address = "{{.Addr}}"
}

client "doveadm" {
  password = "{{.Hash}}"
}

admin {
  address    = "unix:{{.Name}}.sock"
  state_file = "{{.Name}}.state"
  profiling  = true
}

limits {
  max_sessions = {{.Sessions}}
}

backend_defaults {
  password = "{{.Password}}"
{{- if gt (len .Backends) 1}}
  pool {
    max_open = {{.MaxOpen}}
{{- with .Timeout}}
    idle_timeout = "{{.}}"
{{- end}}
  }
{{- end}}
}
{{range $n, $addr := .Backends}}
shard "s{{$n}}" {
  backend "mail{{$n}}" {
    address = "{{$addr}}"
  }
}
{{end}}
{{- with .Map}}
route "file" {
  path = "{{.}}"
}
{{else}}
route "ring" {}
{{end}}`))

// scaledProxy is a proxy that is looked at.
type scaledProxy struct {
	child *child
	at    endpoint
	http  http.Client
}

func (p *scaledProxy) pid() int { return p.child.cmd.Process.Pid }

// startScaled starts a proxy, and tells how long it took until it served.
func (s *site) startScaled(ctx context.Context, sc *scale, name string, addresses []string, users string) (*scaledProxy, time.Duration, error) {
	binary, err := filepath.Abs(sc.binary)
	if err != nil {
		return nil, 0, err
	}
	hash, err := auth.Generate(auth.DefaultScheme, password)
	if err != nil {
		return nil, 0, err
	}
	addr, err := s.port()
	if err != nil {
		return nil, 0, err
	}
	backends := make(map[string]string)
	for i, address := range addresses {
		backends[strconv.Itoa(i+1)] = address
	}
	path := filepath.Join(s.dir, name)
	var config bytes.Buffer
	err = scaleTemplate.Execute(&config, map[string]any{
		"Addr": addr, "Hash": hash, "Name": path, "Sessions": max(sc.sessions, 10_000), "Password": password,
		"MaxOpen": sc.maxOpen, "Timeout": sc.timeout, "Backends": backends, "Map": users,
	})
	if err != nil {
		return nil, 0, err
	}
	if err := os.WriteFile(path+".hcl", config.Bytes(), 0o600); err != nil {
		return nil, 0, err
	}
	begin := time.Now()
	c, err := s.run(ctx, "proxy-"+name, addr, binary, "serve", "--config", path+".hcl")
	if err != nil {
		return nil, 0, fmt.Errorf("%w (make build builds the proxy)", err)
	}
	took := time.Since(begin)
	// The admin endpoint comes last.
	for range 200 {
		if _, err = os.Stat(path + ".sock"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("the proxy has no admin endpoint: %w; its output:\n%s", err, c.said())
	}
	p := &scaledProxy{child: c, at: endpoint{addr, password}}
	p.http.Timeout = time.Minute
	p.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path+".sock")
	}, DisableKeepAlives: true} // no descriptor while nothing is asked
	return p, took, nil
}

// end stops a child before the others.
func (s *site) end(c *child) error {
	s.children = slices.DeleteFunc(s.children, func(other *child) bool { return other == c })
	return c.stop()
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

// fill makes the pools open all they may.
func (p *scaledProxy) fill(sc *scale) error {
	l, err := newLoad(p.at, sc.clients(max(together, 2*sc.backends*sc.maxOpen), false))
	if err != nil {
		return err
	}
	defer l.close()
	_, err = l.run(0, sc.duration, func() error { return nil })
	return err
}

func (p *scaledProxy) ask(method, path string) ([]byte, error) {
	request, err := http.NewRequest(method, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := p.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return body, err
}

// giveBack has the proxy give memory that it does not need back to the system,
// which Go would do little by little within minutes: that is what it does after
// the check of an ARGON2ID hash. The password is wrong, because right ones are
// remembered, and the address another one, because wrong ones are, too.
func (p *scaledProxy) giveBack() error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: startTimeout}
	conn, err := d.Dial("tcp", p.at.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(startTimeout))
	wrong := base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00not the " + password))
	if _, err := fmt.Fprintf(conn, "%sPLAIN\t%s\n", version, wrong); err != nil {
		return err
	}
	text, err := io.ReadAll(conn)
	if err == nil && !bytes.HasSuffix(text, []byte("-\n-\n")) {
		err = fmt.Errorf("a wrong password is answered with %q", text)
	}
	return err
}

// look returns what the proxy has when it has collected its garbage.
func (p *scaledProxy) look() (state, error) {
	// What a sync.Pool holds needs two collections.
	for range 2 {
		if _, err := p.ask("GET", "/debug/pprof/heap?gc=1"); err != nil {
			return state{}, err
		}
	}
	if err := p.giveBack(); err != nil {
		return state{}, err
	}
	text, err := p.ask("GET", "/metrics")
	if err != nil {
		return state{}, err
	}
	var st state
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "go_memstats_heap_inuse_bytes" && name != "go_memstats_stack_inuse_bytes" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return st, err
		}
		st.inUse += int64(n)
	}
	if st.inUse == 0 {
		return st, errors.New("the metrics say nothing of the memory in use")
	}
	if st.files, err = p.files(); err != nil {
		return st, err
	}
	st.memory, err = readMemory(p.pid())
	return st, err
}

// profile puts one of Go's profiles into a file.
func (p *scaledProxy) profile(what, path string) error {
	profile, err := p.ask("GET", "/debug/pprof/"+what)
	if err != nil {
		return err
	}
	return os.WriteFile(path, profile, 0o644)
}

func (p *scaledProxy) files() (int, error) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid()))
	return len(fds), err
}

// waitFiles waits until the proxy has no more than n files open.
func (p *scaledProxy) waitFiles(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		got, err := p.files()
		if err != nil || got <= n {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the proxy still has %d files open, and should have %d when its pools have closed what they do not need: %w", got, n, ctx.Err())
		}
	}
}

// idle returns how many processors the proxy keeps busy while nobody asks.
func (p *scaledProxy) idle(ctx context.Context, d time.Duration) (float64, error) {
	time.Sleep(d / 5) // what was done before has to be ended
	before, err := cpuTime(p.pid())
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := cpuTime(p.pid())
	return float64(after-before) / float64(d), err
}

// scrapes looks at the metrics as Prometheus does.
func (p *scaledProxy) scrapes(g *grown) error {
	before, err := cpuTime(p.pid())
	if err != nil {
		return err
	}
	for range g.rounds {
		begin := time.Now()
		text, err := p.ask("GET", "/metrics")
		if err != nil {
			return err
		}
		g.scrape = append(g.scrape, float64(time.Since(begin))/float64(time.Millisecond))
		g.scrapeBytes = len(text)
	}
	after, err := cpuTime(p.pid())
	g.scrapeCPU = (after - before) / time.Duration(g.rounds)
	return err
}

// reloads has the proxy read its configuration again, in which nothing has
// changed.
func (p *scaledProxy) reloads(ctx context.Context, g *grown) error {
	for range g.rounds {
		begin := time.Now()
		text, err := p.ask("POST", "/v1/reload")
		if err != nil {
			return err
		}
		var result struct {
			OK       bool
			Error    string
			Problems json.RawMessage
		}
		if err := json.Unmarshal(text, &result); err != nil {
			return err
		}
		if !result.OK {
			return fmt.Errorf("reload: %s %s", result.Error, result.Problems)
		}
		g.reload = append(g.reload, float64(time.Since(begin))/float64(time.Millisecond))
	}
	return ctx.Err()
}

// changes gives the proxy other maps, by renaming: one while it has nothing to
// do, and one beside commands.
func (p *scaledProxy) changes(ctx context.Context, g *grown, path string, l *load) error {
	replace := func() (time.Duration, error) {
		said, err := os.Open(p.child.output)
		if err != nil {
			return 0, err
		}
		defer said.Close()
		if _, err := said.Seek(0, io.SeekEnd); err != nil {
			return 0, err
		}
		begin := time.Now()
		if err := os.Rename(path+".new", path); err != nil {
			return 0, err
		}
		err = waitForLine(ctx, said, "the map has changed")
		return time.Since(begin), err
	}
	prepare := func(users int) error {
		_, err := writeMap(path+".new", users, g.backends)
		return err
	}
	if err := prepare(g.users + 1); err != nil {
		return err
	}
	// VmHWM begins again.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid()), []byte("5"), 0); err != nil {
		return err
	}
	var err error
	if g.changed, err = replace(); err != nil {
		return err
	}
	if err := prepare(g.users + 2); err != nil {
		return err
	}
	l.together = together
	type result struct {
		took time.Duration
		err  error
	}
	replaced := make(chan result, 1)
	d, err := l.run(0, g.duration+3*g.changed, func() error {
		go func() {
			took, err := replace()
			replaced <- result{took, err}
		}()
		return nil
	})
	if err != nil {
		return err
	}
	r := <-replaced
	g.changedBeside, g.changedLongest = r.took, d.longest
	m, err := readMemory(p.pid())
	g.changedPeak = m.highest
	return errors.Join(r.err, err)
}

// waitForLine waits until a file that grows has a text in what is new.
func waitForLine(ctx context.Context, file io.Reader, text string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	buf := make([]byte, 256<<10)
	keep := 0
	for {
		n, err := file.Read(buf[keep:])
		if bytes.Contains(buf[:keep+n], []byte(text)) {
			return nil
		}
		// The text may stand across two reads.
		keep = copy(buf, buf[max(0, keep+n-len(text)+1):keep+n])
		if err != nil && err != io.EOF {
			return err
		}
		if n > 0 {
			continue
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not say %q: %w", text, ctx.Err())
		}
	}
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
