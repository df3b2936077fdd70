package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
)

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
