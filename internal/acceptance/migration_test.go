package acceptance

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// directorSite is a director of Dovecot 2.3 before three backends, each with a
// mailbox of its own for every user: which one answers can be seen.
type directorSite struct {
	backends []*dovecot.Server
	director *dovecot.Server
	ips      []string // of the backends
	addr     string   // of the director's doveadm
	password string
	users    []string
}

func startDirectorSite(t *testing.T, users []string) *directorSite {
	t.Helper()
	d := &directorSite{password: "everybody's password", users: users}
	// Directors know addresses, and one port for all of them.
	network := ownNetwork()
	for i := range 3 {
		ip := fmt.Sprintf("%s.%d", network, i+1)
		s := dovecottest.Start(t, dovecot.Options{
			Name: fmt.Sprintf("mail%d", i+1), Users: users, Password: d.password,
			Config: fmt.Sprintf("service doveadm {\n  inet_listener all {\n    address = %s\n    port = 24245\n  }\n}\n", ip),
		})
		for _, user := range users {
			if err := s.SaveMail(user, fmt.Sprintf("Of-mail%d", i+1)); err != nil {
				t.Fatal(err)
			}
		}
		d.backends, d.ips = append(d.backends, s), append(d.ips, ip)
	}
	self := network + ".9"
	d.director = dovecottest.Start(t, dovecot.Options{Name: "director1", Users: users, Password: d.password, Config: fmt.Sprintf(`
director_servers = %[1]s:9090
director_mail_servers = %[2]s
director_username_hash = %%Ln
doveadm_port = 24245
service director {
  unix_listener login/director {
    mode = 0666
  }
  unix_listener director-admin {
    mode = 0600
  }
  unix_listener director-userdb {
    mode = 0600
  }
  inet_listener {
    address = %[1]s
    port = 9090
  }
}
protocol doveadm {
  auth_socket_path = director-userdb
}
`, self, strings.Join(d.ips, " "))})
	// It proxies everybody, and does not look into the users' passwords.
	config, err := os.ReadFile(d.director.Config)
	if err != nil {
		t.Fatal(err)
	}
	before := string(config)
	at := strings.Index(before, "passdb {")
	end := at + strings.Index(before[at:], "}")
	if err := os.WriteFile(d.director.Config, []byte(before[:at]+"passdb {\n  driver = static\n  args = proxy=y nopassword=y\n"+before[end:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.director.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.addr = d.director.Addr
	return d
}

// doveadm runs a command at the director itself.
func (d *directorSite) doveadm(t *testing.T, args ...string) string {
	t.Helper()
	r, err := d.director.Doveadm(t.Context(), args...)
	if err != nil || r.ExitCode != 0 {
		t.Fatalf("doveadm %s: %v, %+v", strings.Join(args, " "), err, r)
	}
	return r.Stdout
}

// where returns the backend that answers for each user at an address.
func (d *directorSite) where(t *testing.T, addr string) map[string]string {
	t.Helper()
	answers := make([]dovecot.Result, len(d.users))
	var g errgroup.Group
	g.SetLimit(4)
	for i, user := range d.users {
		g.Go(func() (err error) {
			answers[i], err = dovecot.Client{Addr: addr, Password: d.password}.Run(t.Context(), "mailbox list", "-u", user, "Of-*")
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for i, r := range answers {
		name, ok := strings.CutPrefix(strings.TrimSpace(r.Stdout), "Of-")
		if !ok || r.ExitCode != 0 {
			t.Fatalf("%s at %s: %+v", d.users[i], addr, r)
		}
		at[d.users[i]] = name
	}
	return at
}

// TestMigration does what docs/migrating-from-director.md says, command by
// command, while clients send commands all the time, first to the director, then
// to the proxy. No command fails, none is lost or doubled, and nobody is on
// another backend afterwards.
func TestMigration(t *testing.T) {
	t.Parallel()
	deb := built(t, "deb")
	var users []string
	for i := range 12 {
		users = append(users, fmt.Sprintf("user%d", i+1))
	}
	d := startDirectorSite(t, users)
	// Spread by the hash, with one vhost count changed, then some moved by hand.
	d.where(t, d.addr)
	d.doveadm(t, "director", "update", d.ips[1], "40")
	hashed := d.where(t, d.addr)
	want := maps.Clone(hashed)
	move := func(user string, to int) {
		d.doveadm(t, "director", "move", user, d.ips[to-1])
		want[user] = fmt.Sprintf("mail%d", to)
	}
	for _, user := range []string{"user3", "user4", "user5"} {
		if hashed[user] != "mail1" {
			move(user, 1)
		} else {
			move(user, 3)
		}
	}
	if hashed["user6"] != "mail2" { // which has few, or none
		move("user6", 2)
	}
	before := d.where(t, d.addr)
	count := map[string]int{}
	for user, backend := range before {
		count[backend]++
		if backend != want[user] {
			t.Errorf("%s: %s by its hash, %s after the moves; want %s", user, hashed[user], backend, want[user])
		}
	}
	if len(count) != 3 {
		t.Fatalf("users by backend: %v", count)
	}

	m := startMachine(t)
	m.ssh(map[string]*dovecot.Server{"director1": d.director})
	copyFile(t, deb, filepath.Join(m.dir, "home", filepath.Base(deb)))
	listen := "127.0.0.1:" + freePort(t)

	// Clients, each of which has the address it uses from one place.
	var endpoint sync.Map
	endpoint.Store("addr", d.addr)
	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	ledgers := make([]map[string]string, 3) // mailbox to user
	var sent [2]sync.Map
	for i := range ledgers {
		ledgers[i] = map[string]string{}
		clients.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				user := users[(n*len(ledgers)+i)%len(users)]
				addr, _ := endpoint.Load("addr")
				name := fmt.Sprintf("Loop-%d-%d", i, n)
				c := dovecot.Client{Addr: addr.(string), Password: d.password}
				r, err := c.Run(context.Background(), "mailbox create", "-u", user, name)
				if err != nil || r.ExitCode != 0 || r.Stderr != "" {
					t.Errorf("client %d at %s: mailbox create -u %s %s: %v, %+v", i, addr, user, name, err, r)
				}
				ledgers[i][name] = user
				which := 0
				if addr == listen {
					which = 1
				}
				sent[which].Store(name, true)
				time.Sleep(500 * time.Millisecond) // the machine has other work
			}
		})
	}
	defer clients.Wait()
	defer stop()

	replace := strings.NewReplacer("127.0.0.1:24245", listen, "doveadm-proxy import ", "doveadm-proxy import --listen "+listen+" ")
	var out strings.Builder
	for _, block := range shellBlocks(t, "../../docs/migrating-from-director.md") {
		block = replace.Replace(block)
		got, err := m.terminal(block, map[string]string{"doveadm_password of the backends": d.password, "password for clients": d.password}, "CLIENT_PASSWORD="+d.password)
		fmt.Fprintf(&out, "$ %s%s", block, got)
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	t.Logf("%s", out.String())
	if !strings.Contains(out.String(), fmt.Sprintf("the same for %d users", len(users))) {
		t.Error("director and proxy were not compared")
	}
	endpoint.Store("addr", listen) // step 5
	size := func(m *sync.Map) (n int) {
		m.Range(func(any, any) bool { n++; return true })
		return n
	}
	for deadline := time.Now().Add(2 * time.Minute); size(&sent[1]) < 15 && !t.Failed() && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	clients.Wait()

	after := d.where(t, listen)
	for _, user := range users {
		if after[user] != before[user] {
			t.Errorf("%s was on %s and is on %s", user, before[user], after[user])
		}
	}
	// Each command ran once, where its user is.
	found := map[string]string{}
	for i, s := range d.backends {
		for _, user := range users {
			r := dovecottest.Run(t, s.Client(), "mailbox list", "-u", user, "Loop-*")
			for name := range strings.FieldsSeq(r.Stdout) {
				if found[name] != "" || before[user] != fmt.Sprintf("mail%d", i+1) {
					t.Errorf("mailbox %s of %s is on mail%d", name, user, i+1)
				}
				found[name] = user
			}
		}
	}
	total := 0
	for i := range ledgers {
		for name, user := range ledgers[i] {
			total++
			if found[name] != user {
				t.Errorf("mailbox %s of %s was made, and is of %q", name, user, found[name])
			}
		}
	}
	if len(found) != total {
		t.Errorf("%d mailboxes for %d commands", len(found), total)
	}
	old, fresh := size(&sent[0]), size(&sent[1])
	t.Logf("%d commands to the director, %d to the proxy, all done once; users by backend before and after: %v", old, fresh, count)
	if old == 0 || fresh == 0 {
		t.Errorf("%d commands to the director, %d to the proxy: the switch was not under load", old, fresh)
	}
}
