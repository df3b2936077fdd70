package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

// view is what an operator sees of an event.
type view struct {
	log    []string // words of one line
	metric string   // that is larger than before
	// status are words of one failure in the answer of /v1/status, or of one
	// backend in that of /v1/backends.
	status []string
}

// TestThreeViews makes each event of the table of what a client sees when things
// go wrong, and looks for its cause in the log, in the metrics and in what
// "status" and "backends" answer: each of them is enough.
func TestThreeViews(t *testing.T) {
	ok := startWith
	refuse := func(c *doveadmtest.Conn, cmd *doveadm.Command) { c.Status("-") }
	closing := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "quota get" {
			answer(c, cmd)
			return
		}
		c.Close()
	}
	half := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		c.Fields("u1", "t1")
		c.Output([]byte("u2"))
		c.Close()
	}
	mute := func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Hang() }
	on := func(h handler, change func(c *config.Config), lines ...string) func(t *testing.T) *site {
		return func(t *testing.T) *site {
			s, _ := ok(t, 4, h, change)
			c := s.login(t, client13)
			for _, line := range lines {
				must(t, c.send(line))
				c.reply()
			}
			return s
		}
	}
	at := func(address func(t *testing.T) string, change func(c *config.Config), lines ...string) func(t *testing.T) *site {
		return func(t *testing.T) *site {
			s := start(t, configure(t, change, address(t)))
			c := s.login(t, client13)
			for _, line := range lines {
				c.run(t, line)
			}
			return s
		}
	}
	raw := func(text string) func(t *testing.T) *site {
		return func(t *testing.T) *site {
			s, _ := ok(t, 4, answer, nil)
			c := s.connect(t)
			must(t, c.send(text))
			c.ended(t)
			return s
		}
	}
	nobody := func(t *testing.T) string { return unused(t) }
	server := func(o doveadmtest.Options) func(t *testing.T) string {
		return func(t *testing.T) string { return doveadmtest.NewServer(t, o).Addr() }
	}
	const quota, fetch = "\talice\tquota get\n", "\talice\tfetch\tuid text\tall\n"
	const hello = "VERSION\tdoveadm-server\t1\t3\n"

	for _, event := range []struct {
		name string
		make func(t *testing.T) *site
		view
	}{
		{"bad greeting", raw("GET / HTTP/1.1\r\n\r\n"), view{
			[]string{"[WARN]", "outcome=protocol", "not a doveadm client"}, `logins_total{result="protocol"}`, []string{`"kind":"login"`, `"what":"protocol"`, "not a doveadm client"},
		}},
		{"bad login", raw(hello + plain(clientName, "wrong")), view{
			[]string{"[WARN]", "outcome=wrong", "client=panel"}, `logins_total{result="wrong"}`, []string{`"kind":"login"`, `"what":"wrong"`, `"client":"panel"`, `"peer":"127.0.0.1:`},
		}},
		{"line too long", raw(hello + plain(clientName, clientPassword) + "\talice\t" + strings.Repeat("x", doveadm.MaxLine)), view{
			[]string{"[WARN]", "outcome=too-long", "1048576 bytes"}, `bad_lines_total{reason="too-long"}`, []string{`"kind":"line"`, `"what":"too-long"`, `"client":"panel"`},
		}},
		{"too few fields", raw(hello + plain(clientName, clientPassword) + "\tquota get\n"), view{
			[]string{"[WARN]", "outcome=no-command", "No command given"}, `bad_lines_total{reason="no-command"}`, []string{`"what":"no-command"`, "No command given"},
		}},
		{"unknown flag", raw(hello + plain(clientName, clientPassword) + "vQ\talice\tquota get\n"), view{
			[]string{"[WARN]", "outcome=unknown-flag", "Unknown flag: Q"}, `bad_lines_total{reason="unknown-flag"}`, []string{`"what":"unknown-flag"`, "Unknown flag: Q"},
		}},
		{"unknown command", on(refuse, nil, "\talice\tno such\n"), view{
			[]string{"[INFO]", `command="no such"`, "outcome=answered", "status=- "}, `replies_total{backend="b1",status="failed"}`, []string{`"kind":"reply"`, `"what":"failed"`, `"command":"no such"`, `"backend":"b1"`},
		}},
		{"command not allowed", on(answer, nil, "\t\treload\n"), view{
			[]string{"[WARN]", "outcome=denied", "status=-NOPERM", "run it there"}, `client_commands_total{client="panel",outcome="denied"}`, []string{`"what":"denied"`, `"status":"-NOPERM"`, `"command":"reload"`, "run it there"},
		}},
		{"no shard for the user", on(answer, nil, "\tbob\tquota get\n"), view{
			[]string{"[INFO]", "outcome=no-user", "user=bob"}, `commands_total{backend="",class="quick",outcome="no-user"}`, []string{`"what":"no-user"`, `"user":"bob"`, "no route names a shard"},
		}},
		{"route lookup failed", at(nobody, func(c *config.Config) {
			c.Routes = []config.Route{{
				Kind: "http", HTTP: config.HTTP{URL: "http://" + first(c).Address + "/%u", Method: "GET", Field: "shard"},
				Lookup: config.Lookup{Timeout: patience, MaxLookups: 1, Breaker: config.Breaker{Failures: 5, Open: time.Minute, Probes: 1}},
			}}
		}, quota), view{
			[]string{"[ERROR]", "outcome=route-error", "connection refused"}, `commands_total{backend="",class="quick",outcome="route-error"}`, []string{`"what":"route-error"`, "connection refused"},
		}},
		{"breaker open", at(nobody, oneFailureOpens, quota, quota), view{
			[]string{"[ERROR]", "outcome=unavailable", "backend=b1", "circuit breaker is open"}, `pool_refused_total{backend="b1",reason="breaker"}`, []string{`"name":"b1"`, `"breaker":"open"`, `"refused_breaker":1`},
		}},
		{"no connection in time", func(t *testing.T) *site {
			h, arrived, leave := hold(answer)
			s, _ := ok(t, 4, h, func(c *config.Config) { first(c).Pool.MaxOpen, first(c).Pool.AcquireTimeout = 1, time.Second })
			must(t, s.login(t, client13).send(quota))
			<-arrived
			s.login(t, client13).run(t, quota)
			close(leave)
			return s
		}, view{
			[]string{"[ERROR]", "outcome=unavailable", "no connection became free in time"}, `pool_refused_total{backend="b1",reason="timeout"}`, []string{`"name":"b1"`, `"refused_timeout":1`},
		}},
		{"too many wait", func(t *testing.T) *site {
			h, arrived, leave := hold(answer)
			s, _ := ok(t, 4, h, func(c *config.Config) { first(c).Pool.MaxOpen, first(c).Pool.MaxWaiting = 1, 0 })
			must(t, s.login(t, client13).send(quota))
			<-arrived
			s.login(t, client13).run(t, quota)
			close(leave)
			return s
		}, view{
			[]string{"[ERROR]", "outcome=unavailable", "too many commands wait"}, `pool_refused_total{backend="b1",reason="queue-full"}`, []string{`"name":"b1"`, `"refused_queue":1`},
		}},
		{"dial to the backend failed", at(nobody, neverOpens, quota), view{
			[]string{"[ERROR]", "outcome=unavailable", "backend=b1", "connection refused"}, `backend_dial_errors_total{backend="b1",cause="connect"}`, []string{`"name":"b1"`, `"connect":1`, "connection refused"},
		}},
		{"failover", func(t *testing.T) *site {
			second := newBackend(t, 4, answer)
			return at(nobody, func(c *config.Config) {
				standby := *first(c)
				standby.Name, standby.Address = "b1-standby", second.Addr()
				c.Shards[0].Backends = append(c.Shards[0].Backends, standby)
			}, quota)(t)
		}, view{
			[]string{"[WARN]", "cannot connect to backend", "backend=b1 ", "connection refused"}, `failovers_total{backend="b1"}`, []string{`"name":"b1"`, `"failovers":1`, "connection refused"},
		}},
		{"login to the backend failed", at(server(doveadmtest.Options{Minor: 4, Password: "another", Handler: answer}), nil, quota), view{
			[]string{"[ERROR]", "outcome=unavailable", "refused the login"}, `backend_dial_errors_total{backend="b1",cause="login"}`, []string{`"name":"b1"`, `"login":`, "refused the login"},
		}},
		{"TLS to the backend failed", func(t *testing.T) *site {
			a, other := newAuthority(t), newAuthority(t)
			srv, toBackend := a.backend(t, config.TLSImplicit, answer)
			return at(func(*testing.T) string { return srv.Addr() }, both(toBackend, func(c *config.Config) { first(c).TLS.CAFile = other.path("ca.crt") }), quota)(t)
		}, view{
			[]string{"[ERROR]", "outcome=unavailable", "TLS: ", "certificate"}, `backend_dial_errors_total{backend="b1",cause="tls"}`, []string{`"name":"b1"`, `"tls":1`, "certificate"},
		}},
		{"connected, but the backend never greets", at(server(doveadmtest.Options{Minor: 4, Connected: (*doveadmtest.Conn).Hang}), func(c *config.Config) { first(c).Timeouts.Handshake = 300 * time.Millisecond }, quota), view{
			[]string{"[ERROR]", "outcome=unavailable", "process_limit"}, `backend_dial_errors_total{backend="b1",cause="no-process"}`, []string{`"name":"b1"`, `"no-process":1`, "process_limit"},
		}},
		{"repeated", on(closes(1), nil, quota, fetch), view{
			[]string{"[INFO]", "command=fetch", "outcome=answered", "retried=true"}, `retries_total{backend="b1"}`, []string{`"name":"b1"`, `"retries":1`},
		}},
		{"closed before any reply byte otherwise", on(closing, nil, fetch), view{
			[]string{"[WARN]", "outcome=unanswered", "backend=b1", "closed the connection without a reply"}, `commands_total{backend="b1",class="normal",outcome="unanswered"}`, []string{`"what":"unanswered"`, `"command":"fetch"`, `"backend":"b1"`, "without a reply"},
		}},
		{"backend gone in the middle of a reply", on(half, nil, fetch), view{
			[]string{"[ERROR]", "outcome=lost", "backend=b1", "in the middle"}, `commands_total{backend="b1",class="normal",outcome="lost"}`, []string{`"what":"lost"`, `"backend":"b1"`, "in the middle"},
		}},
		{"gone in the middle, columns unknown", on(half, nil, "\talice\tno such\n"), view{
			[]string{"[ERROR]", `command="no such"`, "outcome=lost"}, `commands_total{backend="b1",class="normal",outcome="lost"}`, []string{`"what":"lost"`, `"command":"no such"`},
		}},
		{"silent for too long", on(mute, func(c *config.Config) { first(c).Timeouts.Quick.FirstReply = 300 * time.Millisecond }, quota), view{
			[]string{"[ERROR]", "outcome=timeout", "timeouts.quick.first_reply"}, `commands_total{backend="b1",class="quick",outcome="timeout"}`, []string{`"what":"timeout"`, "timeouts.quick.first_reply"},
		}},
		{"-REFERRAL to a foreign server", on(refersTo("192.0.2.1"), nil, quota), view{
			[]string{"[ERROR]", "outcome=referral", "192.0.2.1"}, `commands_total{backend="b1",class="quick",outcome="referral"}`, []string{`"what":"referral"`, "192.0.2.1", `"backend":"b1"`},
		}},
		{"client gone in the middle", func(t *testing.T) *site {
			h, arrived, leave := hold(answer)
			s, _ := ok(t, 4, h, nil)
			c := s.login(t, client13)
			must(t, c.send(quota))
			<-arrived
			c.reset()
			t.Cleanup(func() { close(leave) })
			return s
		}, view{
			[]string{"[INFO]", "outcome=client-gone", "command=\"quota get\""}, `commands_total{backend="b1",class="quick",outcome="client-gone"}`, []string{`"what":"client-gone"`, `"command":"quota get"`, `"client":"panel"`},
		}},
		{"too many commands of the client", on(answer, func(c *config.Config) { c.Clients[0].Rates = config.Rates{Commands: 1, Burst: 1} }, quota, quota, quota), view{
			[]string{"[WARN]", "outcome=over-rate", "client=panel", "rate_limit"}, `client_commands_total{client="panel",outcome="over-rate"}`, []string{`"what":"over-rate"`, `"client":"panel"`, "rate_limit"},
		}},
		{"reload with a bad file", func(t *testing.T) *site {
			s, srv := ok(t, 4, answer, nil)
			err := s.Reload(configure(t, func(c *config.Config) { c.Routes[0].Shard = "s9" }, srv.Addr()))
			if err == nil {
				t.Fatal("reloaded")
			}
			// The daemon logs what Reload returns.
			s.log.logger().Error("reload failed: the old configuration keeps serving", "error", err)
			return s
		}, view{
			[]string{"[ERROR]", "reload failed", "s9"}, `config_reloads_total{result="failed"}`, []string{`"kind":"reload"`, "s9"},
		}},
	} {
		t.Run(event.name, func(t *testing.T) {
			t.Parallel()
			s := event.make(t)
			s.log.wait(t, event.log...)
			eventually(t, event.metric, func() bool { return s.metrics(t)[event.metric] > 0 })
			eventually(t, "status has "+strings.Join(event.status, " "), func() bool {
				for _, one := range s.statusParts(t) {
					found := true
					for _, word := range event.status {
						found = found && strings.Contains(one, word)
					}
					if found {
						return true
					}
				}
				return false
			})
		})
	}
}

// statusParts returns the failures that "status" has and the backends, each as
// JSON.
func (s *site) statusParts(t testing.TB) (parts []string) {
	t.Helper()
	srv, err := admin.Serve(config.Admin{Network: "tcp", Address: "127.0.0.1:0"}, s.Proxy, admin.Options{}, hclog.NewNullLogger())
	must(t, err)
	defer srv.Close(context.Background())
	for path, list := range map[string]string{"/v1/status": "failures", "/v1/backends": "backends"} {
		resp, err := http.Get(fmt.Sprintf("http://%s%s", srv.Addr(), path))
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		must(t, err)
		var all map[string]json.RawMessage
		must(t, json.Unmarshal(body, &all))
		var each []json.RawMessage
		must(t, json.Unmarshal(all[list], &each))
		for _, one := range each {
			parts = append(parts, string(one))
		}
	}
	return parts
}

// TestNothingWentWrong: what TestThreeViews looks for is not there without a
// reason.
func TestNothingWentWrong(t *testing.T) {
	s, _ := startWith(t, 4, answer, nil)
	s.login(t, client13).works(t)
	eventually(t, "the command is counted", func() bool {
		return s.metrics(t)[`commands_total{backend="b1",class="quick",outcome="answered"}`] == 1
	})
	for name, value := range s.metrics(t) {
		for _, bad := range []string{"error", "refused", "retries", "failed", "wrong", "bad_lines", "failovers", "panic", "opened"} {
			if strings.Contains(name, bad) && value != 0 {
				t.Errorf("%s is %v", name, value)
			}
		}
	}
	for _, part := range s.statusParts(t) {
		if !strings.Contains(part, `"name":"b1"`) || strings.Contains(part, "last_error") || strings.Contains(part, "dial_causes") {
			t.Errorf("%s", part)
		}
	}
}
