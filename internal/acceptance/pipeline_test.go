package acceptance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestPipelining sends many commands ahead: replies come in order, and those
// for one user in theirs.
func TestPipelining(t *testing.T) {
	t.Parallel()
	const backends, users, commands = 3, 5, 600
	c := startCluster(t, backends, users, dovecot.Options{})
	for _, s := range c.servers {
		if err := s.Seed(2); err != nil {
			t.Fatal(err)
		}
	}
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })
	for _, minor := range []doveadm.Minor{doveadm.MinorBase, doveadm.MinorExtraFields} {
		client, err := dial(t.Context(), p.Addr, minor)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.NetConn().SetDeadline(time.Now().Add(60 * time.Second))
		var out []byte
		var want []string
		for i := range commands {
			user := fmt.Sprintf("u%d-%d", i%backends+1, i/7%users+1)
			cmd := doveadm.Command{User: user, Name: "fetch", Args: []string{"hdr.subject", "mailbox", "Archive", "all"}}
			expect := "old message for " + user + "\t\n+"
			switch i % 10 {
			case 3:
				cmd = doveadm.Command{User: "u9-9", Name: "mailbox list"}
				expect = "\n-NOUSER"
			case 5:
				// A user's commands keep their order.
				name := fmt.Sprintf("box%d-%d", minor, i)
				out = doveadm.AppendCommand(out, &doveadm.Command{User: user, Name: "mailbox create", Args: []string{name}}, minor)
				want = append(want, "\n+")
				cmd = doveadm.Command{User: user, Name: "mailbox list", Args: []string{name}}
				expect = name + "\t\n+"
			case 7:
				out = doveadm.AppendCommand(out, &doveadm.Command{User: user, Name: "save", Args: []string{"-m", "Saved"}}, minor)
				out = append(out, "Subject: x\r\n\r\n..\r\n.\r\n"...)
				want = append(want, "\n-NOTFOUND")
			}
			out = doveadm.AppendCommand(out, &cmd, minor)
			want = append(want, expect)
		}
		go client.NetConn().Write(out)

		var stream []byte
		for n := 0; n < len(want); {
			chunk, err := client.ReadChunk()
			if err != nil {
				t.Fatalf("after %d replies: %v", n, err)
			}
			if chunk.Channel == doveadm.ChannelReply {
				stream = append(stream, chunk.Data...)
				n = strings.Count(string(stream), "\n") / 2
			}
		}
		got := strings.Split(string(stream), "\n")
		for i := range want {
			if reply := got[2*i] + "\n" + got[2*i+1]; reply != want[i] {
				t.Fatalf("1.%d: reply %d is %q, want %q", minor, i, reply, want[i])
			}
		}
	}
}
