package proxy_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
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

func badGreeting(t *testing.T) {
	s, _ := startWith(t, 3, answer, nil)
	s.misfits(t, map[string]struct{ sent, logged string }{
		"HTTP":          {"GET / HTTP/1.1\r\n\r\n", `not a doveadm client: \"GET / HTTP/1.1\"`},
		"TLS":           {"\x16\x03\x01\x02\x00\x01\x00", "TLS handshake on a listener without TLS"},
		"other service": {"VERSION\tauth\t1\t0\n", "not a doveadm client"},
		"major":         {"VERSION\tdoveadm-server\t2\t0\n", "not a doveadm client"},
		"no fields":     {"VERSION\n", "not a doveadm client"},
		"long":          {strings.Repeat("x", 100_000), "handshake line longer than"},
		"NUL":           {"\x00\n", "not a doveadm client"},
	}, "")
	c := s.connect(t)
	must(t, c.nc.CloseWrite())
	if got := c.ended(t); got != "" {
		t.Errorf("nothing: got %q", got)
	}
	s.log.wait(t, "[DEBUG]", "handshake failed", "peer="+c.nc.LocalAddr().String(), "client disconnected before its VERSION line")
	s.login(t, client13).works(t)
}

func badLogin(t *testing.T) {
	s, srv := startWith(t, 3, answer, nil)
	tests := map[string]struct{ sent, logged string }{
		"wrong password":       {plain(clientName, "secret secret"), "client=panel"},
		"unknown name":         {plain("nobody", clientPassword), "client=nobody"},
		"control in name":      {plain("no\nbody", clientPassword), `client="\"no\nbody\""`},
		"bad base64":           {"PLAIN\t***\n", "login is not valid base64"},
		"other mechanism":      {"LOGIN\tx\n", "login by another mechanism than PLAIN"},
		"STARTTLS":             {"STARTTLS\n", "STARTTLS"},
		"authorization id":     {"PLAIN\tYQBiAGM=\n", "login with an authorization id"},
		"command before login": {"\talice\tquota get\n", "login by another mechanism than PLAIN"},
		"long":                 {"PLAIN\t" + strings.Repeat("A", 100_000), "handshake line longer than"},
	}
	for name, tc := range tests {
		tc.sent = "VERSION\tdoveadm-server\t1\t3\n" + tc.sent + "\talice\tquota get\n"
		tests[name] = tc
	}
	s.misfits(t, tests, "VERSION\tdoveadm-client\t1\t4\n-\n-\n")
	if got := srv.Commands(); len(got) > 0 {
		t.Errorf("commands without a login: %v", got)
	}
	if strings.Contains(s.log.String(), "secret") {
		t.Errorf("a password in the log:\n%s", s.log)
	}
}

func badLine(t *testing.T) {
	s, srv := startWith(t, 3, answer, nil)
	long := strings.Repeat("x", doveadm.MaxLine)
	for name, tc := range map[string]struct{ line, cause string }{
		"too long":             {"\talice\t" + long + "\n", "command line is longer than 1048576 bytes"},
		"too long without end": {"\talice\t" + long, "command line is longer than 1048576 bytes"},
		"empty":                {"\n", "doveadm client: No command given"},
		"too few fields":       {"\tquota get\n", "doveadm client: No command given"},
		"x with too few":       {"x\tproxy-ttl=5\talice\n", "doveadm client: No command given"},
		"unknown flag":         {"vQ\talice\tquota get\n", "doveadm client: Unknown flag: Q"},
		"control as flag":      {"\x1b\talice\tquota get\n", `doveadm client: Unknown flag: \x1b`},
		"NUL":                  {"\tali\x00ce\tquota get\n", "NUL byte"},
		"escaped NUL":          {"\tali\x010ce\tquota get\n", "NUL byte"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, k := range clientKinds {
				t.Run(k.name, func(t *testing.T) {
					t.Parallel()
					c := s.login(t, k)
					c.works(t)
					must(t, c.send(tc.line+"\talice\tmove\tx\n"))
					c.closedWith(t, tc.cause)
					s.log.wait(t, "[WARN]", "session closed", "peer="+c.nc.LocalAddr().String(), tc.cause)
				})
			}
		})
	}
	t.Cleanup(func() {
		for _, cmd := range srv.Commands() {
			if cmd.Name != "quota get" || cmd.User != "alice" {
				t.Errorf("the backend got %+v", cmd)
			}
		}
	})
}

func unknownCommand(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "quota get" {
			answer(c, cmd)
			return
		}
		c.Log(doveadm.LogError, "doveadm(alice): doveadm: Client sent unknown command: "+cmd.Name)
		c.Status("-")
	}, oneFailureOpens)
	c := s.login(t, p.client)
	r := c.run(t, "\talice\tno such\tcommand\n")
	want := reply{status: "-"}
	if p.client.logs() && p.backend > 0 {
		want.logs = []string{"\x04doveadm(alice): doveadm: Client sent unknown command: no such"}
	}
	if r.status != want.status || r.output != want.output || !cmp.Equal(r.logs, want.logs) {
		t.Errorf("got %q, want %q", r, want)
	}
	if got := srv.Commands(); len(got) != 1 || got[0].Name != "no such" || !cmp.Equal(got[0].Args, []string{"command"}) {
		t.Errorf("the backend got %+v", got)
	}
	c.works(t)
}

func notAllowed(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, answer, oneFailureOpens)
	c := s.login(t, p.client)
	tests := []struct{ line, status, cause string }{
		{"\t\treload\n", "-NOPERM", "reload stops or reloads a whole server: run it there"},
		{"\t\tstop\n", "-NOPERM", "stop stops"},
		{"\talice\tmailbox list\t-F\t/etc/passwd\n", "-NOPERM", "option -F names a file of the backend"},
		{"\talice\tno-such-command\t-ZA\n", "-USAGE", "may mean other users"},
		{"\talice\tno-such-command\t-A\n", "-USAGE", ""},
		{"\talice\tbatch\t,\tquota\tget\n", "-USAGE", "batch is not supported"},
		{"\talice\tsave\t/etc/passwd\nX: y\n\n\tbob\tmove\tx\n.\n", "-USAGE", "save"},
	}
	if p.client.minor >= 3 {
		tests = append(tests, []struct{ line, status, cause string }{
			{"\talice\tmailbox list\t-A\n", "-USAGE", "options -A and -F: send one command for each user"},
			{"\talice\tmailbox list\t--all\n", "-USAGE", "options -A and -F: send one command for each user"},
		}...)
	}
	for _, tc := range tests {
		c.refused(t, tc.line, tc.status, tc.cause)
		s.log.wait(t, "[WARN]", "outcome=denied", "status="+tc.status, tc.cause)
	}
	if got := srv.Commands(); len(got) > 0 {
		t.Errorf("the backend got %+v", got)
	}
	c.works(t)
}

func noShard(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, answer, oneFailureOpens)
	c := s.login(t, p.client)
	c.refused(t, "\tbob\tquota get\n", "-NOUSER", "no route names a shard for the user")
	s.log.wait(t, "[INFO]", "user=bob", "outcome=no-user", "status=-NOUSER")
	if got := srv.Accepted(); got != 0 {
		t.Errorf("%d connections to a backend", got)
	}
	c.works(t)
}

func noUserName(t *testing.T, p pair) {
	a, b := newBackend(t, p.backend, answer), newBackend(t, p.backend, answer)
	s := start(t, configure(t, nil, a.Addr(), b.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\t\tquota get\n", "-NOUSER", "no user name given")
	c.refused(t, "\t\twho\n", "-USAGE", "who is not for a mail user")
	if got := a.Accepted() + b.Accepted(); got != 0 {
		t.Errorf("%d connections to backends", got)
	}
	c.works(t)
}

func breakerOpen(t *testing.T, p pair) {
	down := unused(t)
	other := newBackend(t, p.backend, answer)
	s := start(t, configure(t, oneFailureOpens, down, other.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: dial", "connection refused")
	s.log.wait(t, "circuit breaker opened", "backend=b1")
	for range 3 {
		begin := time.Now()
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: circuit breaker is open")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("refused after %v", took)
		}
	}
	s.log.wait(t, "[ERROR]", "command:", "outcome=unavailable", "status=-TEMPFAIL", "backend b1: circuit breaker is open")
	if r := c.run(t, "\tbob@s2\tquota get\n"); r.status != "+" {
		t.Errorf("on the other shard: %q", r)
	}
}

// hold makes a handler that tells of each command and waits for leave to
// answer it.
func hold(h handler) (handler, chan string, chan struct{}) {
	arrived, leave := make(chan string, 100), make(chan struct{})
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		arrived <- cmd.User
		select {
		case <-leave:
			h(c, cmd)
		case <-c.Context().Done():
		}
	}, arrived, leave
}

func noConnectionInTime(t *testing.T, p pair) {
	h, arrived, leave := hold(answer)
	s, _ := startWith(t, p.backend, h, both(oneFailureOpens, func(c *config.Config) {
		first(c).Pool.MaxOpen = 1
		// Long enough for the first command's dial on a busy machine.
		first(c).Pool.AcquireTimeout = time.Second
	}))
	busy, c := s.login(t, p.client), s.login(t, p.client)
	must(t, busy.send("\talice\tquota get\n"))
	<-arrived
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: no connection became free in time")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "no connection became free in time")
	close(leave)
	if r, err := busy.reply(); err != nil || r.status != "+" {
		t.Errorf("the command that was first: %q, %v", r, err)
	}
	c.works(t)
}

func tooManyWait(t *testing.T, p pair) {
	h, arrived, leave := hold(answer)
	s, _ := startWith(t, p.backend, h, both(oneFailureOpens, func(c *config.Config) {
		first(c).Pool.MaxOpen = 1
		first(c).Pool.MaxWaiting = 0
	}))
	busy, c := s.login(t, p.client), s.login(t, p.client)
	must(t, busy.send("\talice\tquota get\n"))
	<-arrived
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: too many commands wait for a connection")
	close(leave)
	if r, err := busy.reply(); err != nil || r.status != "+" {
		t.Errorf("the command that was first: %q, %v", r, err)
	}
	c.works(t)
}

func dialFailed(t *testing.T, p pair) {
	address := unused(t)
	s := start(t, configure(t, neverOpens, address))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: dial tcp "+address, "connection refused")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "status=-TEMPFAIL", "connection refused")
	doveadmtest.NewServer(t, doveadmtest.Options{Minor: p.backend, Password: backendPassword, Handler: answer, Address: address})
	c.works(t)
}

func failover(t *testing.T, p pair) {
	second := newBackend(t, p.backend, answer)
	s := start(t, configure(t, func(c *config.Config) {
		standby := c.Shards[0].Backends[0]
		standby.Name, standby.Address = "b1-standby", second.Addr()
		c.Shards[0].Backends = append(c.Shards[0].Backends, standby)
	}, unused(t)))
	c := s.login(t, p.client)
	if r := c.works(t); len(r.logs) > 0 {
		t.Errorf("the client notices: %q", r.logs)
	}
	s.log.wait(t, "outcome=answered", "backend=b1-standby")
	second.Close()
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "connection refused")
}

func backendLoginFailed(t *testing.T, p pair) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: p.backend, Password: "another", Handler: answer})
	s := start(t, configure(t, nil, srv.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: login at "+srv.Addr(), "refused the login", "doveadm_password")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "refused the login")
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "refused the login")
	if got := srv.Commands(); len(got) > 0 {
		t.Errorf("the backend got %+v", got)
	}
}

func notADoveadmServer(t *testing.T, p pair) {
	for name, tc := range map[string]struct {
		connected func(c *doveadmtest.Conn)
		cause     string
	}{
		"closes":  {func(c *doveadmtest.Conn) { c.Close() }, "greeting: "},
		"resets":  {func(c *doveadmtest.Conn) { c.Reset() }, ""},
		"HTTP":    {func(c *doveadmtest.Conn) { c.Raw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, `invalid handshake line: \"HTTP/1.1 400`},
		"control": {func(c *doveadmtest.Conn) { c.Raw([]byte("220 \x1b[31m\x04mail\r\n")) }, `invalid handshake line: \"220 \x1b[31m\x04mail`},
	} {
		srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: p.backend, Connected: tc.connected})
		s := start(t, configure(t, nil, srv.Addr()))
		c := s.login(t, p.client)
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: ", srv.Addr(), strings.ReplaceAll(tc.cause, `\"`, `"`))
		s.log.wait(t, "[ERROR]", "outcome=unavailable", srv.Addr(), tc.cause)
		if t.Failed() {
			t.Log(name)
		}
	}
}

// A TCP connection that nobody answers.
func TestConnectTimeout(t *testing.T) {
	// A listener that accepts nothing, whose queue is full: the kernel drops
	// what would open another connection.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	defer syscall.Close(fd)
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	must(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for {
		nc, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			break
		}
		defer nc.Close()
	}
	s := start(t, configure(t, func(c *config.Config) { first(c).Timeouts.Connect = 50 * time.Millisecond }, address))
	c := s.login(t, client13)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1: dial tcp "+address, "timeout")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "timeout")
}

func backendTLSFailed(t *testing.T, p pair) {
	a, other := newAuthority(t), newAuthority(t)
	srv, toBackend := a.backend(t, config.TLSImplicit, answer)
	s := start(t, configure(t, both(toBackend, neverOpens, func(c *config.Config) { first(c).TLS.CAFile = other.path("ca.crt") }), srv.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1", "TLS: ", "certificate")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "status=-TEMPFAIL")
	if n := len(srv.Commands()); n > 0 {
		t.Errorf("%d commands arrived", n)
	}
	cfg := configure(t, toBackend, srv.Addr())
	cfg.Listeners = s.cfg.Listeners
	must(t, s.Reload(cfg))
	c.works(t)
}

func neverGreets(t *testing.T, p pair) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{
		Minor: p.backend, Password: backendPassword, Handler: answer,
		Connected: func(c *doveadmtest.Conn) {
			if c.Number() == 1 {
				c.Hang()
			}
		},
	})
	s := start(t, configure(t, func(c *config.Config) { first(c).Timeouts.Handshake = 300 * time.Millisecond }, srv.Addr()))
	c := s.login(t, p.client)
	c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "backend b1", "does not greet", "process_limit")
	s.log.wait(t, "[WARN]", "backend accepts connections and does not greet", "process_limit")
	s.log.wait(t, "[ERROR]", "outcome=unavailable", "does not greet")
	c.works(t)
}

// closes makes a backend close without a reply, on connection n.
func closes(n int) handler {
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if c.Number() == n && cmd.Name != "quota get" {
			c.Log(doveadm.LogWarning, "Killed with signal 15")
			c.Close()
			return
		}
		answer(c, cmd)
	}
}

func repeated(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, closes(1), oneFailureOpens)
	c := s.login(t, p.client)
	c.works(t)
	for _, line := range []string{"fetch\ttext\tall", "quota recalc"} {
		r := c.run(t, "\talice\t"+line+"\n")
		if r.status != "+" || r.output != "alice\t2\t" || len(r.logs) > 0 {
			t.Errorf("%s: the client notices: %q", line, r)
		}
	}
	var got []string
	for _, cmd := range srv.Commands() {
		got = append(got, cmd.Name)
	}
	if diff := cmp.Diff([]string{"quota get", "fetch", "fetch", "quota recalc"}, got); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	s.log.wait(t, "[INFO]", "command=fetch", "outcome=answered", "retried=true")
	c.works(t)
}

func repeatedOnce(t *testing.T, p pair) {
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "search" {
			c.Close() // so Dovecot answers a bad query, on any connection
			return
		}
		answer(c, cmd)
	}, oneFailureOpens)
	c := s.login(t, p.client)
	c.works(t)
	c.refused(t, "\talice\tsearch\tbad\n", "-TEMPFAIL", "backend b1 closed the connection without a reply (wrong arguments, or a crash: see its log)")
	s.log.wait(t, "[WARN]", "command=search", "outcome=unanswered", "status=-TEMPFAIL", "retried=true")
	if got := srv.Commands(); len(got) != 3 {
		t.Errorf("the backend got %+v", got)
	}
	c.works(t)
}

func notRepeated(t *testing.T, p pair) {
	for _, line := range []string{"move\tTrash\tall", "copy\tTrash\tall", "no such command", "mailbox delete\tX"} {
		s, srv := startWith(t, p.backend, closes(1), oneFailureOpens)
		c := s.login(t, p.client)
		c.works(t)
		r := c.run(t, "\talice\t"+line+"\n")
		c.failed(t, r, "-TEMPFAIL", "backend b1 closed the connection without a reply")
		s.log.wait(t, "[WARN]", "outcome=unanswered", "status=-TEMPFAIL")
		c.works(t)
		if got := srv.Commands(); len(got) != 3 {
			t.Errorf("%s: the backend got %+v", line, got)
		}
	}
}

func closedFresh(t *testing.T, p pair) {
	for name, end := range map[string]func(c *doveadmtest.Conn){"close": (*doveadmtest.Conn).Close, "reset": (*doveadmtest.Conn).Reset} {
		s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.Name == "fetch" {
				end(c)
				return
			}
			answer(c, cmd)
		}, oneFailureOpens)
		c := s.login(t, p.client)
		c.refused(t, "\talice\tfetch\tbad\tall\n", "-TEMPFAIL", "backend b1 closed the connection without a reply")
		s.log.wait(t, "[WARN]", "outcome=unanswered", "status=-TEMPFAIL")
		if got := srv.Commands(); len(got) != 1 {
			t.Errorf("%s: the backend got %+v", name, got)
		}
		c.works(t) // by the breaker, too
	}
}

func goneInTheMiddle(t *testing.T, p pair) {
	for name, end := range map[string]func(c *doveadmtest.Conn){"close": (*doveadmtest.Conn).Close, "reset": (*doveadmtest.Conn).Reset} {
		gone := make(chan struct{})
		s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			if cmd.Name == "quota get" {
				answer(c, cmd)
				return
			}
			c.Fields("u1", "t1")
			c.Output([]byte("u2\tt\x01"))
			<-gone // a reset would overtake what the proxy has not read
			end(c)
		}, oneFailureOpens)
		c := s.login(t, p.client)
		must(t, c.send("\talice\tfetch\tuid text\tall\n"))
		for got := ""; !strings.Contains(got, "\x01"); {
			_, err := c.in.Peek(c.in.Buffered() + 1)
			must(t, err)
			data, err := c.in.Peek(c.in.Buffered())
			must(t, err)
			got = string(data)
		}
		close(gone)
		r, err := c.reply()
		must(t, err)
		if r.output != "u1\tt1\tu2\tt\x011\t" {
			t.Errorf("%s: output %q", name, r.output)
		}
		c.failed(t, r, "-TEMPFAIL", "backend b1 was lost in the middle of the command")
		s.log.wait(t, "[ERROR]", "outcome=lost", "status=-TEMPFAIL")
		s.log.wait(t, "circuit breaker opened") // it was told
		c.refused(t, "\talice\tquota get\n", "-TEMPFAIL", "circuit breaker is open")
		if got := srv.Commands(); len(got) != 1 {
			t.Errorf("%s: the backend got %+v", name, got)
		}
	}
}

func goneColumnsUnknown(t *testing.T, p pair) {
	s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name != "quota get" {
			c.Output([]byte("one\ttwo\tthr"))
			c.Close()
			return
		}
		answer(c, cmd)
	}, nil)
	c := s.login(t, p.client)
	must(t, c.send("\talice\tno such command\n"))
	r, err := c.reply()
	if err != io.EOF || r.output != "one\ttwo\tthr" {
		t.Errorf("got %q, %v, want what arrived and the end of the connection", r, err)
	}
	c.failed(t, r, "", "backend b1 was lost in the middle of the command")
	s.log.wait(t, "[ERROR]", "outcome=lost")
	s.login(t, p.client).works(t)
}

func silentTooLong(t *testing.T, p pair) {
	const limit = 300 * time.Millisecond
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		switch cmd.Name {
		case "quota get":
			answer(c, cmd)
		case "fetch":
			c.Fields("u1", "t1")
			c.Output([]byte("u2"))
			c.Hang()
		default:
			c.Hang()
		}
	}, both(neverOpens, func(c *config.Config) {
		first(c).Timeouts.Normal = config.CommandTimeouts{FirstReply: limit, Reply: limit}
	}))
	c := s.login(t, p.client)
	c.works(t)
	r := c.run(t, "\talice\tfetch\tuid text\tall\n")
	if r.output != "u1\tt1\tu2\t\t" {
		t.Errorf("output %q", r.output)
	}
	c.failed(t, r, "-TEMPFAIL", "backend b1 did not go on with its answer within 300ms (timeouts.normal.reply)")
	s.log.wait(t, "[ERROR]", "outcome=timeout", "status=-TEMPFAIL")
	c.works(t)
	// Not repeated: it may be at work still.
	c.refused(t, "\talice\tsearch\tall\n", "-TEMPFAIL", "backend b1 did not answer within 300ms (timeouts.normal.first_reply)")
	c.works(t)
	if got := srv.Commands(); len(got) != 5 {
		t.Errorf("the backend got %+v", got)
	}
	eventually(t, "the mute connections are closed", func() bool { return len(srv.Conns()) == 1 })
}

func slowerThanTheCommand(t *testing.T, p pair) {
	const limit = 300 * time.Millisecond
	s, _ := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "search" {
			answer(c, cmd)
			return
		}
		for c.Context().Err() == nil { // goes on and on
			c.Fields("1")
			time.Sleep(limit / 10)
		}
	}, both(neverOpens, func(c *config.Config) { first(c).Timeouts.Quick.Command = limit }))
	c := s.login(t, p.client)
	r := c.run(t, "\talice\tmailbox list\n")
	c.failed(t, r, "-TEMPFAIL", "backend b1 did not end its answer within 300ms (timeouts.quick.command)")
	if !strings.HasPrefix(r.output, "1\t1\t") {
		t.Errorf("output %q", r.output)
	}
	s.log.wait(t, "[ERROR]", "outcome=timeout", "status=-TEMPFAIL")
	if r := c.run(t, "\talice\tsearch\tall\n"); r.status != "+" {
		t.Errorf("a command of another class: %q", r)
	}
}

// retryBudget: a backend that loses every second command does not get each of
// them twice.
func retryBudget(t *testing.T, p pair) {
	var used sync.Map // connections
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if _, again := used.LoadOrStore(c.Number(), true); again {
			c.Close()
			return
		}
		answer(c, cmd)
	}, neverOpens)
	c := s.login(t, p.client)
	const commands = 40
	failed := 0
	for range commands {
		r := c.run(t, "\talice\tquota get\n")
		if r.status != "+" {
			c.failed(t, r, "-TEMPFAIL", "backend b1 closed the connection without a reply")
			failed++
		}
	}
	if again := len(srv.Commands()) - commands; again != 10 || failed == 0 {
		t.Errorf("%d commands were sent again, %d failed, want 10 and more than none", again, failed)
	}
	s.log.wait(t, "[WARN]", "too many commands lost their connection", "backend=b1")
}

func referral(t *testing.T, p pair) {
	send := map[string]func(c *doveadmtest.Conn){
		"at once": func(c *doveadmtest.Conn) { c.Status("-REFERRAL alice@192.0.2.1") },
		"in pieces": func(c *doveadmtest.Conn) {
			c.Output([]byte("\n"))
			c.Output([]byte("-REFERRAL alice@192.0"))
			c.Output([]byte(".2.1\n"))
		},
		"a name":      func(c *doveadmtest.Conn) { c.Status("-REFERRAL alice@mail9:24245") },
		"to nobody":   func(c *doveadmtest.Conn) { c.Status("-REFERRAL") },
		"control":     func(c *doveadmtest.Conn) { c.Status("-REFERRAL a\x01\x1b[31m@b\x04") },
		"behind rows": func(c *doveadmtest.Conn) { c.Output([]byte("u1\tt1\t\n-REFERRAL alice@192.0.2.1\n")) },
		"behind rows in pieces": func(c *doveadmtest.Conn) {
			c.Output([]byte("u1\tt1\t"))
			c.Output([]byte("\n"))
			c.Output([]byte("-REFERRAL alice@192.0.2.1\n"))
		},
	}
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "quota get" {
			answer(c, cmd)
			return
		}
		send[cmd.Args[1]](c)
	}, oneFailureOpens)
	c := s.login(t, p.client)
	for i, tc := range []struct{ query, output, reason string }{
		{"at once", "", "no backend has this address, and it is not in referrals.networks"},
		{"in pieces", "", "no backend has this address"},
		{"a name", "", "refers to alice@mail9:24245: no backend has this address, and it is not an IP address"},
		{"to nobody", "", "no backend has this address"},
		{"control", "", `refers to "a\x01\x1b[31m@b\x04": no backend`},
		{"behind rows", "u1\tt1\t", "after it has begun to answer"},
		{"behind rows in pieces", "u1\tt1\t", "after it has begun to answer"},
	} {
		r := c.run(t, "\talice\tfetch\tuid text\t"+tc.query+"\n")
		if r.output != tc.output {
			t.Errorf("%s: output %q, want %q", tc.query, r.output, tc.output)
		}
		c.failed(t, r, "-TEMPFAIL", "backend b1 refers to ", tc.reason)
		c.works(t)
		// The connection is not used again.
		if got := srv.Accepted(); got != i+2 {
			t.Errorf("%s: %d connections, want %d", tc.query, got, i+2)
		}
	}
	s.log.wait(t, "[ERROR]", "outcome=referral", "status=-TEMPFAIL")
}

func clientGone(t *testing.T, p pair, leave func(c *client)) {
	var streams atomic.Int64
	s, srv := startWith(t, p.backend, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "quota get" {
			answer(c, cmd)
			return
		}
		streams.Add(1)
		row := []byte("1\t" + strings.Repeat("x", 60<<10) + "\t")
		for range 500 { // more than sockets hold
			c.Output(row)
		}
		c.Hang() // until the proxy closes
	}, oneFailureOpens)
	c := s.login(t, p.client)
	c.works(t)
	must(t, c.send("\talice\tfetch\tuid text\tall\n"))
	if _, err := c.in.Peek(100); err != nil {
		t.Fatal(err)
	}
	leave(c)
	eventually(t, "the connection to the backend is closed", func() bool { return len(srv.Conns()) == 0 })
	s.log.wait(t, "[INFO]", "command=fetch", "outcome=client-gone")
	s.login(t, p.client).works(t)
	if got := streams.Load(); got != 1 {
		t.Errorf("the command ran %d times", got)
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
