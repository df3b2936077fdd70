package proxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// TestSameLoginName: old clients, who can only say one name, are told apart by
// listener and network; each has its own password and its own rights.
func TestSameLoginName(t *testing.T) {
	s, _ := startWith(t, 3, answer, func(c *config.Config) {
		old := c.Clients[0]
		old.Name, old.Username = "old", clientName
		near := old
		near.Name, near.Networks = "near", []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
		near.Deny = []config.Rule{{Commands: []string{"purge"}}}
		other := old
		other.Name, other.Listeners, other.Password = "other", []string{"second"}, config.NewSecret("{PLAIN}another")
		c.Clients = []config.Client{near, other, old}
		c.Listeners = append(c.Listeners, config.Listener{Name: "second", Network: "tcp", Address: "127.0.0.1:0"})
	})
	run := func(c *client, line, status string) {
		t.Helper()
		must(t, c.login(client13))
		if r := c.run(t, line); r.status != status {
			t.Errorf("%s: %s %q, want %s", line, r.status, r.logs, status)
		}
	}
	run(s.connect(t), "\talice\tpurge\n", "+")
	run(s.connectFrom(t, "127.0.0.2"), "\talice\tpurge\n", "-NOPERM")
	s.log.wait(t, "client=near", "outcome=denied", "deny #1 of client near")
	s.log.wait(t, "client=old", "command=purge", "outcome=answered")

	// On the second listener the name stands for somebody with another password.
	c := s.connectTo(t, "second", 0)
	if err := c.login(client13); err == nil {
		t.Error("the password of one client opened another")
	}
	s.log.wait(t, "login failed", "client=panel")

	// The names of the blocks are none to log in with.
	if err := s.connect(t).loginAs("old", client13); err == nil {
		t.Error("logged in by the name of the block")
	}
}

// TestCertificateIsIdentity: whoever has the certificate needs no login, and
// nobody else gets in as that client.
func TestCertificateIsIdentity(t *testing.T) {
	a := newAuthority(t)
	for _, mode := range []string{config.TLSImplicit, config.TLSStartTLSRequired} {
		t.Run(mode, func(t *testing.T) {
			s, _ := startWith(t, 3, answer, func(c *config.Config) {
				a.on(mode)(c)
				c.Listeners[0].TLS.ClientCAFile = a.path("ca.crt")
				robot := config.Client{Name: "robot", TLSNames: []string{"dns:robot.example"}, PipelineDepth: 1, Priority: config.PriorityInteractive}
				both := c.Clients[0]
				both.Name, both.Username, both.TLSNames = "both", clientName, []string{"dns:both.example"}
				c.Clients = []config.Client{robot, both}
			})
			connect := func(name string) *client {
				c := s.connect(t)
				secure := a.client()
				secure.Certificates = []tls.Certificate{a.Issue(t, name).TLS()}
				if mode == config.TLSImplicit {
					must(t, c.secure(secure))
				} else {
					must(t, c.startTLS(2, secure))
				}
				return c
			}
			c := connect("robot.example")
			if mode == config.TLSImplicit {
				c.clientKind = clientKinds[2]
				must(t, c.send(versionLine(2)))
				want := "VERSION\tdoveadm-client\t1\t4\n+\n"
				if got := c.lines(t, 2); got != want {
					t.Fatalf("greeted with %q, want %q", got, want)
				}
			} else if got, err := c.loginAfterSTARTTLS(clientKinds[2], "whatever it says"); got != "+\n" || err != nil {
				t.Fatalf("login: %q, %v", got, err)
			}
			c.works(t)
			s.log.wait(t, "client=robot", "outcome=answered")

			// One that has a password besides has to say it.
			for password, want := range map[string]string{clientPassword: "+\n", "wrong": "-\n"} {
				c := connect("both.example")
				if mode == config.TLSImplicit {
					must(t, c.send(versionLine(2)))
					if got := c.lines(t, 2); got != "VERSION\tdoveadm-client\t1\t4\n-\n" {
						t.Fatalf("greeted with %q", got)
					}
				}
				if got, err := c.loginAfterSTARTTLS(clientKinds[2], password); got != want || err != nil {
					t.Errorf("password %q: %q, %v", password, got, err)
				}
			}
			c = connect("other.example")
			if mode == config.TLSImplicit {
				must(t, c.send(versionLine(2)))
				c.lines(t, 2)
			}
			if got, err := c.loginAfterSTARTTLS(clientKinds[2], clientPassword); got != "-\n" || err != nil {
				t.Errorf("another certificate: %q, %v", got, err)
			}
		})
	}
}

// lines reads so many.
func (c *client) lines(t testing.TB, n int) (text string) {
	t.Helper()
	for range n {
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatalf("%q, then %v", text+line, err)
		}
		text += line
	}
	return text
}

// TestAccountIsIdentity: on a UNIX socket the kernel says who is there.
func TestAccountIsIdentity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	for _, test := range []struct {
		name string
		uid  int
		want string
	}{
		{"own account", os.Getuid(), "+\n"},
		{"other account", os.Getuid() + 1, "-\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := startWith(t, 3, answer, func(c *config.Config) {
				c.Listeners = append(c.Listeners, config.Listener{Name: "local", Network: "unix", Address: path, Mode: 0o600})
				c.Clients = append(c.Clients, config.Client{
					Name: "ops", UnixUsers: []config.Account{{Name: fmt.Sprint(test.uid), ID: uint32(test.uid)}}, PipelineDepth: 1, Priority: config.PriorityInteractive,
				})
			})
			nc, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(patience))
			c := &client{clientKind: clientKinds[2], nc: nc.(*net.UnixConn), in: bufio.NewReader(nc)}
			must(t, c.send(versionLine(2)))
			if got := c.lines(t, 2); got != "VERSION\tdoveadm-client\t1\t4\n"+test.want {
				t.Fatalf("greeted with %q", got)
			}
			if test.want == "+\n" {
				c.works(t)
				s.log.wait(t, "client=ops", "outcome=answered")
			}
		})
	}
}
