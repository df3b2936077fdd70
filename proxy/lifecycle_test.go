package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func secondListener(c *config.Config) {
	c.Listeners = append(c.Listeners, config.Listener{Name: "second", Network: "tcp", Address: "127.0.0.1:0"})
}

// refusedAtOnce checks that a connection is closed without a word.
func (s *site) refusedAtOnce(t *testing.T, listener, reason string) {
	t.Helper()
	c := s.connectTo(t, listener, 0)
	if got := c.ended(t); got != "" {
		t.Errorf("got %q", got)
	}
	s.log.wait(t, "[WARN]", "connection refused", "listener="+listener, "peer="+c.nc.LocalAddr().String()+" ", reason)
}

func TestMaxSessions(t *testing.T) {
	t.Parallel()
	s, _ := startWith(t, 3, answer, both(secondListener, func(c *config.Config) { c.Limits.MaxSessions = 2 }))
	one, two := s.login(t, client13), s.connectTo(t, "second", 0)
	must(t, two.login(client13))
	for _, listener := range []string{"main", "second"} {
		s.refusedAtOnce(t, listener, "limits.max_sessions is reached")
	}
	one.works(t)
	two.works(t)
	must(t, one.nc.Close())
	eventually(t, "there is room for another session", func() bool {
		c := s.connect(t)
		return c.login(client13) == nil
	})
	two.works(t)
}

func TestMaxSessionsOfAListener(t *testing.T) {
	s, _ := startWith(t, 3, answer, both(secondListener, func(c *config.Config) { c.Listeners[0].MaxSessions = 1 }))
	one := s.login(t, client13)
	s.refusedAtOnce(t, "main", "max_sessions of the listener is reached")
	for range 3 {
		c := s.connectTo(t, "second", 0)
		must(t, c.login(client13))
	}
	s.cfg.Listeners[0].MaxSessions = 2
	if err := s.Reload(s.cfg); err != nil {
		t.Fatal(err)
	}
	two := s.login(t, client13)
	s.refusedAtOnce(t, "main", "max_sessions of the listener is reached")
	one.works(t)
	two.works(t)
}

func TestHandshakeTimeout(t *testing.T) {
	const limit = 300 * time.Millisecond
	s, _ := startWith(t, 3, answer, func(c *config.Config) { c.Limits.HandshakeTimeout = limit })
	for name, sent := range map[string]string{
		"nothing":         "",
		"half a line":     "VERSION\tdovead",
		"only a VERSION":  "VERSION\tdoveadm-server\t1\t3\n",
		"half of a login": "VERSION\tdoveadm-server\t1\t3\nPLAIN\tAG",
	} {
		c := s.connect(t)
		begin := time.Now()
		must(t, c.send(sent))
		got := c.ended(t)
		if took := time.Since(begin); took < limit/2 {
			t.Errorf("%s: closed after %v", name, took)
		}
		if strings.Contains(got, "+") {
			t.Errorf("%s: got %q", name, got)
		}
		s.log.wait(t, "[WARN]", "handshake failed", "peer="+c.nc.LocalAddr().String()+" ", "not logged in within handshake_timeout")
	}
	c := s.login(t, client13)
	time.Sleep(2 * limit) // the limit has no meaning behind the login
	c.works(t)
}

// shutdown starts a shutdown and returns its end.
func (s *site) shutdown(ctx context.Context) chan error {
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx) }()
	return ended
}

// waiter sends a command for whose user's backend there is no connection, and
// returns when it waits for one: of two that may wait, where max_waiting is 1,
// the other one has been refused.
func (s *site) waiter(t *testing.T, k clientKind, line string) (wait func() (reply, error)) {
	t.Helper()
	type answered struct {
		reply
		error
	}
	answers := make(chan answered, 2)
	for range 2 {
		c := s.login(t, k)
		must(t, c.send(line))
		go func() {
			r, err := c.reply()
			answers <- answered{r, err}
		}()
	}
	if a := <-answers; a.error != nil || a.status != "-TEMPFAIL" {
		t.Errorf("the one too many: %q, %v", a.status, a.error)
	}
	return func() (reply, error) {
		a := <-answers
		return a.reply, a.error
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	h, arrived, leave := hold(answer)
	s, _ := startWith(t, 3, h, func(c *config.Config) {
		c.Limits.HandshakeTimeout = time.Hour
		first(c).Pool.MaxOpen, first(c).Pool.MaxIdle, first(c).Pool.MaxWaiting = 2, 2, 1
	})
	address := s.Addr("main").String()
	idle, silent, half := s.login(t, client13), s.connect(t), s.login(t, client13)
	must(t, half.send("\talice\tquota"), silent.send("VERSION"))
	ahead := s.login(t, client13)
	must(t, ahead.send("\ta@s1\tquota get\n\tb@s1\tquota get\n"))
	<-arrived
	<-arrived
	waiting := s.waiter(t, client13, "\tc@s1\tquota get\n")

	ended := s.shutdown(t.Context())
	s.log.wait(t, "waiting for running commands", "sessions=6")
	for name, c := range map[string]*client{"idle": idle, "silent": silent, "half a line": half} {
		if got := c.ended(t); got != "" {
			t.Errorf("%s: got %q", name, got)
		}
		c.nc.Close()
	}
	if nc, err := net.Dial("tcp", address); err == nil {
		nc.Close()
		t.Error("the listener is open")
	}
	select {
	case err := <-ended:
		t.Fatalf("shut down while commands run: %v", err)
	default:
	}
	close(leave)
	for _, user := range []string{"a@s1", "b@s1"} {
		if r, err := ahead.reply(); err != nil || r.status != "+" || r.fields()[0] != user {
			t.Errorf("%s: %q, %v", user, r, err)
		}
	}
	if r, err := waiting(); err != nil || r.status != "+" {
		t.Errorf("the command that waited: %q, %v", r, err)
	}
	if got := ahead.ended(t); got != "" {
		t.Errorf("behind the replies: %q", got)
	}
	ahead.nc.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := s.Reload(s.cfg); err == nil {
		t.Error("reloaded after the shutdown")
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
}

// TestDrainServesWhoIsAboutToSpeak: who connected or had an answer just before
// the stop is served, also when he sends one command after the other; then he
// is silent, and that is the end.
func TestDrainServesWhoIsAboutToSpeak(t *testing.T) {
	t.Parallel()
	s, _ := startWith(t, 3, answer, nil)
	fresh, used := s.connect(t), s.login(t, client13)
	used.works(t)
	released := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.Drain(t.Context(), proxy.Drain{Released: func() { close(released) }, Quiet: 5 * time.Second, Busy: time.Hour})
	}()
	<-released
	s.log.wait(t, "waiting for running commands", "sessions=2")
	must(t, fresh.login(client13))
	for range 3 {
		used.works(t)
		fresh.works(t)
	}
	select {
	case err := <-ended:
		t.Fatalf("shut down with open sessions: %v", err)
	default:
	}
	for _, c := range []*client{fresh, used} {
		if got := c.ended(t); got != "" {
			t.Errorf("got %q", got)
		}
		c.nc.Close()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestDrainEndsWhoIsNeverSilent between two commands.
func TestDrainEndsWhoIsNeverSilent(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	ended := make(chan error, 1)
	go func() { ended <- s.Drain(t.Context(), proxy.Drain{Quiet: time.Hour, Busy: 100 * time.Millisecond}) }()
	commands := 0
	for {
		r, err := c.try("\talice@s1\tquota get\n")
		if err != nil {
			break
		}
		if r.status != "+" {
			t.Fatalf("status %q", r.status)
		}
		commands++
	}
	c.nc.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(s.log.String(), "outcome=answered"); n != commands || n == 0 {
		t.Errorf("%d commands were run and %d were answered", n, commands)
	}
}

// TestDrainTimeout: what runs at the end of the drain timeout is cut. That is
// neither a success for its client nor a failure of the backend.
func TestDrainTimeout(t *testing.T) {
	for _, p := range []pair{{client10, 0}, {client13, 3}} {
		h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			switch cmd.User {
			case "row@s1":
				c.Output([]byte("1\tt"))
				c.Hang()
			case "full@s1":
				row := strings.Repeat("x", 60<<10)
				for range 200 {
					c.Fields("1", row)
				}
				c.Hang()
			default:
				c.Hang()
			}
		}
		srv := newBackend(t, p.backend, h)
		log := newLogLines()
		cfg := configure(t, func(c *config.Config) {
			first(c).Pool.MaxOpen, first(c).Pool.MaxIdle, first(c).Pool.MaxWaiting = 3, 3, 1
		}, srv.Addr())
		inner, err := proxy.New(cfg, proxy.Options{Log: log.logger()})
		must(t, err)
		inner.Serve()
		s := &site{Proxy: inner, log: log, cfg: cfg}
		var clients []*client
		for i, user := range []string{"silent@s1", "row@s1", "full@s1"} {
			c := s.loginSlowly(t, p.client)
			must(t, c.send("\t"+user+"\tfetch\tuid text\tall\n"))
			clients = append(clients, c)
			eventually(t, "the backend has the command", func() bool { return len(srv.Commands()) == i+1 })
		}
		waiting := s.waiter(t, p.client, "\twaits@s1\tquota get\n")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		err = s.Shutdown(ctx)
		if !errors.Is(err, proxy.ErrDrainTimeout) {
			t.Errorf("got %v, want %v", err, proxy.ErrDrainTimeout)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		for i, c := range clients {
			if r, err := c.reply(); err == nil || r.status != "" {
				t.Errorf("client %d: status %q, %v", i, r.status, err)
			}
		}
		if r, err := waiting(); err == nil && r.status != "-TEMPFAIL" {
			t.Errorf("the one that waited: status %q", r.status)
		}
		for _, line := range log.lines("command:", "command=fetch") {
			if !strings.Contains(line, "[INFO]") || !strings.Contains(line, "outcome=client-gone") {
				t.Errorf("the log blames the backend: %s", line)
			}
		}
		if got := log.lines("command:"); len(got) != 5 {
			t.Errorf("%d commands in the log: %q", len(got), got)
		}
		eventually(t, "the connections to the backend are closed", func() bool { return len(srv.Conns()) == 0 })
	}
}

// TestReload: what changes does, what does not stays as it is.
func TestReload(t *testing.T) {
	h, arrived, leave := hold(answer)
	one, two := newBackend(t, 3, answer), newBackend(t, 3, h)
	s := start(t, configure(t, nil, one.Addr(), two.Addr()))
	c, busy := s.login(t, client13), s.login(t, client13)
	c.works(t)
	must(t, busy.send("\tbob@s2\tquota get\n"))
	<-arrived

	reload := func(change func(c *config.Config)) {
		t.Helper()
		if err := s.Reload(configure(t, change, one.Addr(), two.Addr())); err != nil {
			t.Fatal(err)
		}
	}
	// The same: the same connections.
	address := s.Addr("main").String()
	reload(nil)
	if r := c.works(t); r.output != "alice\t1\t" {
		t.Errorf("after a reload of the same: %q", r.output)
	}
	if got := s.Addr("main").String(); got != address {
		t.Errorf("the listener moved from %s to %s", address, got)
	}
	// The second backend: only its pool.
	reload(func(c *config.Config) { c.Shards[1].Backends[0].Pool.MaxOpen = 2 })
	if r := c.works(t); r.output != "alice\t1\t" {
		t.Errorf("after a change of another backend: %q", r.output)
	}
	close(leave)
	if r, err := busy.reply(); err != nil || r.output != "bob@s2\t1\t" || r.status != "+" {
		t.Errorf("the command that ran: %q, %v", r, err)
	}
	eventually(t, "the connection of the old pool is closed", func() bool { return len(two.Conns()) == 0 })
	if r := busy.run(t, "\tbob@s2\tquota get\n"); r.output != "bob@s2\t2\t" {
		t.Errorf("the new pool: %q", r.output)
	}
	<-arrived
	// A route.
	reload(func(c *config.Config) {
		c.Shards[1].Backends[0].Pool.MaxOpen = 2
		c.Routes[0].Shard = "s2"
	})
	if r := c.works(t); r.output != "alice\t2\t" {
		t.Errorf("after a change of the route: %q", r.output)
	}
	<-arrived
	// A password: those who are logged in stay.
	reload(func(c *config.Config) { c.Clients[0].Password = config.NewSecret("{PLAIN}other") })
	c.works(t)
	late := s.connect(t)
	must(t, late.send("VERSION\tdoveadm-server\t1\t0\n"+plain(clientName, clientPassword)))
	if got := late.ended(t); got != "-\n-\n" {
		t.Errorf("the old password: %q", got)
	}
	late = s.connect(t)
	must(t, late.send("VERSION\tdoveadm-server\t1\t0\n"+plain(clientName, "other")))
	if got, err := late.in.ReadString('+'); err != nil || got != "-\n+" {
		t.Errorf("the new password: %q, %v", got, err)
	}
	// A client that is no more: its sessions end with the next command.
	reload(func(c *config.Config) { c.Clients[0].Name = "another" })
	c.refused(t, "\talice\tquota get\n", "-NOPERM", "client panel is no longer in the configuration")
	if got := c.ended(t); got != "" {
		t.Errorf("behind it: %q", got)
	}
}

// TestReloadOfListeners: sessions of one that goes stay.
func TestReloadOfListeners(t *testing.T) {
	s, srv := startWith(t, 3, answer, nil)
	c := s.login(t, client13)
	free := unused(t)
	reload := func(change func(c *config.Config)) {
		t.Helper()
		if err := s.Reload(configure(t, change, srv.Addr())); err != nil {
			t.Fatal(err)
		}
	}
	main := s.Addr("main").String()
	for range 3 {
		reload(func(c *config.Config) { c.Listeners[0] = config.Listener{Name: "other", Network: "tcp", Address: free} })
		c.works(t)
		other := s.connectTo(t, "other", 0)
		must(t, other.login(client13))
		if s.Addr("main") != nil {
			t.Error("the old listener has an address")
		}
		if nc, err := net.Dial("tcp", main); err == nil {
			nc.Close()
			t.Error("the old listener is open")
		}
		reload(nil)
		other.works(t)
		if nc, err := net.Dial("tcp", free); err == nil {
			nc.Close()
			t.Error("the other listener is open")
		}
		s.login(t, client13).works(t)
		main = s.Addr("main").String()
	}
}

// TestReloadUnderLoad: nobody notices.
func TestReloadUnderLoad(t *testing.T) {
	const clients, reloads = 20, 200
	var backends []*doveadmtest.Server
	var addrs []string
	for _, m := range []doveadm.Minor{3, 0} {
		b := newBackend(t, m, answer)
		backends = append(backends, b)
		addrs = append(addrs, b.Addr())
	}
	standby := newBackend(t, 3, answer)
	withStandby := func(c *config.Config) {
		b := *first(c)
		b.Name, b.Address = "standby", standby.Addr()
		c.Shards[0].Backends = append(c.Shards[0].Backends, b)
	}
	s := start(t, configure(t, withStandby, addrs...))

	var running sync.WaitGroup
	var stop atomic.Bool
	var commands atomic.Int64
	for n := range clients {
		running.Go(func() {
			c := s.connect(t)
			if err := c.login(clientKinds[n%len(clientKinds)]); err != nil {
				t.Error(err)
				return
			}
			for i := 0; !stop.Load(); i++ {
				user := fmt.Sprintf("u%d@s%d", n, 1+i%2)
				r, err := c.try("\t" + user + "\tquota get\n")
				if err != nil || r.status != "+" || r.fields()[0] != user {
					t.Errorf("%s: %v, %q", user, err, r)
					return
				}
				commands.Add(1)
			}
		})
	}
	for i := range reloads {
		change := withStandby
		if i%2 == 0 {
			change = both(func(c *config.Config) { first(c).Pool.MaxCommands = 100 + i }, withStandby, secondListener)
		}
		if err := s.Reload(configure(t, change, addrs...)); err != nil {
			t.Errorf("reload %d: %v", i, err)
		}
		// Some commands with each.
		for before := commands.Load(); commands.Load() < before+clients && !t.Failed(); {
			time.Sleep(100 * time.Microsecond)
		}
	}
	stop.Store(true)
	running.Wait()
	if got := len(standby.Commands()); got > 0 {
		t.Errorf("%d commands went to the standby, while the first backend was well", got)
	}
	eventually(t, "the old pools are closed", func() bool { return len(backends[0].Conns()) <= 8 })
	if got := backends[1].Accepted(); got > 100 {
		t.Errorf("%d connections to a backend that did not change", got)
	}
}

func TestUnixListener(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "doveadm.sock")
	unix := func(client string) func(c *config.Config) {
		return func(c *config.Config) {
			c.Listeners = append(c.Listeners, config.Listener{Name: "local", Network: "unix", Address: path, Mode: 0o600, Client: client})
		}
	}
	// One that a process left behind.
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	left.SetUnlinkOnClose(false)
	left.Close()

	s, srv := startWith(t, 3, answer, unix(clientName))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	talk := func(hello, want string) net.Conn {
		t.Helper()
		nc, err := net.Dial("unix", path)
		must(t, err)
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(patience))
		_, err = nc.Write([]byte(hello))
		must(t, err)
		got := make([]byte, len(want))
		if n, err := nc.Read(got); err != nil || string(got[:n]) != want {
			t.Errorf("got %q, %v, want %q", got[:n], err, want)
		}
		return nc
	}
	nc := talk("VERSION\tdoveadm-server\t1\t0\n", "+\n")
	_, err = nc.Write([]byte("\talice\tquota get\n"))
	must(t, err)
	const want = "alice\t1\t\n+\n"
	got := make([]byte, len(want))
	if n, err := io.ReadFull(nc, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got[:n], err)
	}
	s.log.wait(t, "command:", "client=panel", "peer=local")

	// Another proxy is not let in.
	_, err = proxy.New(configure(t, unix(""), srv.Addr()), proxy.Options{Log: s.log.logger()})
	if err == nil || !strings.Contains(err.Error(), "another process listens on it") {
		t.Errorf("a second proxy: %v", err)
	}
	// Mode and client may change.
	if err := s.Reload(configure(t, both(unix(""), func(c *config.Config) { c.Listeners[1].Mode = 0o660 }), srv.Addr())); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	talk("VERSION\tdoveadm-server\t1\t0\n", "-\n")
	// Without its block it is gone.
	if err := s.Reload(configure(t, nil, srv.Addr())); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if err := s.Reload(configure(t, unix(""), srv.Addr())); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("on a file: %v", err)
	}
}

// TestOpenSockets: a listener that is open already is used in the place of its
// block's address.
func TestOpenSockets(t *testing.T) {
	srv := newBackend(t, 3, answer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg := configure(t, nil, srv.Addr())
	log := newLogLines()
	p, err := proxy.New(cfg, proxy.Options{Log: log.logger(), Sockets: map[string]net.Listener{"main": l}})
	must(t, err)
	p.Serve()
	s := &site{Proxy: p, log: log, cfg: cfg}
	if got := s.Addr("main"); got != l.Addr() {
		t.Errorf("listening on %v, want %v", got, l.Addr())
	}
	c := s.login(t, client13)
	c.works(t)
	c.nc.Close()
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket is still open: %v", err)
	}
}

func TestCheck(t *testing.T) {
	s, srv := startWith(t, 3, answer, nil)
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	must(t, s.Shutdown(t.Context()))
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("after the shutdown: %v", err)
	}
	// One that does not accept.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p, err := proxy.New(configure(t, nil, srv.Addr()), proxy.Options{Log: s.log.logger(), Sockets: map[string]net.Listener{"main": l}})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Check(ctx); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("not serving: %v", err)
	}
	must(t, p.Shutdown(t.Context()))
}

func TestValidate(t *testing.T) {
	cfg := configure(t, nil, "127.0.0.1:1")
	if err := proxy.Validate(cfg); err != nil {
		t.Error(err)
	}
	cfg.Clients[0].Password = config.NewSecret("{NO-SUCH}x")
	cfg.Routes[0].Shard = "s9"
	err := proxy.Validate(cfg)
	for _, word := range []string{`client "panel"`, "route match #1", "s9"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want it to say %q", err, word)
		}
	}
	if _, newErr := proxy.New(cfg, proxy.Options{Log: newLogLines().logger()}); newErr == nil || newErr.Error() != err.Error() {
		t.Errorf("New says %v, Validate %v", newErr, err)
	}
}
