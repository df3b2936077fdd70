package authmaster

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// passdb has the lines of a second passdb, whose users are proxied.
var passdb = map[dovecot.Version]string{
	dovecot.V23: `
passdb {
  driver = passwd-file
  args = username_format=%u {{.Dir}}/proxied
}
service auth {
  inet_listener auth-master {
    address = 127.0.0.1
    port = PORT
  }
}
`,
	dovecot.V24: `
passdb proxied {
  driver = passwd-file
  passwd_file_path = {{.Dir}}/proxied
  auth_username_format = %{user}
}
service auth {
  inet_listener proxies {
    type = master
    listen = 127.0.0.1
    port = PORT
  }
}
`,
}

const proxied = `
bob:{PLAIN}x::::::proxy=y host=10.0.0.1
carol@example.com:{PLAIN}x::::::proxy=y host=10.0.0.2 port=1234 destuser=eve starttls=any-cert
dave:{PLAIN}x::::::nologin=y
lost:{PLAIN}x::::::proxy=y host=does-not-exist.invalid
mad:{PLAIN}x::::::proxy=y host=10.0.0.1 port=imap
`

// TestDovecot asks the auth processes of both versions: who is there, who is
// not, what makes no sense, one that does not answer, one that is gone, one
// that came back.
func TestDovecot(t *testing.T) {
	t.Parallel()
	for _, version := range []dovecot.Version{dovecot.V23, dovecot.V24} {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			reserved, err := dovecot.ReservePort()
			if err != nil {
				t.Fatal(err)
			}
			defer reserved.Close()
			_, port, _ := net.SplitHostPort(reserved.Addr)
			s, err := dovecot.Start(t.Context(), dovecot.Options{Version: version, Name: "auth", Users: []string{"local"}, Config: strings.ReplaceAll(passdb[version], "PORT", port)})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := os.WriteFile(filepath.Join(s.Dir, "proxied"), []byte(proxied), 0o644); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(s.Dir, "run", "auth-userdb")
			source := NewSource(config.DovecotAuth{Network: "unix", Address: socket, Port: 24245})
			defer source.Close()
			ask := func(user string, timeout time.Duration) string {
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				place, found, err := source.Lookup(ctx, user)
				switch {
				case err != nil:
					return err.Error()
				case !found:
					return "not found"
				}
				return strings.TrimSpace(fmt.Sprint(place.Target.Address(), " ", place.Target.User, " ", place.Target.TLS))
			}
			check := func(user, want string, timeout time.Duration) {
				t.Helper()
				if got := ask(user, timeout); got != want && (want == "not found" || !strings.Contains(got, want)) {
					t.Errorf("%s: %s; want %s\n%s", user, got, want, s.Log())
				}
			}
			const patient, impatient = 10 * time.Second, 200 * time.Millisecond
			check("bob", "10.0.0.1:24245", patient)
			check("carol@example.com", "10.0.0.2:1234 eve starttls", patient)
			check("local", "not found", patient) // known, and not proxied
			check("dave", "not found", patient)
			check("nobody", "not found", patient)
			check("tab\tline\nbob", "not found", patient)
			check("mad", "makes no sense", patient)
			check("lost", "the passdb failed", patient) // its host has no address: not "not found"

			tcp := NewSource(config.DovecotAuth{Network: "tcp", Address: reserved.Addr, Port: 1})
			defer tcp.Close()
			if place, found, err := tcp.Lookup(t.Context(), "bob"); err != nil || !found || place.Target.Address() != "10.0.0.1:1" {
				t.Errorf("over TCP: %+v, %v, %v\n%s", place, found, err, s.Log())
			}

			// Many at a time, over one connection.
			var asking sync.WaitGroup
			for i := range 8 {
				asking.Go(func() {
					for range 50 {
						user, want := "bob", "10.0.0.1:24245"
						if i%2 == 1 {
							user, want = fmt.Sprint("nobody", i), "not found"
						}
						if got := ask(user, patient); got != want {
							t.Errorf("%s: %s; want %s", user, got, want)
						}
					}
				})
			}
			asking.Wait()

			pid := authProcess(t, socket)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			check("bob", "no answer in time", impatient)
			check("bob", "no greeting", impatient) // on a new connection
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			check("bob", "10.0.0.1:24245", patient)
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			check("bob", "10.0.0.1:24245", patient) // nobody noticed
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			if got := ask("bob", patient); got == "not found" || !strings.Contains(got, "auth socket") {
				t.Errorf("with Dovecot down: %s", got)
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			check("bob", "10.0.0.1:24245", patient)

			login := NewSource(config.DovecotAuth{Network: "unix", Address: filepath.Join(s.Dir, "run", "login", "login"), Port: 1})
			defer login.Close()
			if _, _, err := login.Lookup(t.Context(), "bob"); err == nil || !strings.Contains(err.Error(), "socket") {
				t.Errorf("the socket for logins: %v", err)
			}
		})
	}
}

// authProcess returns the number of the auth process, which it says itself.
func authProcess(t *testing.T, socket string) int {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if digits, ok := strings.CutPrefix(lines.Text(), "SPID\t"); ok {
			pid, err := strconv.Atoi(digits)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no SPID in the greeting")
	return 0
}
