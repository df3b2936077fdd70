package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// users is a service that knows users, for routes of the kind http.
type users struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(w http.ResponseWriter, user string) // with the lock held
	asked  map[string]int
	held   chan struct{} // requests wait until it is closed; nil: they do not
}

// newUsers starts a service that gives everybody to a shard.
func newUsers(t testing.TB, shard string) *users {
	t.Helper()
	u := &users{asked: make(map[string]int), answer: says(shard)}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := strings.TrimPrefix(r.URL.Path, "/")
		u.mu.Lock()
		u.asked[user]++
		held := u.held
		u.mu.Unlock()
		if held != nil {
			select {
			case <-held:
			case <-r.Context().Done():
			}
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.answer(w, user)
	}))
	t.Cleanup(u.Close)
	return u
}

func says(shard string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, _ string) { fmt.Fprintf(w, `{"shard":%q}`, shard) }
}

func fails(status int) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, _ string) { w.WriteHeader(status) }
}

func (u *users) set(answer func(http.ResponseWriter, string)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = answer
}

// hold makes requests wait until the function that it returns is called.
func (u *users) hold() (release func()) {
	held := make(chan struct{})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held = held
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.held = nil
		close(held)
	}
}

func (u *users) times(user string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked[user]
}

// first makes the service the first route. What fails does so at once, and
// nothing opens the breaker.
func (u *users) first(change func(l *config.Lookup)) func(c *config.Config) {
	return func(c *config.Config) {
		r := config.Route{
			Kind: "http",
			HTTP: config.HTTP{URL: u.URL + "/%u", Method: http.MethodGet, Field: "shard"},
			Lookup: config.Lookup{
				Timeout: patience, MaxLookups: 16,
				Cache:   config.LookupCache{Size: 1000, TTL: time.Hour, NegativeTTL: time.Hour, Stale: time.Hour},
				Breaker: config.Breaker{Failures: 1 << 30, Open: time.Hour, Probes: 1},
			},
		}
		if change != nil {
			change(&r.Lookup)
		}
		c.Routes = append([]config.Route{r}, c.Routes...)
	}
}

func lookupFailed(t *testing.T, p pair) {
	u := newUsers(t, "s1")
	// The routes that follow know alice; they are not asked.
	s, srv := startWith(t, p.backend, answer, u.first(func(l *config.Lookup) { l.Timeout = time.Second; l.Cache = config.LookupCache{} }))
	c := s.login(t, p.client)
	for _, failure := range []struct {
		answer func(http.ResponseWriter, string)
		cause  string
	}{
		{fails(http.StatusServiceUnavailable), "route http: http: status 503"},
		{says("s9"), `route http: the lookup names what is not there: unknown shard "s9"`},
		{func(w http.ResponseWriter, _ string) { fmt.Fprint(w, `{"shard":`) }, "route http: http: the answer is no JSON object"},
	} {
		u.set(failure.answer)
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", failure.cause)
	}
	s.log.wait(t, "[ERROR]", "command:", "outcome=route-error", "status=-TEMPFAIL", "status 503")
	u.set(fails(http.StatusNotFound))
	c.works(t) // of the next route
	release := u.hold()
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "route http: no answer within 1s (timeout)")
	release()
	u.Close()
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "route http: http: dial", "connection refused")
	if got := srv.Accepted(); got != 1 {
		t.Errorf("%d connections to a backend", got)
	}
}

func lookupBreaker(t *testing.T, p pair) {
	u := newUsers(t, "s1")
	s, _ := startWith(t, p.backend, answer, u.first(func(l *config.Lookup) { l.Breaker = config.Breaker{Failures: 2, Open: time.Second, Probes: 1} }))
	c := s.login(t, p.client)
	c.works(t)
	u.set(fails(http.StatusBadGateway))
	for range 2 {
		c.refused(t, "\tbob@s1\tquota get\n", "-TEMPFAIL", "route http: http: status 502")
	}
	for range 3 {
		c.refused(t, "\tbob@s1\tquota get\n", "-TEMPFAIL", "route http: the circuit breaker is open: http: status 502")
	}
	if n := u.times("bob@s1"); n != 2 {
		t.Errorf("asked %d times", n)
	}
	c.works(t) // from the cache
	s.log.wait(t, "[ERROR]", "lookups fail", "route=http", "status 502")
	u.set(says("s1"))
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		r := c.run(t, "\tbob@s1\tquota get\n")
		if r.status == "+" {
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("does not come back: %q", r)
		}
	}
	s.log.wait(t, "[INFO]", "lookups work again", "route=http")
}

func lookupStale(t *testing.T, p pair) {
	u := newUsers(t, "s1")
	s, _ := startWith(t, p.backend, answer, u.first(func(l *config.Lookup) { l.Cache.TTL = time.Nanosecond }))
	c := s.login(t, p.client)
	c.works(t)
	u.set(fails(http.StatusBadGateway))
	c.works(t)
	if n := u.times("alice"); n != 2 {
		t.Errorf("asked %d times", n)
	}
	c.refused(t, "\tbob@s1\tquota get\n", "-TEMPFAIL", "route http: http: status 502")
	u.set(says("s9")) // which is an answer, and a wrong one
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "unknown shard \"s9\"")
}

// lookupForRights: a client that may use one shard only is not refused because
// nobody can tell which shard it is, and the user is looked up once.
func lookupForRights(t *testing.T, p pair) {
	u := newUsers(t, "s1")
	s, _ := startWith(t, p.backend, answer, func(c *config.Config) {
		u.first(func(l *config.Lookup) { l.Cache = config.LookupCache{} })(c)
		c.Clients[0].Allow[0].Shards = []string{"s1"}
	})
	c := s.login(t, p.client)
	for range 3 {
		c.works(t)
	}
	if n := u.times("alice"); n != 3 {
		t.Errorf("three commands asked %d times", n)
	}
	u.set(fails(http.StatusBadGateway))
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "route http: http: status 502")
	s.log.wait(t, "[ERROR]", "command:", "outcome=route-error", "status=-TEMPFAIL")
	u.set(fails(http.StatusNotFound))
	c.refused(t, "\tbob\tquota get\n", "-NOPERM")
}

// TestReloadKeepsLookups: a route that a reload leaves as it is keeps what it
// knows, and one that has changed does not.
func TestReloadKeepsLookups(t *testing.T) {
	t.Parallel()
	u := newUsers(t, "s1")
	srv := newBackend(t, 3, answer)
	cfg := configure(t, u.first(nil), srv.Addr())
	s := start(t, cfg)
	c := s.login(t, client13)
	c.works(t)
	for range 3 {
		next := *cfg
		next.Limits.IdleTimeout += time.Hour
		must(t, s.Reload(&next))
		c.works(t)
	}
	if n := u.times("alice"); n != 1 {
		t.Errorf("asked %d times over reloads that leave the route as it is", n)
	}
	// Those that fail leave it, too.
	bad := *cfg
	bad.Routes = append([]config.Route{bad.Routes[0]}, config.Route{Kind: "match", Match: config.Match{Users: []string{"*"}}, Shard: "s9"})
	if err := s.Reload(&bad); err == nil {
		t.Error("a bad configuration is loaded")
	}
	c.works(t)
	if n := u.times("alice"); n != 1 {
		t.Errorf("asked %d times after a reload that failed", n)
	}
	changed := *cfg
	changed.Routes = append([]config.Route{}, cfg.Routes...)
	changed.Routes[0].HTTP.URL = u.URL + "/v2-%u"
	must(t, s.Reload(&changed))
	c.works(t)
	if n := u.times("v2-alice"); n != 1 {
		t.Errorf("asked %d times after the route has changed", n)
	}
}

// TestReloadDuringLookups: commands that wait for a lookup when its route goes
// away are run, once.
func TestReloadDuringLookups(t *testing.T) {
	t.Parallel()
	u := newUsers(t, "s1")
	srv := newBackend(t, 3, answer)
	cfg := configure(t, u.first(nil), srv.Addr())
	s := start(t, cfg)
	const clients = 8
	var running sync.WaitGroup
	release := u.hold()
	for i := range clients {
		c := s.login(t, client13)
		running.Go(func() {
			for n := range 20 {
				if r := c.run(t, fmt.Sprintf("\tuser%d-%d@s1\tquota get\n", i, n)); r.status != "+" {
					t.Errorf("user%d-%d: %q", i, n, r)
				}
			}
		})
	}
	for i := range clients {
		for u.times(fmt.Sprintf("user%d-0@s1", i)) == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	for i := range 10 {
		next := *cfg
		next.Routes = append([]config.Route{}, cfg.Routes...)
		next.Routes[0].HTTP.URL = u.URL + fmt.Sprintf("/%%u?%s", url.QueryEscape(fmt.Sprint(i)))
		must(t, s.Reload(&next))
		if i == 1 {
			release()
		}
		time.Sleep(10 * time.Millisecond)
	}
	running.Wait()
	if n := len(srv.Commands()); n != clients*20 {
		t.Errorf("the backend ran %d commands of %d", n, clients*20)
	}
}

// TestGoneDuringLookup: a client that goes away while its user is looked up is
// no failure of the route.
func TestGoneDuringLookup(t *testing.T) {
	t.Parallel()
	u := newUsers(t, "s1")
	s, srv := startWith(t, 3, answer, u.first(nil))
	c := s.login(t, client13)
	release := u.hold()
	defer release()
	must(t, c.send("\talice\tquota get\n"))
	for u.times("alice") == 0 {
		time.Sleep(time.Millisecond)
	}
	c.nc.Close()
	s.log.wait(t, "command:", "outcome=client-gone")
	if got := srv.Accepted(); got != 0 {
		t.Errorf("%d connections to a backend", got)
	}
}

// TestValidateOpensNothing: what is checked is not asked, and nothing is left.
func TestValidateOpensNothing(t *testing.T) {
	t.Parallel()
	u := newUsers(t, "s1")
	cfg := configure(t, u.first(nil), "127.0.0.1:1")
	must(t, proxy.Validate(cfg))
	e, err := proxy.NewExplainer(cfg)
	must(t, err)
	defer e.Close()
	x := e.Explain(t.Context(), proxy.Question{Client: clientName, Command: doveadm.Command{User: "alice", Name: "quota get"}})
	if x.Shard != "s1" || x.Route != "http" || u.times("alice") != 1 {
		t.Errorf("explained as %+v, asked %d times", x, u.times("alice"))
	}
}

// TestLookupMetrics: what the lookups of a route do is told: where answers come
// from, how lookups end, and that they fail although the clients notice nothing.
func TestLookupMetrics(t *testing.T) {
	u := newUsers(t, "s1")
	s, _ := startWith(t, 2, answer, u.first(func(l *config.Lookup) {
		l.Cache.TTL, l.Breaker = time.Nanosecond, config.Breaker{Failures: 2, Open: time.Hour, Probes: 1}
	}))
	c := s.login(t, client13)
	is := func(name string, want float64) {
		t.Helper()
		if got, ok := s.metrics(t)[name]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
		}
	}
	is(`route_answers_total{from="lookup",route="http"}`, 0)
	c.works(t) // by a lookup, whose answer is too old at once
	is(`route_answers_total{from="lookup",route="http"}`, 1)
	is(`route_lookups_total{result="found",route="http"}`, 1)
	is(`route_lookup_seconds{route="http"}`, 1)
	is(`route_lookups_failing{route="http"}`, 0)

	u.set(fails(http.StatusServiceUnavailable))
	for range 3 {
		c.works(t) // as before
	}
	is(`route_answers_total{from="stale",route="http"}`, 3)
	is(`route_lookups_total{result="failed",route="http"}`, 2)
	is(`route_lookups_total{result="breaker",route="http"}`, 1)
	is(`route_lookups_failing{route="http"}`, 1)
	is(`route_lookup_breaker_state{route="http"}`, 2)
	c.refused(t, "\tbob\tquota get\n", "-TEMPFAIL", "route http")
	is(`route_answers_total{from="none",route="http"}`, 1)
	if n := s.metrics(t)[`route_cache_users{route="http"}`]; n < 1 {
		t.Errorf("%v users are kept", n)
	}

	kept, _ := startWith(t, 2, answer, u.first(nil))
	u.set(func(w http.ResponseWriter, user string) {
		if user == "alice" {
			says("s1")(w, user)
		} else {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	c = kept.login(t, client13)
	c.works(t)
	c.works(t)
	c.refused(t, "\tnobody\tquota get\n", "-NOUSER", "")
	s = kept
	is(`route_answers_total{from="lookup",route="http"}`, 2)
	is(`route_answers_total{from="cache",route="http"}`, 1)
	is(`route_lookups_total{result="missing",route="http"}`, 1)
}
