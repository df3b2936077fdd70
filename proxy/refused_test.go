package proxy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

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
