package proxy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// holder is a backend on which index runs until its connection ends or release
// is closed.
type holder struct {
	srv     *doveadmtest.Server
	running chan struct{}
	release chan struct{}
}

func newHolder(t testing.TB) *holder {
	h := &holder{running: make(chan struct{}, 100), release: make(chan struct{})}
	h.srv = newBackend(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "index" {
			h.running <- struct{}{}
			select {
			case <-h.release:
			case <-c.Context().Done():
				return
			}
		}
		answer(c, cmd)
	})
	return h
}

// one returns the only command that runs.
func (s *site) one(t *testing.T) proxy.CommandStatus {
	t.Helper()
	all := s.Commands()
	if len(all) != 1 {
		t.Fatalf("%d commands run: %+v", len(all), all)
	}
	return all[0]
}

func TestWhatRuns(t *testing.T) {
	h := newHolder(t)
	s := start(t, configure(t, nil, h.srv.Addr()))
	before := time.Now()
	c := s.login(t, client13)
	must(t, c.send("\talice\tindex\tINBOX\n"))
	<-h.running
	got := s.one(t)
	if got.User != "alice" || got.Command != "index" || got.Client != clientName || got.Phase != proxy.PhaseRunning ||
		got.Shard != "s1" || got.Backend != "b1" || got.Number != 1 || got.Since.Before(before) || got.Peer == "" {
		t.Errorf("%+v", got)
	}
	all := s.SessionList()
	if len(all) != 1 || all[0].ID != got.Session || all[0].State != proxy.SessionBusy || len(all[0].Running) != 1 || all[0].Client != clientName ||
		all[0].Listener != "main" || all[0].Minor != 3 || all[0].TLS {
		t.Errorf("%+v", all)
	}
	if cl := s.Clients(); len(cl) != 1 || cl[0].Sessions != 1 || cl[0].Running != 1 || cl[0].Commands != 0 {
		t.Errorf("%+v", cl)
	}
	close(h.release)
	if r, err := c.reply(); err != nil || r.status != "+" {
		t.Errorf("%s, %v", r.status, err)
	}
	eventually(t, "the session is idle", func() bool { return s.SessionList()[0].State == proxy.SessionIdle })
	if all := s.Commands(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if cl := s.Clients(); cl[0].Commands != 1 || cl[0].Failed != 0 || cl[0].Bytes == 0 {
		t.Errorf("%+v", cl)
	}
}

// TestWhatRunsBeside: each of the commands that a client sent ahead is seen, and
// ended by itself.
func TestWhatRunsBeside(t *testing.T) {
	h := newHolder(t)
	s := start(t, configure(t, nil, h.srv.Addr()))
	c := s.login(t, client13)
	must(t, c.send("\ta@s1\tindex\tINBOX\n\tb@s1\tindex\tINBOX\n\tc@s1\tindex\tINBOX\n"))
	for range 3 {
		<-h.running
	}
	all := s.Commands()
	if len(all) != 3 {
		t.Fatalf("%+v", all)
	}
	for _, one := range all {
		if one.User == "b@s1" {
			must(t, s.KillCommand(one.Session, one.Number, "ops"))
		}
	}
	s.log.wait(t, "a command is ended")
	close(h.release)
	for i, want := range []string{"+", "-TEMPFAIL", "+"} {
		if r, err := c.reply(); err != nil || r.status != want {
			t.Errorf("command %d: %s, %v", i, r.status, err)
		}
	}
}

func TestKillCommand(t *testing.T) {
	h := newHolder(t)
	s := start(t, configure(t, both(oneFailureOpens, func(c *config.Config) { first(c).Pool.MaxOpen = 1 }), h.srv.Addr()))
	c, waiting := s.login(t, client13), s.login(t, client13)
	must(t, c.send("\talice\tindex\tINBOX\n"))
	<-h.running
	running := s.one(t)
	must(t, waiting.send("\tbob@s1\tquota get\n"))
	eventually(t, "one waits", func() bool {
		all := s.Commands()
		return len(all) == 2 && all[1].Phase == proxy.PhaseWaiting && all[1].Shard == "s1"
	})
	second := s.Commands()[1]
	must(t, s.KillCommand(second.Session, second.Number, "ops"))
	r, err := waiting.reply()
	if err != nil || r.status != "-TEMPFAIL" || !strings.Contains(r.log(), "an operator ended the command") {
		t.Errorf("the waiting command: %+v, %v", r, err)
	}
	for _, none := range [][2]uint64{{running.Session, 2}, {1 << 40, 1}} {
		if err := s.KillCommand(none[0], none[1], "ops"); !errors.Is(err, proxy.ErrNoCommand) && !errors.Is(err, proxy.ErrNoSession) {
			t.Errorf("%v: %v", none, err)
		}
	}
	must(t, s.KillCommand(running.Session, running.Number, "ops"))
	r, err = c.reply()
	if err != nil || r.status != "-TEMPFAIL" || !strings.Contains(r.log(), "an operator ended the command") {
		t.Errorf("the running command: %+v, %v", r, err)
	}
	s.log.wait(t, "outcome=killed", "user=alice")
	s.log.wait(t, "a command is ended", "by=ops")
	// The session goes on, and the breaker has no opinion.
	c.works(t)
	waiting.works(t)
}

func TestKillSession(t *testing.T) {
	h := newHolder(t)
	s := start(t, configure(t, nil, h.srv.Addr()))
	busy, idle := s.login(t, client13), s.login(t, client13)
	must(t, busy.send("\talice\tindex\tINBOX\n"))
	<-h.running
	eventually(t, "both are in", func() bool {
		all := s.SessionList()
		return len(all) == 2 && all[1].State == proxy.SessionIdle
	})
	all := s.SessionList()
	must(t, s.KillSession(all[0].ID, "ops"), s.KillSession(all[1].ID, "ops"))
	if r, err := busy.reply(); err != nil || r.status != "-TEMPFAIL" || !strings.Contains(r.log(), "an operator ended the session") {
		t.Errorf("%+v, %v", r, err)
	}
	busy.ended(t)
	idle.ended(t)
	eventually(t, "both are gone", func() bool { return s.Sessions() == 0 })
	s.log.wait(t, "session closed", "an operator ended the session")
	if err := s.KillSession(all[0].ID, "ops"); !errors.Is(err, proxy.ErrNoSession) {
		t.Errorf("%v", err)
	}
}

func TestPause(t *testing.T) {
	srv := newBackend(t, 3, answer)
	other := newBackend(t, 3, answer)
	s := start(t, configure(t, nil, srv.Addr(), other.Addr()))
	for _, scope := range []proxy.Scope{{}, {Shard: "s1"}, {Backend: "b1"}} {
		t.Run(scope.String(), func(t *testing.T) {
			must(t, s.Pause(proxy.Pause{Scope: scope, For: time.Hour, Hold: time.Hour, MaxWaiting: 1, By: "ops"}))
			c := s.login(t, client13)
			must(t, c.send("\talice\tquota get\n"))
			eventually(t, "it is held", func() bool { all := s.Pauses(); return len(all) == 1 && all[0].Waiting == 1 })
			if got := s.one(t); got.Phase != proxy.PhaseHeld || got.Shard != "s1" {
				t.Errorf("%+v", got)
			}
			// No more than one is held, and who is not paused goes on.
			d := s.login(t, client13)
			d.refused(t, "\tbob@s1\tquota get\n", "-TEMPFAIL", "an operator paused "+scope.String()+": 1 commands are held already")
			if scope != (proxy.Scope{}) {
				if r := d.run(t, "\tbob@s2\tquota get\n"); r.status != "+" {
					t.Errorf("the other shard: %s", r.status)
				}
			}
			must(t, s.Unpause(scope, "ops"))
			if r, err := c.reply(); err != nil || r.status != "+" {
				t.Errorf("%s, %v", r.status, err)
			}
			if err := s.Unpause(scope, "ops"); !errors.Is(err, proxy.ErrNoPause) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("too long", func(t *testing.T) {
		must(t, s.Pause(proxy.Pause{For: time.Hour, Hold: 20 * time.Millisecond, MaxWaiting: 10, By: "ops"}))
		c := s.login(t, client13)
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "an operator paused everything: the command was held for 20ms")
		s.log.wait(t, "outcome=paused")
		// A pause in place of the first takes over what that holds.
		must(t, s.Pause(proxy.Pause{For: time.Hour, Hold: time.Hour, MaxWaiting: 10, By: "ops"}))
		must(t, c.send("\talice\tquota get\n"))
		eventually(t, "it is held", func() bool { return s.Pauses()[0].Waiting == 1 })
		must(t, s.Pause(proxy.Pause{For: time.Hour, Hold: time.Hour, MaxWaiting: 10, By: "ops"}))
		eventually(t, "it is held again", func() bool { return s.Pauses()[0].Waiting == 1 })
		got := s.one(t)
		must(t, s.KillCommand(got.Session, got.Number, "ops"))
		if r, err := c.reply(); err != nil || r.status != "-TEMPFAIL" {
			t.Errorf("%s, %v", r.status, err)
		}
		must(t, s.Pause(proxy.Pause{For: 20 * time.Millisecond, Hold: time.Hour, MaxWaiting: 10, By: "ops"}))
		if r := c.run(t, "\talice\tquota get\n"); r.status != "+" {
			t.Errorf("after the pause: %s", r.status)
		}
		s.log.wait(t, "a pause has ended by itself")
		// A client that goes away is held no longer.
		must(t, s.Pause(proxy.Pause{For: time.Hour, Hold: time.Hour, MaxWaiting: 10, By: "ops"}))
		must(t, c.send("\talice\tquota get\n"))
		eventually(t, "it is held", func() bool { return s.Pauses()[0].Waiting == 1 })
		c.nc.Close()
		eventually(t, "it is gone", func() bool { return s.Pauses()[0].Waiting == 0 })
	})
	if err := s.Pause(proxy.Pause{Scope: proxy.Scope{Shard: "s9"}}); !errors.Is(err, proxy.ErrNoShard) {
		t.Errorf("%v", err)
	}
	if err := s.Pause(proxy.Pause{Scope: proxy.Scope{Backend: "b9"}}); !errors.Is(err, proxy.ErrNoBackend) {
		t.Errorf("%v", err)
	}
}

func TestReconnect(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	number := func() string { return c.run(t, "\talice\tquota get\n").fields()[1] }
	was := number()
	if again := number(); again != was {
		t.Fatalf("connection %s, then %s", was, again)
	}
	must(t, s.Reconnect("b1"))
	if now := number(); now == was {
		t.Error("the same connection")
	}
	if err := s.Reconnect("b9"); !errors.Is(err, proxy.ErrNoBackend) {
		t.Errorf("%v", err)
	}
}

func TestTail(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	tails := map[string]*proxy.Tail{}
	for name, f := range map[string]proxy.Filter{
		"all": {}, "user": {User: "al*"}, "client": {Client: "nobody"}, "backend": {Backend: "b1"}, "command": {Command: "quota *"},
		"outcome": {Outcome: "no-user"}, "slow": {Duration: time.Hour}, "failed": {Failed: true}, "shard": {Shard: "s1"},
	} {
		tails[name] = s.Tail(f, 10)
	}
	few := s.Tail(proxy.Filter{}, 1)
	c.run(t, "\talice\tquota get\n")
	c.run(t, "\tbob@s1\tmailbox list\n")
	c.run(t, "\tnobody\tquota get\n")
	eventually(t, "all have ended", func() bool { return s.Clients()[0].Commands == 3 && len(tails["all"].Events()) == 3 })
	for name, want := range map[string]int{"all": 3, "user": 1, "client": 0, "backend": 2, "command": 2, "outcome": 1, "slow": 0, "failed": 0, "shard": 2} {
		eventually(t, fmt.Sprintf("%s has %d", name, want), func() bool { return len(tails[name].Events()) == want })
	}
	e := <-tails["all"].Events()
	if e.User != "alice" || e.Command != "quota get" || e.Client != clientName || e.Outcome != "answered" || e.Status != "+" || e.Backend != "b1" ||
		e.Shard != "s1" || e.Bytes == 0 || e.Duration <= 0 || e.Number != 1 || e.Failed {
		t.Errorf("%+v", e)
	}
	if lost := few.Lost(); lost != 2 || few.Lost() != 0 {
		t.Errorf("lost %d, want 2", lost)
	}
	for _, tail := range tails {
		tail.Close()
	}
	few.Close()
	few.Close()
	c.run(t, "\talice\tquota get\n")
	if n := len(tails["all"].Events()); n != 2 {
		t.Errorf("%d events after Close", n)
	}
}

// read returns the pieces of a trace until the end of n commands.
func wires(t *testing.T, tr *proxy.Trace, n int) []proxy.Wire {
	t.Helper()
	var all []proxy.Wire
	for n > 0 {
		select {
		case w := <-tr.Wires():
			all = append(all, w)
			if w.Way == proxy.EndOf {
				n--
			}
		case <-time.After(patience):
			t.Fatalf("only %+v", all)
		}
	}
	return all
}

func TestTrace(t *testing.T) {
	s, _ := startWith(t, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		c.Fields("uid=5", "pass=planted", "x")
		c.Status("+")
	}, nil)
	c := s.login(t, client13)
	tr := s.Trace(proxy.TraceFilter{Client: clientName, User: "ALICE"}, 1<<20, 100)
	defer tr.Close()
	c.run(t, "\tbob@s1\tquota get\n") // of another user
	c.run(t, "\talice\tmailbox metadata set\tINBOX\t/private/x\tplanted\n")
	c.run(t, "\talice\tfetch\ttext\tall\n")
	text := fmt.Sprintf("%+v", wires(t, tr, 2))
	for _, want := range []string{
		"client>proxy", "mailbox metadata set\tINBOX\t/private/x\t***", "proxy>backend", "backend>proxy", "uid=5\tpass=***\tx", "Text:+", "answered +",
		"which may be of mails",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "planted") || strings.Contains(text, "bob") {
		t.Errorf("too much in %s", text)
	}

	small := s.Trace(proxy.TraceFilter{User: "alice"}, 100, 1)
	defer small.Close()
	c.run(t, "\talice\tquota get\n")
	c.run(t, "\talice\tquota get\n")
	select {
	case <-small.Full():
	case <-time.After(patience):
		t.Error("never full")
	}
	if small.Lost() == 0 {
		t.Error("nothing lost of what nobody read")
	}
}
