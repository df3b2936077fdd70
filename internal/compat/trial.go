package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// verdict on one case of one client and one backend.
type verdict int

const (
	equal       verdict = iota // the client sees the same either way
	explained                  // it sees exactly what the explanations say
	unexplained                // anything else
	verdicts
)

// trial is one case that one client runs on the two twins.
type trial struct {
	client  *client
	backend dovecot.Version
	cmd     *command // with its placeholders filled
	user    string
	before  string // state of the user's mail

	// directly runs another case on the twin without the proxy.
	directly func(cmd command) observation
}

// finding is what came out of a trial.
type finding struct {
	client       *client
	backend      dovecot.Version
	title        string
	verdict      verdict
	explanations []*explanation // that change what is expected
	report       string         // of what is unexplained
}

// judge compares what a client has seen through the proxy with what it has
// seen without, changed as the explanations say.
func (t *trial) judge(explanations []*explanation, direct, proxied observation) *finding {
	f := &finding{client: t.client, backend: t.backend, title: t.cmd.title}
	want := direct
	for _, e := range explanations {
		if !e.covers(t, direct) {
			continue
		}
		changed := want
		changed.Logs = slices.Clone(want.Logs)
		e.apply(t, &changed)
		if !changed.equal(want) {
			f.explanations = append(f.explanations, e)
			want = changed
		}
	}
	switch {
	case !proxied.equal(want):
		f.verdict = unexplained
		f.report = difference(want, proxied)
	case len(f.explanations) > 0:
		f.verdict = explained
	}
	return f
}

// difference returns the lines in which two observations differ.
func difference(want, got observation) string {
	a, b := textLines(want.String()), textLines(got.String())
	var text strings.Builder
	write := func(mark string, lines, others []string) {
		for _, line := range lines {
			if slices.Contains(others, line) {
				continue
			}
			if len(line) > 1000 {
				line = line[:1000] + "..."
			}
			fmt.Fprintf(&text, "  %s %s\n", mark, line)
		}
	}
	write("-", a, b)
	write("+", b, a)
	if text.Len() == 0 {
		return "  the same lines, not as often or in another order\n"
	}
	return text.String()
}

// bench is where one worker runs trials of one client and one backend.
type bench struct {
	site         *site
	twins        *twins
	client       *client
	explanations []*explanation
	user         string // of the worker
	direct       runner
	proxied      runner
	dirty        bool // the user's mail may differ from the template
	since        time.Time
}

func newBench(s *site, t *twins, c *client, explanations []*explanation, worker int, since time.Time) *bench {
	return &bench{
		site: s, twins: t, client: c, explanations: explanations, user: workerUser(worker), dirty: true, since: since,
		direct: c.connect(s, t.direct.Addr, false), proxied: c.connect(s, t.proxy.addr, true),
	}
}

func (b *bench) close() {
	b.direct.close()
	b.proxied.close()
}

// run runs one case.
func (b *bench) run(ctx context.Context, c *command) (*finding, error) {
	user := c.of(b.user)
	team, err := b.site.teamFile(b.client.version)
	if err != nil {
		return nil, err
	}
	c = c.fill(user, team)
	if c.common != nil && c.common.kind == optionA {
		b.twins.everybody.Lock()
		defer b.twins.everybody.Unlock()
	} else {
		b.twins.everybody.RLock()
		defer b.twins.everybody.RUnlock()
	}
	t := &trial{client: b.client, backend: b.twins.version, cmd: c, user: user}
	if b.dirty && user == b.user {
		if err := b.twins.reset(user); err != nil {
			return nil, err
		}
		b.dirty = false
	}
	stateful := c.changes() && user == b.user && c.many == ""
	if stateful {
		b.dirty = true // should the comparison fail half way
		t.before = b.twins.fresh
	}
	direct := way{b.direct, b.twins.direct, b.twins.direct.Addr}
	proxied := way{b.proxied, b.twins.behind, b.twins.proxy.addr}
	t.directly = func(c command) observation {
		b.dirty = true // one twin only has run it
		return b.normalize(direct, &c, b.observe(ctx, direct, &c, user, false), time.Now())
	}

	var want observation
	switch {
	case c.many != "":
		home := b.site.twins[b.client.version].direct
		direct = way{server: home, addr: home.Addr}
		if want, err = runLocal(ctx, b.client.version, b.site.cliConfig[b.client.version], c); err != nil {
			return nil, err
		}
		want = want.rows()
	case !c.deadly:
		want = b.observe(ctx, direct, c, user, stateful)
	}
	got := b.observe(ctx, proxied, c, user, stateful)
	if c.many != "" {
		got = got.rows()
	}
	if stateful {
		b.dirty = want.State != t.before || got.State != t.before
	}
	now := time.Now()
	t.before = b.normalize(direct, c, observation{State: t.before}, now).State
	return t.judge(b.explanations, b.normalize(direct, c, want, now), b.normalize(proxied, c, got, now)), nil
}

// way is one of the two to a user's mail.
type way struct {
	runner runner
	server *dovecot.Server // that has the mail
	addr   string          // that the client connects to
}

// observe runs a case. That a client could not be run, or got no answer, is
// something to be compared, too.
func (b *bench) observe(ctx context.Context, w way, c *command, user string, stateful bool) observation {
	o, err := w.runner.run(ctx, c, user)
	if err != nil {
		w.runner.close()
		o.Status += fmt.Sprintf(" (%v)", err)
	}
	if stateful {
		if o.State, err = stateOf(home(w.server, user)); err != nil {
			o.State = err.Error()
		}
	}
	return o
}

func (b *bench) normalize(w way, c *command, o observation, now time.Time) observation {
	dir, err := w.server.Version.Inside(w.server.Dir)
	if err != nil {
		panic(err) // the server runs there
	}
	n := &normalizer{addr: w.addr, dir: dir, known: b.twins.known, since: b.since, until: now}
	return n.normalize(b.client, c, o)
}
