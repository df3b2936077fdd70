package doveadm

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// The servers know the commands that the table says they know, and no other.
// An option that no command has shows it: a server answers USAGE before it runs
// anything, and to an unknown command a failure without code.
func TestCommandTableAsServed(t *testing.T) {
	for _, server := range []struct {
		series  Series
		options dovecot.Options
	}{
		{Series23, dovecot.Options{Version: dovecot.V23, Config: "mail_plugins = quota acl fts mail_crypt"}},
		{Series24, dovecot.Options{Version: dovecot.V24, Config: "mail_plugins {\nfts = yes\nfts_flatcurve = yes\nmail_crypt = yes\n}"}},
	} {
		t.Run(string(server.options.Version), func(t *testing.T) {
			t.Parallel()
			server.options.Users = []string{"ann"}
			s := dovecottest.Start(t, server.options)
			conn, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			// Not the code under test: the oldest version of the protocol is simple.
			r := bufio.NewReader(conn)
			exchange := func(request string) string {
				fmt.Fprint(conn, request)
				reply, err := r.ReadString('\n')
				if err != nil {
					t.Fatalf("%q: %q, %v", request, reply, err)
				}
				return reply
			}
			if got := exchange("VERSION\tdoveadm-server\t1\t0\n"); got != "-\n" {
				t.Fatalf("greeting %q", got)
			}
			login := base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00" + s.Password))
			if got := exchange("PLAIN\t" + login + "\n"); got != "+\n" {
				t.Fatalf("login %q", got)
			}
			for _, c := range allCommands() {
				want := "-USAGE\n"
				if c.Kind == ClientCommand || c.Series&server.series == 0 {
					want = "-\n"
				}
				output := exchange("\tann\t" + c.Name + "\t--no-such-option\n")
				if status := exchange(""); output != "\n" || status != want {
					t.Errorf("%s: output %q, status %q, want %q", c.Name, output, status, want)
				}
			}
		})
	}
}
