package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// workers are as many as cases run at the same time, each with a user of its
// own on every backend.
const workers = 8

func workerUser(n int) string { return fmt.Sprintf("user%d", n+1) }

// job is one case to be run by one client with one backend.
type job struct {
	client  client
	backend dovecot.Version
	cmd     *command
}

// String is the name of the job.
func (j job) String() string {
	return fmt.Sprintf("%s on Dovecot %s: %s", j.client, j.backend, j.cmd.title)
}

// runJobs runs all jobs and hands each finding to found, one at a time. What
// is wrong with the test itself ends it with an error.
func runJobs(ctx context.Context, s *site, jobs []job, explanations []*explanation, found func(finding)) error {
	since := time.Now()
	queue := make(chan job)
	group, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex // held while found runs
	for n := range workers {
		group.Go(func() error {
			w := &worker{
				site: s, explanations: explanations, user: workerUser(n), since: since,
				dirty: map[dovecot.Version]bool{}, runners: map[endpoint]runner{},
			}
			defer w.close()
			for j := range queue {
				f, err := w.run(ctx, j)
				if err != nil {
					return fmt.Errorf("%s: %w", j, err)
				}
				mu.Lock()
				found(f)
				mu.Unlock()
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		for _, j := range jobs {
			select {
			case queue <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}

// worker runs one case after the other.
type worker struct {
	site         *site
	explanations []*explanation
	user         string
	since        time.Time
	dirty        map[dovecot.Version]bool // the user's mail may differ from the template
	runners      map[endpoint]runner
}

// endpoint is an address that a client connects to.
type endpoint struct {
	client client
	addr   string
}

func (w *worker) close() {
	for _, r := range w.runners {
		r.close()
	}
}

// way is one of the two from a client to a user's mail.
type way struct {
	client client
	server *dovecot.Server // that has the mail
	addr   string          // that the client connects to
	known  map[string]bool // random numbers that are the same both ways
}

// run runs one case both ways.
func (w *worker) run(ctx context.Context, j job) (finding, error) {
	pair := w.site.twins[j.backend]
	direct := way{j.client, pair.direct, pair.direct.Addr, pair.known}
	proxied := way{j.client, pair.behind, pair.proxy.addr, pair.known}
	for e, r := range w.runners {
		if e.client != j.client { // Dovecot has 100 connections for all
			r.close()
			delete(w.runners, e)
		}
	}
	user := j.cmd.of(w.user)
	team := ""
	if !j.client.raw {
		team = w.site.teamFile(j.client.version)
	}
	c := j.cmd.fill(user, team)
	defer w.site.reserve(j, c)()
	if c.reachesEverybody() {
		for _, version := range j.reaches(c) {
			for n := range workers {
				if err := w.site.twins[version].reset(workerUser(n)); err != nil {
					return finding{}, err
				}
			}
		}
	}
	if user == w.user {
		if dirty, used := w.dirty[j.backend]; dirty || !used {
			if err := pair.reset(user); err != nil {
				return finding{}, err
			}
		}
		w.dirty[j.backend] = c.changes() // until it is known
	}
	t := &trial{client: j.client, backend: j.backend, cmd: c, user: user}
	t.directly = func(c command) observation {
		w.dirty[j.backend] = true // only one of the twins has run it
		return w.normalize(direct, &c, w.observe(ctx, direct, &c, user), time.Now())
	}

	var want, got observation
	if c.many != "" {
		// What the administrator of a server sees at home is right. Directly
		// the versions disagree about who has to print the user names.
		direct.server = w.site.twins[j.client.version].direct
		var err error
		if want, err = runLocal(ctx, j.client.version, w.site.cliConfig(j.client.version), c); err != nil {
			return finding{}, err
		}
		got = w.observe(ctx, proxied, c, user)
		want, got = want.rows(), got.rows()
	} else {
		if !c.deadly {
			want = w.observe(ctx, direct, c, user)
		}
		got = w.observe(ctx, proxied, c, user)
	}
	if user == w.user && c.changes() {
		var err error
		if want.State, got.State, err = pair.states(user); err != nil {
			return finding{}, err
		}
		t.before = pair.fresh
		w.dirty[j.backend] = want.State != t.before || got.State != t.before
		if c.deadly {
			want.State = t.before
		}
	}
	if err := ctx.Err(); err != nil {
		return finding{}, err
	}
	now := time.Now()
	t.before = w.normalize(direct, c, observation{State: t.before}, now).State
	return t.judge(w.explanations, w.normalize(direct, c, want, now), w.normalize(proxied, c, got, now)), nil
}

// reaches returns the versions of the servers that a job needs, the oldest first.
func (j job) reaches(c *command) []dovecot.Version {
	return slices.DeleteFunc(dovecot.Versions(), func(v dovecot.Version) bool {
		return v != j.backend && (c.many == "" || v != j.client.version)
	})
}

// reserve waits until the mail that a job reaches is not what another one works
// on, and returns what ends that.
func (s *site) reserve(j job, c *command) (release func()) {
	var releases []func()
	for _, version := range j.reaches(c) {
		lock := &s.twins[version].everybody
		if c.reachesEverybody() {
			lock.Lock()
			releases = append(releases, lock.Unlock)
		} else {
			lock.RLock()
			releases = append(releases, lock.RUnlock)
		}
	}
	return func() {
		for _, release := range releases {
			release()
		}
	}
}

// observe runs a case one way. That a client could not be run, or got no
// answer, is something to be compared, too.
func (w *worker) observe(ctx context.Context, y way, c *command, user string) observation {
	e := endpoint{y.client, y.addr}
	r := w.runners[e]
	if r == nil {
		r = y.client.connect(w.site, y.addr, y.addr != y.server.Addr)
		w.runners[e] = r
	}
	o, err := r.run(ctx, c.at(inside(y.server)+"/mail/"+user), user)
	if err != nil {
		r.close()
		o.Status += fmt.Sprintf(" (%v)", err)
	}
	return o
}

func (w *worker) normalize(y way, c *command, o observation, now time.Time) observation {
	n := &normalizer{addr: y.addr, dir: inside(y.server), known: y.known, since: w.since, until: now}
	return n.normalize(y.client, c, o)
}
