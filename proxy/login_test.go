package proxy_test

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// answerTo returns all that a login gets, and how long it took.
func (s *site) answerTo(t *testing.T, name, password string) (string, time.Duration) {
	t.Helper()
	c := s.connect(t)
	must(t, c.send("VERSION\tdoveadm-server\t1\t3\n"))
	start := time.Now()
	must(t, c.send(plain(name, password)), c.tcp.CloseWrite())
	all, err := io.ReadAll(c.in)
	must(t, err)
	return string(all), time.Since(start)
}

// Too many failures of an address: no password is looked at any more, but for
// that of who has logged in from there. The answers are the same in all cases.
func TestLoginDefence(t *testing.T) {
	t.Parallel()
	s, _ := startWith(t, 3, answer, func(c *config.Config) {
		c.LoginDefence = config.LoginDefence{AddressFailures: 5, NameFailures: 100, Recovery: time.Hour}
		other := c.Clients[0]
		other.Name = "other"
		c.Clients = append(c.Clients, other)
	})
	s.login(t, client13).works(t)
	answers := map[string]string{}
	refused := func(what, name, password string) {
		t.Helper()
		got, took := s.answerTo(t, name, password)
		answers[got] = what
		if took < 450*time.Millisecond {
			t.Errorf("%s: refused after %s", what, took)
		}
	}
	refused("known name", clientName, "wrong")
	refused("unknown name", "nobody", "wrong")
	refused("empty password", clientName, "")
	refused("long password", clientName, strings.Repeat("x", 2000))
	refused("hostile name", "x\" peer=192.0.2.99:1 client=\"y\x1b[31m\n", "wrong")
	s.log.wait(t, "[WARN]", "login failed: wrong name or password", `client="\"x`)
	if got := s.Logins(); got != (proxy.LoginStat{Verified: 1, Wrong: 5}) {
		t.Errorf("before: %+v", got)
	}
	refused("penalty", "other", clientPassword)
	refused("penalty of an unknown name", "nobody", "wrong")
	refused("penalty with a wrong password", clientName, "wrong")
	s.log.wait(t, "[WARN]", "login refused: too many failed logins from this address", "client=other", "peer=127.0.0.1:", "others_meanwhile=0")
	if n := len(s.log.lines("login refused")); n != 1 {
		t.Errorf("%d lines of three refusals within a minute", n)
	}
	if len(answers) != 1 {
		t.Errorf("answers differ: %q", answers)
	}
	s.login(t, client13).works(t)
	if got := s.Logins(); got != (proxy.LoginStat{Verified: 2, Wrong: 5, Penalized: 3}) {
		t.Errorf("after: %+v", got)
	}

	s.cfg.LoginDefence.AddressFailures = 0
	must(t, s.Reload(s.cfg))
	if !s.loginOther(t) {
		t.Error("the penalty outlives its configuration")
	}
}

func (s *site) loginOther(t *testing.T) bool {
	t.Helper()
	return s.connect(t).loginWith("other", clientPassword, client13) == nil
}

// Many guesses at once gain nothing.
func TestParallelGuesses(t *testing.T) {
	const limit = 6
	s, _ := startWith(t, 3, answer, func(c *config.Config) {
		c.LoginDefence = config.LoginDefence{AddressFailures: limit, NameFailures: 100, Recovery: time.Hour}
	})
	s.login(t, client13)
	var guesses sync.WaitGroup
	for i := range 60 {
		guesses.Go(func() { s.answerTo(t, []string{clientName, "nobody"}[i%2], "wrong") })
	}
	guesses.Wait()
	if got := s.Logins(); got.Wrong != limit || got.Penalized != 60-limit {
		t.Errorf("%+v", got)
	}
}
