package proxy_test

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// refusedPolitely checks that a client of kind k is told why it is not let in,
// where the doveadm command shows it.
func (s *site) refusedPolitely(t *testing.T, k clientKind, reason string) {
	t.Helper()
	c := s.connect(t)
	must(t, c.send(versionLine(k.minor)))
	want := "-doveadm-proxy: " + reason + "\n"
	if k.minor > 0 {
		want = "VERSION\tdoveadm-client\t1\t4\n" + want
	}
	if got := c.ended(t); got != want {
		t.Errorf("client %s: got %q, want %q", k.name, got, want)
	}
	s.log.wait(t, "[WARN]", "connection refused", "peer="+c.nc.LocalAddr().String()+" ", reason)
}

func TestRefusalNamesTheLimit(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) { c.Limits.MaxSessions = 1 })
	one := s.login(t, client13)
	for _, k := range clientKinds {
		s.refusedPolitely(t, k, "limits.max_sessions is reached")
	}
	one.works(t)
}

// Many that are refused at once cost no more than a few, and the log is not
// filled with them.
func TestManyRefusals(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) { c.Limits.MaxSessions = 1 })
	one := s.login(t, client13)
	var refused []*client
	for range 300 {
		refused = append(refused, s.connect(t))
	}
	told := 0
	for _, c := range refused {
		c.send(versionLine(3))     // may be closed already
		got, _ := io.ReadAll(c.in) // a reset where nobody was there to read
		if strings.Contains(string(got), "max_sessions") {
			told++
		}
	}
	if told < 64 {
		t.Errorf("%d of 300 were told why", told)
	}
	one.works(t)
	eventually(t, "the log says how many it left out", func() bool {
		c := s.connect(t)
		c.send(versionLine(3))
		io.ReadAll(c.in)
		return len(s.log.lines("connection refused", "others_not_logged=")) > 0
	})
	if n := len(s.log.lines("connection refused")); n > 200 {
		t.Errorf("%d lines in the log", n)
	}
}

func TestMaxSessionsPerAddress(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) {
		c.Listeners[0].Address = "0.0.0.0:0"
		c.Limits.MaxPerAddress = 2
	})
	one, two := s.login(t, client13), s.login(t, client13)
	s.refusedPolitely(t, client13, "limits.max_sessions_per_address is reached")
	other := s.connectFrom(t, "127.0.0.2")
	must(t, other.login(client13))
	must(t, one.nc.Close())
	eventually(t, "there is room for another session", func() bool {
		c := s.connect(t)
		return c.login(client13) == nil
	})
	two.works(t)
	other.works(t)
}

func TestMaxSessionsOfAClient(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) {
		c.Clients[0].MaxSessions = 1
		second := c.Clients[0]
		second.Name, second.MaxSessions = "second", 0
		c.Clients = append(c.Clients, second)
	})
	one := s.login(t, client13)
	c := s.connect(t)
	must(t, c.send(versionLine(3)+plain(clientName, clientPassword)))
	if got, want := c.ended(t), "VERSION\tdoveadm-client\t1\t4\n-\n-doveadm-proxy: max_sessions of client panel is reached\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.log.wait(t, "[WARN]", "session refused", "client=panel", "max_sessions of client panel is reached")
	other := s.connect(t)
	must(t, other.loginAs("second", client13))
	one.works(t)
	must(t, one.nc.Close())
	eventually(t, "there is room for another session", func() bool {
		c := s.connect(t)
		return c.login(client13) == nil
	})
}

func TestMaxCommandsOfAClient(t *testing.T) {
	h, arrived, leave := hold(answer)
	s, _ := startWith(t, 3, h, func(c *config.Config) {
		c.Clients[0].MaxCommands = 1
		first(c).Pool.AcquireTimeout = time.Second
	})
	busy, c := s.login(t, client13), s.login(t, client13)
	must(t, busy.send("\talice\tquota get\n"))
	<-arrived
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "max_commands of client panel is reached")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "max_commands of client panel is reached")
	s.cfg.Clients[0].MaxCommands = 2
	must(t, s.Reload(s.cfg))
	must(t, c.send("\talice\tquota get\n"))
	<-arrived
	s.cfg.Clients[0].MaxCommands = 1
	must(t, s.Reload(s.cfg))
	close(leave)
	for _, c := range []*client{busy, c} {
		if r, err := c.reply(); err != nil || r.status != "+" {
			t.Errorf("%q, %v", r, err)
		}
	}
	c.works(t)
	busy.works(t)
}

// A bulk client with all the sessions it likes leaves connections to others.
func TestBulkClient(t *testing.T) {
	arrived, leave := make(chan string, 100), make(chan struct{})
	s, _ := startWith(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if strings.HasPrefix(cmd.User, "night") {
			arrived <- cmd.User
			<-leave
		}
		answer(c, cmd)
	}, func(c *config.Config) {
		c.Clients[0].Priority = config.PriorityBulk
		second := c.Clients[0]
		second.Name, second.Priority = "second", config.PriorityInteractive
		c.Clients = append(c.Clients, second)
		first(c).Pool.MaxOpen, first(c).Pool.MaxBulk = 3, 2
		c.Routes[0].Match.Users = []string{"alice", "night*"}
	})
	var bulk []*client
	for range 10 {
		c := s.login(t, client13)
		must(t, c.send("\tnight\tquota get\n"))
		bulk = append(bulk, c)
	}
	<-arrived
	<-arrived
	c := s.connect(t)
	must(t, c.loginAs("second", client13))
	for range 3 {
		c.works(t)
	}
	select {
	case <-arrived:
		t.Error("a third command of the bulk client runs")
	default:
	}
	close(leave)
	for _, c := range bulk {
		if r, err := c.reply(); err != nil || r.status != "+" {
			t.Errorf("%q, %v", r, err)
		}
	}
}

// Near to the limit of memory there are no new sessions, and the old ones work.
func TestMemoryLimit(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	one := s.login(t, client13)
	s.cfg.Limits.MaxMemory = 1
	must(t, s.Reload(s.cfg))
	s.refusedPolitely(t, client13, "no memory is left for it (limits.max_memory, or GOMEMLIMIT)")
	one.works(t)
	s.cfg.Limits.MaxMemory = 0
	must(t, s.Reload(s.cfg))
	s.login(t, client13).works(t)
}

// Who connects and says nothing leaves no goroutine and no place in the books.
func TestSilentConnectionsLeaveNothing(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) { c.Limits.MaxSessions = 50 })
	s.login(t, client13).works(t)
	before := runtime.NumGoroutine()
	for range 20 {
		var silent []*client
		for range 40 {
			silent = append(silent, s.connect(t))
		}
		for i, c := range silent {
			if i%2 == 0 {
				c.reset()
			} else {
				must(t, c.nc.Close())
			}
		}
	}
	eventually(t, "their goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
	var sessions []*client
	for range 49 {
		sessions = append(sessions, s.login(t, client13))
	}
	sessions[0].works(t)
}
