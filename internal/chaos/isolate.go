package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

const (
	isolateRound   = 10 * time.Second // half of it without, half with a stopped backend
	isolateClients = 3                // of each backend; one of them connects for each command
	isolateEvery   = 40 * time.Millisecond
	// isolateReply is timeouts.reply and the other timeouts of the backends.
	isolateReply = time.Second
)

var isolateTemplate = template.Must(template.New("config").Parse(`
log { level = "info" }
listener "main" { address = "{{.Addr}}" }
client "doveadm" { password = "{PLAIN}{{.Password}}" }
backend_defaults {
  breaker {
    failures = 5
    open     = "2s"
  }
  timeouts {
    connect   = "{{.Reply}}"
    handshake = "{{.Reply}}"
    reply     = "{{.Reply}}"
  }
}
{{range .Servers}}
shard "{{.Name}}" {
  backend "{{.Name}}" {
    address  = "{{.Addr}}"
    password = "{{.Password}}"
  }
}
route "match" {
  users = ["*-{{.Name}}"]
  shard = "{{.Name}}"
}
{{end}}`))

// sample is one command of the measurement.
type sample struct {
	server int
	sent   time.Time
	took   time.Duration
	failed bool
	why    string
}

// isolation measures what three backends notice when the fourth is stopped.
type isolation struct {
	options
	servers []*dovecot.Server
	daemon  *daemon
	addr    string
	dir     string

	mu      sync.Mutex // guards samples
	samples []sample
}

// runIsolated stops one of four backends again and again and reports how long
// commands took meanwhile, and in between. It returns whether the others kept
// their times.
func runIsolated(ctx context.Context, o options, out io.Writer) (ok bool, err error) {
	i := &isolation{options: o}
	defer func() { err = errors.Join(err, i.close()) }()
	if err := i.start(ctx); err != nil {
		return false, err
	}
	load, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for n, s := range i.servers {
		for c := range isolateClients {
			wg.Go(func() { i.work(load, n, s.Users[c], c > 0) })
		}
	}
	pause(ctx, time.Second) // everybody is connected
	var stopped []span
	var before []span
	rounds := max(1, int(o.length/isolateRound))
	phase := o.length / time.Duration(2*rounds)
	for range rounds {
		before = append(before, i.watch(ctx, phase))
		victim := i.servers[len(i.servers)-1]
		if err := victim.Signal(syscall.SIGSTOP); err != nil {
			return false, err
		}
		stopped = append(stopped, i.watch(ctx, phase))
		if err := victim.Signal(syscall.SIGCONT); err != nil {
			return false, err
		}
		i.backAgain(ctx, time.Now())
	}
	stop()
	wg.Wait()
	if ctx.Err() != nil {
		return false, errors.New("interrupted")
	}
	return i.report(out, before, stopped)
}

// backAgain returns when a command sent after t has succeeded at the backend
// that was stopped.
func (i *isolation) backAgain(ctx context.Context, t time.Time) {
	for ctx.Err() == nil {
		i.mu.Lock()
		back := slices.ContainsFunc(i.samples, func(s sample) bool {
			return s.server == len(i.servers)-1 && s.sent.After(t) && !s.failed
		})
		i.mu.Unlock()
		if back {
			return
		}
		pause(ctx, 50*time.Millisecond)
	}
}

// span is a phase of the measurement.
type span struct{ from, to time.Time }

func (s span) has(t time.Time) bool { return !t.Before(s.from) && t.Before(s.to) }

func (i *isolation) watch(ctx context.Context, d time.Duration) span {
	from := time.Now()
	pause(ctx, d)
	return span{from, time.Now()}
}

func (i *isolation) start(ctx context.Context) error {
	var err error
	if i.dir, err = os.MkdirTemp("/tmp", "chaos-"); err != nil {
		return err
	}
	for n := range 4 {
		o := dovecot.Options{Name: fmt.Sprintf("mail%d", n+1)}
		for c := range isolateClients {
			o.Users = append(o.Users, fmt.Sprintf("u%d-%s", c+1, o.Name))
		}
		s, err := dovecot.Start(ctx, o)
		if err != nil {
			return err
		}
		i.servers = append(i.servers, s)
		if err := s.Seed(1); err != nil {
			return err
		}
	}
	i.daemon = &daemon{binary: absolute(i.binary), config: filepath.Join(i.dir, "proxy.hcl"), log: filepath.Join(i.dir, "proxy.log")}
	if i.addr, err = i.daemon.listen("main"); err != nil {
		return err
	}
	var config strings.Builder
	err = isolateTemplate.Execute(&config, map[string]any{
		"Addr": i.addr, "Password": clientPassword, "Reply": isolateReply, "Servers": i.servers,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(i.daemon.config, []byte(config.String()), 0o600); err != nil {
		return err
	}
	return i.daemon.start(ctx)
}

func (i *isolation) close() error {
	var errs []error
	if i.daemon != nil {
		errs = append(errs, i.daemon.end(syscall.SIGTERM), i.daemon.close())
	}
	for _, s := range i.servers {
		s.Signal(syscall.SIGCONT)
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(i.dir))...)
}

// work sends a command every isolateEvery, or when the one before is done.
func (i *isolation) work(ctx context.Context, server int, user string, keep bool) {
	var (
		conn *doveadm.ClientConn
		why  string
	)
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	ticker := time.NewTicker(isolateEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s := sample{server: server, sent: time.Now()}
		why = ""
		var err error
		if conn == nil {
			conn, err = doveadm.Dial(ctx, i.addr, doveadm.ClientOptions{
				Password: clientPassword, Minor: doveadm.MinorSTARTTLS,
				OnLog: func(_ doveadm.LogLevel, text string) { why = text },
			})
		}
		if err == nil {
			var reply *doveadm.Reply
			if reply, err = conn.Do(ctx, &doveadm.Command{User: user, Name: "mailbox list"}); err == nil {
				err = reply.Close()
			}
		}
		s.took, s.failed = time.Since(s.sent), err != nil
		if s.why = why; err != nil && why == "" {
			s.why = err.Error()
		}
		if ctx.Err() != nil {
			return
		}
		i.mu.Lock()
		i.samples = append(i.samples, s)
		i.mu.Unlock()
		var answered *doveadm.StatusError
		if conn != nil && (!keep || err != nil && !errors.As(err, &answered)) {
			conn.Close()
			conn = nil
		}
	}
}

// openText is what the proxy says when the breaker is open.
const openText = "circuit breaker is open"

func (i *isolation) report(out io.Writer, before, stopped []span) (ok bool, err error) {
	victim := len(i.servers) - 1
	pick := func(spans []span, want func(s *sample) bool) (took []time.Duration, n int) {
		for _, s := range i.samples {
			if slices.ContainsFunc(spans, func(p span) bool { return p.has(s.sent) }) && want(&s) {
				took = append(took, s.took)
				if s.failed {
					n++
				}
			}
		}
		slices.Sort(took)
		return took, n
	}
	others := func(s *sample) bool { return s.server != victim }
	fmt.Fprintf(out, "the other three backends\n%-10s %8s %8s %12s %12s\n", "round", "commands", "failed", "p50", "p99")
	failures := 0
	row := func(name string, spans []span) (p99 time.Duration) {
		took, failed := pick(spans, others)
		failures += failed
		p99 = percentile(took, 99)
		fmt.Fprintf(out, "%-10s %8d %8d %12s %12s\n", name, len(took), failed, fine(percentile(took, 50)), fine(p99))
		return p99
	}
	for n := range before {
		row(fmt.Sprintf("%d before", n+1), before[n:n+1])
		row(fmt.Sprintf("%d stopped", n+1), stopped[n:n+1])
	}
	failures = 0
	healthy, meanwhile := row("before", before), row("stopped", stopped)
	ratio := float64(meanwhile) / float64(max(healthy, 1))
	fmt.Fprintf(out, "p99 stopped/before %.2f (at most %.2f)\n\n", ratio, i.ratio)

	v := verdictOn{}
	for _, p := range stopped {
		if !v.add(p, i.samples, victim) {
			return false, errors.New("the breaker has not opened within a phase: give it a longer -time")
		}
	}
	slices.Sort(v.tried)
	slices.Sort(v.refused)
	own, err := i.ownTimes()
	if err != nil {
		return false, err
	}
	fmt.Fprintf(out, "the stopped backend\n")
	fmt.Fprintf(out, "until its breaker opened: %s at most after the stop (timeouts.reply is %s)\n", fine(v.opened), isolateReply)
	fmt.Fprintf(out, "commands that tried it, or waited when it opened: %d, p50 %s, longest %s\n",
		len(v.tried), fine(percentile(v.tried, 50)), fine(percentile(v.tried, 100)))
	fmt.Fprintf(out, "commands sent behind the open breaker: %d, at the client p50 %s, p99 %s, longest %s\n",
		len(v.refused), fine(percentile(v.refused, 50)), fine(percentile(v.refused, 99)), fine(percentile(v.refused, 100)))
	fmt.Fprintf(out, "all that it refused, in the proxy alone (its log): %d, p50 %s, p99 %s (p99 below %s)\n",
		len(own), fine(percentile(own, 50)), fine(percentile(own, 99)), i.fast)
	if len(own) == 0 || percentile(own, 99) >= i.fast {
		fmt.Fprintln(out, "FAILED: commands behind an open breaker are slow")
		return false, nil
	}
	if v.succeeded > 0 || failures > 0 {
		fmt.Fprintf(out, "FAILED: %d commands of the others failed, %d at the stopped backend succeeded\n", failures, v.succeeded)
		return false, nil
	}
	if ratio > i.ratio {
		fmt.Fprintf(out, "FAILED: the others are slower than they may be\n")
		return false, nil
	}
	fmt.Fprintln(out, "nobody else notices")
	return true, nil
}

// verdictOn is what became of the commands for a stopped backend.
type verdictOn struct {
	succeeded      int
	opened         time.Duration // from the stop to the first answer of an open breaker, the longest
	tried, refused []time.Duration
}

// add takes the commands of a phase. It reports false if no breaker opened.
func (v *verdictOn) add(p span, samples []sample, victim int) bool {
	var these []sample
	for _, s := range samples {
		// What ended later may have been answered by the backend that went on.
		if s.server == victim && p.has(s.sent) && s.sent.Add(s.took).Before(p.to) {
			these = append(these, s)
		}
	}
	var first time.Time
	for _, s := range these {
		if at := s.sent.Add(s.took); strings.Contains(s.why, openText) && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	for _, s := range these {
		switch {
		case !s.failed && s.sent.Add(s.took).After(p.from.Add(isolateEvery)):
			v.succeeded++
		case !s.failed: // answered as it was stopped
		case strings.Contains(s.why, openText) && s.sent.After(first):
			v.refused = append(v.refused, s.took)
		default:
			v.tried = append(v.tried, s.took)
		}
	}
	v.opened = max(v.opened, first.Sub(p.from))
	return !first.IsZero()
}

var ownTime = regexp.MustCompile(`duration_ms=([0-9.]+) .*` + openText)

// ownTimes returns, sorted, how long the proxy itself took for commands behind an
// open breaker.
func (i *isolation) ownTimes() ([]time.Duration, error) {
	text, err := os.ReadFile(i.daemon.log)
	if err != nil {
		return nil, err
	}
	return refusals(string(text))
}

// refusals returns how long commands took that an open breaker refused, by the
// lines of a proxy's log. Those that waited already when it opened are left out.
func refusals(text string) (times []time.Duration, err error) {
	var opened time.Time
	for line := range strings.Lines(text) {
		stamp, _, _ := strings.Cut(line, " ")
		if strings.Contains(line, "circuit breaker opened") {
			if opened, err = time.Parse(logTime, stamp); err != nil {
				return nil, err
			}
			continue
		}
		found := ownTime.FindStringSubmatch(line)
		if found == nil {
			continue
		}
		at, err := time.Parse(logTime, stamp)
		if err != nil {
			return nil, err
		}
		ms, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			return nil, err
		}
		if took := time.Duration(ms * float64(time.Millisecond)); !at.Add(-took).Before(opened) {
			times = append(times, took)
		}
	}
	slices.Sort(times)
	return times, nil
}

// logTime is the form of times in the log: that of hclog.
const logTime = "2006-01-02T15:04:05.000Z0700"

// percentile returns that of sorted values; 100 is the largest.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

func fine(d time.Duration) string { return d.Round(10 * time.Microsecond).String() }
