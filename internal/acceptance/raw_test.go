package acceptance

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestRawClient speaks version 1.0 by hand, as the oldest description of the
// protocol has it.
func TestRawClient(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, 1, dovecot.Options{Quota: "100M"})
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })
	nc, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(nc)
	send := func(text string) {
		if _, err := io.WriteString(nc, text); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
			t.Fatalf("read %q (%v), want %q", got[:n], err, want)
		}
	}
	send("VERSION\tdoveadm-server\t1\t0\n")
	expect("-\n")
	send("PLAIN\t" + base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00"+clientPassword)) + "\n")
	expect("+\n")
	for _, user := range []string{"u1-1", "u2-1", "u1-1"} {
		send("\t" + user + "\tquota get\n")
		expect("User quota\tSTORAGE\t0\t102400\t0\tUser quota\tMESSAGE\t0\t-\t0\t\n+\n")
	}
	// Everything that the proxy refuses itself leaves the session usable.
	send("\tu9-1\tquota get\n")
	expect("\n-NOUSER\n")
	send("\tu1-1\tbatch\t:\tquota get\n")
	expect("\n-USAGE\n")
	send("\tu1-1\tsave\t-Z\n\tu1-1\tmailbox create\tSMUGGLED\r\n\r\n.\r\n")
	expect("\n-USAGE\n")
	send("\t\tstop\n")
	expect("\n-NOPERM\n")
	send("v\tu2-1\tmailbox\tlist\tINBOX\n")
	expect("INBOX\t\n+\n")
	// Pipelined, and the last reply after a half-close.
	send("\tu1-1\tmailbox list\tINBOX\n\tu1-nobody\tmailbox list\n\tu2-1\tmailbox list\tINBOX\n")
	nc.(*net.TCPConn).CloseWrite()
	expect("INBOX\t\n+\n\n-NOUSER\nINBOX\t\n+\n")
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("after the last reply: %q, %v", rest, err)
	}
}

// dial logs in to addr as the proxy's client.
func dial(ctx context.Context, addr string, minor doveadm.Minor) (*doveadm.ClientConn, error) {
	return doveadm.Dial(ctx, addr, doveadm.ClientOptions{Password: clientPassword, Minor: minor})
}

// runCommand runs one command and returns its fields.
func runCommand(ctx context.Context, c *doveadm.ClientConn, user, name string, args ...string) ([]string, error) {
	reply, err := c.Do(ctx, &doveadm.Command{User: user, Name: name, Args: args})
	if err != nil {
		return nil, err
	}
	var fields []string
	for reply.Next() {
		text, err := reply.Text()
		if err != nil {
			return fields, err
		}
		fields = append(fields, text)
	}
	return fields, reply.Err()
}

// loginOnce runs one command on a connection of its own.
func loginOnce(ctx context.Context, addr, user, name string, args ...string) ([]string, error) {
	c, err := dial(ctx, addr, doveadm.MaxMinor)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return runCommand(ctx, c, user, name, args...)
}

// quotaOf is what "quota get" prints for a user with that many KiB of mail.
func isQuota(fields []string) bool {
	return len(fields) == 10 && strings.Join(fields[:2], " ") == "User quota STORAGE"
}

func mustBeQuota(fields []string, err error) error {
	if err == nil && !isQuota(fields) {
		err = fmt.Errorf("unexpected quota %q", fields)
	}
	return err
}
