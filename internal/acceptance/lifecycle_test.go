package acceptance

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestStopLosesNoCommand stops the proxy while 100 commands run or wait for
// their connection: each is answered.
func TestStopLosesNoCommand(t *testing.T) {
	t.Parallel()
	const commands = 100
	c := startCluster(t, 2, 4, dovecot.Options{})
	for i, s := range c.servers {
		seedBig(t, s, fmt.Sprintf("u%d-1", i+1), 2)
	}
	p := startProxy(t, racy, func(addr string) string {
		return c.config(addr, "pool {\n max_open = 4\n acquire_timeout = \"60s\"\n}", "")
	})

	clients := make([]*doveadm.ClientConn, commands)
	for i := range clients {
		var err error
		if clients[i], err = dial(t.Context(), p.Addr, doveadm.MaxMinor); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
		clients[i].NetConn().SetDeadline(time.Now().Add(60 * time.Second))
		user := fmt.Sprintf("u%d-1", i%2+1)
		if err := clients[i].Send(&doveadm.Command{User: user, Name: "fetch", Args: []string{"text", "all"}}); err != nil {
			t.Fatal(err)
		}
	}
	idle, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	// The requests have been written; those that the proxy has read are
	// running. A moment later it has read them all.
	p.waitLog("outcome=answered")
	p.signal(syscall.SIGTERM)
	p.waitLog("stopping")

	var g errgroup.Group
	for i, client := range clients {
		g.Go(func() error {
			var scan doveadm.ReplyScanner
			for !scan.Done() {
				chunk, err := client.ReadChunk()
				if err != nil {
					return fmt.Errorf("command %d: %w", i, err)
				}
				if chunk.Channel != doveadm.ChannelReply {
					continue
				}
				if _, _, err := scan.Scan(chunk.Data); err != nil {
					return err
				}
			}
			if !scan.Status().OK || scan.Fields() != 2 {
				return fmt.Errorf("command %d: %s after %d fields", i, scan.Status(), scan.Fields())
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := idle.ReadChunk(); err == nil {
		t.Error("the idle session was not closed")
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := strings.Count(p.Log(), "outcome=answered"); n != commands {
		t.Errorf("%d commands answered", n)
	}
}

// TestReload takes a new configuration over while sessions are open, and
// refuses a broken one with the line.
func TestReload(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, 1, dovecot.Options{})
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })
	client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	run := func(user, want string) {
		t.Helper()
		_, err := runCommand(t.Context(), client, user, "mailbox list")
		got := "+"
		if failed, ok := err.(*doveadm.StatusError); ok {
			got = failed.Status.Code
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: status %s, want %s", user, got, want)
		}
	}
	run("u1-1", "+")
	run("other", doveadm.CodeNoUser)

	good := c.config(p.Addr, "", "")
	broken := strings.Replace(good, "shard = \"s2\"", "shard = \"s3\"", 1)
	p.writeConfig(broken)
	p.signal(syscall.SIGHUP)
	p.waitLog("reload failed: the old configuration keeps serving")
	line := strings.Count(broken[:strings.Index(broken, "shard = \"s3\"")], "\n") + 1
	if want := fmt.Sprintf("%s:%d", p.Config, line); !strings.Contains(p.Log(), want) {
		t.Errorf("the log does not name %s", want)
	}
	run("u1-1", "+")
	run("u2-1", "+")

	// The second shard's users now match another pattern, too.
	p.writeConfig(strings.Replace(good, `users = ["u2-*"]`, `users = ["u2-*", "other"]`, 1))
	before := c.servers[0].Processes("doveadm-server")
	p.signal(syscall.SIGHUP)
	p.waitLog("reloaded:")
	run("u2-1", "+")
	run("other", doveadm.CodeNoUser) // now from the backend
	p.waitLog(`user=other command="mailbox list" outcome=answered status=-NOUSER shard=s2`)
	run("u1-1", "+")
	// The pool of the unchanged backend kept its connection.
	if after := c.servers[0].Processes("doveadm-server"); len(before) != 1 || len(after) != 1 || before[0] != after[0] {
		t.Errorf("processes of mail1 before the reload %v, after it %v", before, after)
	}

	// A client that is taken away does not go on.
	p.writeConfig(strings.Replace(good, `client "doveadm"`, `client "somebody"`, 1))
	p.signal(syscall.SIGHUP)
	for deadline := time.Now().Add(20 * time.Second); strings.Count(p.Log(), "reloaded:") < 2 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	run("u1-1", doveadm.CodeNoPerm)
	if _, err := client.ReadChunk(); err == nil {
		t.Error("the session of a removed client goes on")
	}
}
