package router

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// realDirector is a Dovecot 2.3 that runs as a director, and a connection to
// the socket on which doveadm director talks to it.
type realDirector struct {
	conn  net.Conn
	lines *bufio.Reader
}

func startDirector(t *testing.T, servers, usernameHash string) *realDirector {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	_, number, _ := net.SplitHostPort(port.Addr)
	server, err := dovecot.Start(ctx, dovecot.Options{Name: "director", Config: fmt.Sprintf(`
director_servers = %s
director_mail_servers = %s
director_username_hash = %s
service director {
  unix_listener director-admin {
    mode = 0600
  }
  inet_listener {
    address = 127.0.0.1
    port = %s
  }
}
`, port.Addr, servers, usernameHash, number)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := net.Dial("unix", filepath.Join(server.Dir, "run", "director-admin"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	d := &realDirector{conn, bufio.NewReader(conn)}
	if _, err := conn.Write([]byte("VERSION\tdirector-doveadm\t1\t0\n")); err != nil {
		t.Fatal(err)
	}
	if line := d.line(t); !strings.HasPrefix(line, "VERSION\tdirector-doveadm\t1") {
		t.Fatalf("the director greets with %q; its log:\n%s", line, server.Log())
	}
	return d
}

func (d *realDirector) line(t *testing.T) string {
	t.Helper()
	line, err := d.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the director: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// do runs a command that changes the ring.
func (d *realDirector) do(t *testing.T, command ...string) {
	t.Helper()
	if _, err := d.conn.Write([]byte(strings.Join(command, "\t") + "\n")); err != nil {
		t.Fatal(err)
	}
	if line := d.line(t); line != "OK" {
		t.Fatalf("%q: %s", command, line)
	}
}

// lookup returns the servers of users with a tag.
func (d *realDirector) lookup(t *testing.T, users []string, tag string) []string {
	t.Helper()
	written := make(chan error, 1)
	go func() {
		out := bufio.NewWriter(d.conn)
		for _, user := range users {
			fmt.Fprintf(out, "USER-LOOKUP\t%s\t%s\n", user, tag)
		}
		written <- out.Flush()
	}()
	var servers []string
	for range users {
		// The server that the user is on, until when, and by the hash now and as configured.
		fields := strings.Split(d.line(t), "\t")
		if len(fields) != 4 {
			t.Fatalf("the director answers %q", fields)
		}
		servers = append(servers, fields[2])
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	return servers
}

// hosts returns the servers as the director has them.
func (d *realDirector) hosts(t *testing.T) []config.RingServer {
	t.Helper()
	if _, err := d.conn.Write([]byte("HOST-LIST\n")); err != nil {
		t.Fatal(err)
	}
	var servers []config.RingServer
	for {
		line := d.line(t)
		if line == "" {
			return servers
		}
		// ip, vhosts, users, tag, U or D, time
		fields := strings.Split(line, "\t")
		s := config.RingServer{Tag: fields[3], Down: fields[4] == "D"}
		var err error
		if s.Address, err = netip.ParseAddr(fields[0]); err != nil {
			t.Fatal(err)
		}
		fmt.Sscan(fields[1], &s.VHosts)
		servers = append(servers, s)
	}
}

// directorUsers are users of all kinds.
func directorUsers() []string {
	r := rand.New(rand.NewPCG(6, 1))
	domains := []string{"example.com", "Example.COM", "mail.example.org", "exämple.net", "b"}
	var users []string
	for len(users) < 10_000 {
		user := fmt.Sprintf("user%d@%s", len(users), domains[r.IntN(len(domains))])
		switch r.IntN(6) {
		case 0:
			letters := "abcXYZ0189.-_+=%'\"\\ "
			local := make([]byte, 1+r.IntN(40))
			for i := range local {
				local[i] = letters[r.IntN(len(letters))]
			}
			// Doveadm takes a number for the hash itself.
			user = "u" + string(local) + "@" + domains[r.IntN(len(domains))]
		case 1:
			user = fmt.Sprintf("local%d", len(users))
		case 2:
			user = fmt.Sprintf("a@b%d@%s", len(users), domains[r.IntN(len(domains))])
		}
		users = append(users, user)
	}
	return users
}

// TestDirector holds the ring to what a real director of Dovecot 2.3 answers:
// 10,000 users in each of five rings.
func TestDirector(t *testing.T) {
	t.Parallel()
	users := directorUsers()
	for _, test := range []struct {
		name    string
		servers string // director_mail_servers
		hash    string
		tags    []string
		change  [][]string
	}{
		{name: "plain", servers: "10.0.1.1 10.0.1.2 192.0.2.130", hash: "%Lu", tags: []string{""}},
		{
			name: "weights", servers: "10.0.1.1-10.0.1.9", hash: "%u", tags: []string{""},
			change: [][]string{
				{"HOST-SET", "10.0.1.1", "0"},
				{"HOST-SET", "10.0.1.2", "1"},
				{"HOST-SET", "10.0.1.3", "50"},
				{"HOST-SET", "10.0.1.4", "250"},
				{"HOST-SET", "10.0.1.5", "1000"},
				{"HOST-SET", "10.0.2.1", "17"},
			},
		},
		{
			name: "tags", servers: "10.0.1.1 10.0.1.2 10.0.1.3@eu 10.0.1.4@eu 10.0.1.5@us", hash: "%Ln", tags: []string{"", "eu", "us"},
			change: [][]string{{"HOST-SET", "10.0.1.4@eu", "30"}, {"HOST-SET", "10.0.1.9@us", "200"}},
		},
		{
			name: "IPv6", servers: "2001:db8::1 2001:db8:0:0:1::1 2001:DB8::a:0:0:b ::ffff:10.0.0.1 ::10.0.0.1 ::1 ::5:1 fe80::1 2001:db8:1:0:2:0:3:4 10.0.0.1 2001:db8:7::fff0-2001:db8:7::ffff",
			hash: "%Ld/%2.8MLn", tags: []string{""},
		},
		{
			name: "down", servers: "10.0.1.1-10.0.1.250 2001:db8::1 10.0.3.1@eu 10.0.3.2@eu", hash: "%{domain}%-3.0Ru", tags: []string{"", "eu"},
			change: [][]string{
				{"HOST-DOWN", "10.0.1.7"},
				{"HOST-DOWN", "10.0.1.8"},
				{"HOST-DOWN", "10.0.1.9"},
				{"HOST-UP", "10.0.1.8"},
				{"HOST-DOWN", "10.0.3.2"},
				{"HOST-REMOVE", "10.0.1.200"},
				{"HOST-SET", "10.0.1.9", "300"},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			real := startDirector(t, test.servers, test.hash)
			for _, command := range test.change {
				real.do(t, command...)
			}
			servers := real.hosts(t)
			var shards []string
			for i := range servers {
				// Named so that a shard tells the server's text as the director has it.
				servers[i].Shard = servers[i].Address.String()
				if text := addressText(servers[i].Address); text != servers[i].Shard {
					servers[i].Shard = text
				}
				if !slices.Contains(shards, servers[i].Shard) {
					shards = append(shards, servers[i].Shard)
				}
			}
			names := newNames(t, config.Router{UsernameFormat: "%u"}) // a director's socket takes users as they are
			for _, tag := range test.tags {
				table, err := New(names, []config.Route{{
					Kind: "ring",
					Ring: config.Ring{Algorithm: config.RingDirector, UsernameHash: test.hash, Tag: tag, Servers: servers},
				}}, shards)
				if err != nil {
					t.Fatal(err)
				}
				wrong, seen := 0, make(map[string]int)
				for i, want := range real.lookup(t, users, tag) {
					got := shardOf(t, table, users[i])
					seen[want]++
					if got != want {
						if wrong++; wrong <= 5 {
							t.Errorf("tag %q: %q is on %s; on the real director it is on %s", tag, users[i], got, want)
						}
					}
				}
				if wrong > 0 {
					t.Errorf("tag %q: %d of %d users are elsewhere", tag, wrong, len(users))
				}
				t.Logf("tag %q: %d users on %d servers as on the real director", tag, len(users)-wrong, len(seen))
			}
		})
	}
}
