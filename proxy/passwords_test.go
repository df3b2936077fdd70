package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// loginWith reports whether the proxy takes a password of the client.
func (s *site) loginAs(t *testing.T, password string) bool {
	t.Helper()
	c := s.connect(t)
	must(t, c.send("VERSION\tdoveadm-server\t1\t3\n"+plain(clientName, password)))
	for _, want := range []string{"VERSION\tdoveadm-client\t1\t4\n", "-\n"} {
		if line, err := c.in.ReadString('\n'); err != nil || line != want {
			t.Fatalf("got %q, %v; want %q", line, err, want)
		}
	}
	line, err := c.in.ReadString('\n')
	if err != nil || line != "+\n" && line != "-\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	return line == "+\n"
}

// A client's password is replaced in its file, with no reload and no moment
// without a valid one; so is that of a backend.
func TestPasswordFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	clientFile, backendFile := filepath.Join(dir, "client"), filepath.Join(dir, "backend")
	put := func(path, format string, args ...any) {
		t.Helper()
		must(t, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600))
	}
	put(clientFile, "{PLAIN}first\n")
	put(backendFile, "not yet\n%s\n", backendPassword)
	b := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 3, Password: backendPassword, Handler: answer})
	cfg := configure(t, func(c *config.Config) {
		c.Clients[0].PasswordFile = clientFile
		c.Clients[0].Password = config.NewSecret("{PLAIN}first")
		first(c).PasswordFile = backendFile
		first(c).Password, first(c).OldPassword = config.NewSecret("not yet"), config.NewSecret(backendPassword)
	}, b.Addr())
	s := start(t, cfg)

	if !s.loginAs(t, "first") || s.loginAs(t, "second") {
		t.Error("before: first is right and second is wrong")
	}
	put(clientFile, "{PLAIN}second\n{PLAIN}first\n")
	eventually(t, "the second password is right", func() bool { return s.loginAs(t, "second") })
	if !s.loginAs(t, "first") {
		t.Error("the old password is not right any more")
	}
	s.log.wait(t, "[WARN]", "login with the old password", "client="+clientName, "peer=127.0.0.1:")
	s.log.wait(t, "[INFO]", "Password files have changed", clientFile, "client="+clientName)

	put(clientFile, "{MD5}rubbish\n")
	eventually(t, "the log complains", func() bool {
		s.loginAs(t, "second")
		return len(s.log.lines("[ERROR]", "cannot be used", clientFile)) > 0
	})
	if !s.loginAs(t, "second") || !s.loginAs(t, "first") {
		t.Error("after a file that cannot be used")
	}

	// A reload does not forget who used what.
	put(clientFile, "{PLAIN}second\n{PLAIN}first\n")
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	all := s.Passwords()
	if len(all) != 2 || all[0].OldUsed.IsZero() || time.Since(all[0].Changed) > time.Hour {
		t.Fatalf("%+v", all)
	}
	want := proxy.Password{Client: clientName, File: clientFile, HasOld: true, Changed: all[0].Changed, OldUsed: all[0].OldUsed}
	if all[0] != want {
		t.Errorf("got %+v, want %+v", all[0], want)
	}

	put(clientFile, "{PLAIN}second\n")
	eventually(t, "the old password is wrong", func() bool { return !s.loginAs(t, "first") })

	c := s.connect(t)
	must(t, c.loginWith(clientName, "second", client13))
	c.works(t)
	s.log.wait(t, "[WARN]", "backend=b1", "refuses the new password")
	if all := s.Passwords(); !all[1].OldInUse || all[1].Backend != "b1" || all[1].File != backendFile {
		t.Errorf("%+v", all[1])
	}
}
