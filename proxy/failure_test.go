package proxy_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// pair is a version of a client with a version of a backend.
type pair struct {
	client  clientKind
	backend doveadm.Minor
}

func (p pair) String() string {
	return fmt.Sprintf("client %s backend 1.%d", p.client.name, p.backend)
}

// pairs runs test with every version of a client and of a backend.
func pairs(t *testing.T, test func(t *testing.T, p pair)) {
	for _, k := range clientKinds {
		for _, m := range minors {
			p := pair{k, m}
			t.Run(p.String(), func(t *testing.T) {
				t.Parallel()
				test(t, p)
			})
		}
	}
}

// some runs test with every version of a client and every version of a backend,
// where each side's own version matters and not the other's: with some of the
// pairs, those without frames on one side only among them.
func some(t *testing.T, test func(t *testing.T, p pair)) {
	for i, k := range clientKinds {
		for _, m := range []doveadm.Minor{minors[i%len(minors)], minors[(i+3)%len(minors)]} {
			p := pair{k, m}
			t.Run(p.String(), func(t *testing.T) {
				t.Parallel()
				test(t, p)
			})
		}
	}
}

// kinds runs test with every version of a client, where that of the backend
// does not matter: nothing is sent to it.
func kinds(t *testing.T, test func(t *testing.T, p pair)) {
	for _, k := range clientKinds {
		t.Run("client "+k.name, func(t *testing.T) {
			t.Parallel()
			test(t, pair{k, doveadm.MaxMinor})
		})
	}
}

// TestWhatAClientSees has a subtest for each line of the table of what a client
// sees when things go wrong, which begins with the words of the line.
func TestWhatAClientSees(t *testing.T) {
	type test = func(t *testing.T, p pair)
	for _, line := range []struct {
		event string
		with  func(t *testing.T, test test)
		test  test
	}{
		{"unknown command", some, unknownCommand},
		{"command or argument not allowed", kinds, notAllowed},
		{"no shard for the user", kinds, noShard},
		{"no shard for the user: no user name, and more than one shard", kinds, noUserName},
		{"route lookup failed", kinds, lookupFailed},
		{"route lookup failed: breaker open", kinds, lookupBreaker},
		{"route lookup failed: an answer of before is there", kinds, lookupStale},
		{"route lookup failed: the rights of the client ask for the shard", kinds, lookupForRights},
		{"breaker open", kinds, breakerOpen},
		{"no connection in time", kinds, noConnectionInTime},
		{"no connection in time: too many wait", kinds, tooManyWait},
		{"dial to the backend failed", kinds, dialFailed},
		{"dial to the backend failed: failover", kinds, failover},
		{"login to the backend failed", some, backendLoginFailed},
		{"login to the backend failed: no doveadm server", kinds, notADoveadmServer},
		{"TLS to the backend failed", kinds, backendTLSFailed},
		{"connected, but the backend never greets", some, neverGreets},
		{"backend closed before any reply byte, on a reused connection, command may be repeated", some, repeated},
		{"backend closed before any reply byte, on a reused connection, command may be repeated: once", some, repeatedOnce},
		{"backend closed before any reply byte otherwise: must not be repeated", some, notRepeated},
		{"backend closed before any reply byte otherwise: on a fresh connection", some, closedFresh},
		{"backend gone in the middle of a reply", some, goneInTheMiddle},
		{"backend gone in the middle of a reply: columns unknown", some, goneColumnsUnknown},
		{"backend gone in the middle of a reply: silent for longer than the timeouts of the command", some, silentTooLong},
		{"backend gone in the middle of a reply: slower than the timeout of the whole command", some, slowerThanTheCommand},
		{"backend closed before any reply byte, on a reused connection, command may be repeated: within the budget", kinds, retryBudget},
		{"-REFERRAL from a backend", some, referral},
		{"client gone in the middle: close", some, func(t *testing.T, p pair) { clientGone(t, p, func(c *client) { c.nc.Close() }) }},
		{"client gone in the middle: reset", some, func(t *testing.T, p pair) { clientGone(t, p, (*client).reset) }},
	} {
		t.Run(line.event, func(t *testing.T) { line.with(t, line.test) })
	}
	for _, line := range []struct {
		event string
		test  func(t *testing.T)
	}{
		{"bad greeting", badGreeting},
		{"bad login", badLogin},
		{"line too long, too few fields, unknown flag", badLine},
		{"reload with a bad file", badReload},
	} {
		t.Run(line.event, line.test)
	}
}

// misfits opens a connection for each of what is sent, all at once, and checks
// what each gets and what the log says about it.
func (s *site) misfits(t *testing.T, tests map[string]struct{ sent, logged string }, want string) {
	begin := time.Now()
	conns := make(map[string]*client)
	for name, tc := range tests {
		conns[name] = s.connect(t)
		must(t, conns[name].send(tc.sent))
	}
	for name, c := range conns {
		if got := c.ended(t); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		s.log.wait(t, "[WARN]", "peer="+c.nc.LocalAddr().String()+" ", tests[name].logged)
	}
	if took := time.Since(begin); took < 400*time.Millisecond {
		t.Errorf("refused after %v, which lets a guesser learn fast", took)
	}
}

func badReload(t *testing.T) {
	h, arrived, leave := hold(answer)
	s, srv := startWith(t, 3, h, nil)
	busy := s.login(t, client13)
	must(t, busy.send("\talice\tquota get\n"))
	<-arrived
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	free := unused(t)
	for name, bad := range map[string]struct {
		change func(c *config.Config)
		cause  []string
	}{
		"password": {func(c *config.Config) { c.Clients[0].Password = config.NewSecret("{NO-SUCH}x") }, []string{`client "panel"`, "no known password scheme"}},
		"route":    {func(c *config.Config) { c.Routes[0].Shard = "s9" }, []string{"route match #1", "s9"}},
		"map file": {func(c *config.Config) {
			c.Routes = []config.Route{{Kind: "file", Path: "/no/such/file"}}
		}, []string{"/no/such/file", "no such file"}},
		"both": {func(c *config.Config) {
			c.Clients[0].Password = config.NewSecret("{NO-SUCH}x")
			c.Routes[0].Shard = "s9"
		}, []string{`client "panel"`, "route match #1"}},
		"listener": {func(c *config.Config) {
			c.Listeners = append(c.Listeners,
				config.Listener{Name: "free", Network: "tcp", Address: free},
				config.Listener{Name: "taken", Network: "tcp", Address: taken.Addr().String()})
		}, []string{`listener "taken"`, "address already in use"}},
	} {
		err := s.Reload(configure(t, both(bad.change, func(c *config.Config) { first(c).Pool.MaxOpen = 1 }), srv.Addr()))
		if err == nil {
			t.Errorf("%s: reloaded", name)
			continue
		}
		for _, word := range bad.cause {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want it to say %q", name, err, word)
			}
		}
	}
	if addr := s.Addr("free"); addr != nil {
		t.Errorf("a new listener is open: %v", addr)
	}
	if nc, err := net.Dial("tcp", free); err == nil {
		nc.Close()
		t.Error("a new listener is open")
	}
	close(leave)
	if r, err := busy.reply(); err != nil || r.status != "+" {
		t.Errorf("the running command: %q, %v", r, err)
	}
	busy.works(t)
	if r := s.login(t, client13).works(t); r.output != "alice\t1\t" {
		t.Errorf("not the connection of before: %q", r.output)
	}
	if err := s.Reload(s.cfg); err != nil {
		t.Error(err)
	}
}
