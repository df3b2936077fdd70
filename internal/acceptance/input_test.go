package acceptance

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// withInput runs the real doveadm command with standard input.
func withInput(t *testing.T, addr, password, stdin, name string, args ...string) dovecot.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd, err := dovecot.Client{Addr: addr, Password: password}.Command(ctx, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(stdin)
	return mustRun(t, ctx, cmd)
}

func mustRun(t *testing.T, ctx context.Context, cmd *exec.Cmd) dovecot.Result {
	t.Helper()
	res, err := dovecot.Run(ctx, cmd)
	if err != nil {
		t.Fatal(err)
	}
	res.Time = 0
	return res
}

// TestSave compares what "save" stores, prints and exits with, through the
// proxy and directly.
func TestSave(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, 2, dovecot.Options{Quota: "20M"})
	s := c.servers[0]
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "limits {\n max_input = \"8MiB\"\n}") })
	head := "From: a@example.net\nSubject: saved\n\n"

	for _, tt := range []struct{ name, mail, mailbox string }{
		{"empty", "", "INBOX"},
		{"one line without end", "Subject: x", "INBOX"},
		{"usual", head + "text\n", "INBOX"},
		{"no line end", head + "text", "INBOX"},
		{"dots", head + ".\n..\n.a\n\n.\r\n...", "INBOX"},
		{"CR", head + "a\rb\r\nc\r\r\n.\r.\n", "INBOX"},
		{"long line", head + strings.Repeat("x", 3<<20), "INBOX"},
		{"commands", "\tu1-2\tmailbox create\tSMUGGLED\n\tu1-2\tmailbox list\n\n", "INBOX"},
		{"8 bit", head + "\x80\xff\x01\x00\t\n", "INBOX"},
		{"over the memory", head + strings.Repeat("0123456789abcde\n", 8<<10), "INBOX"},
		{"no mailbox", head, "NoSuchMailbox"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			direct := withInput(t, s.Addr, s.Password, tt.mail, "save", "-u", "u1-1", "-m", tt.mailbox)
			want := cli(t, s.Addr, s.Password, "fetch", "-u", "u1-1", "text", "all")
			cli(t, s.Addr, s.Password, "expunge", "-u", "u1-1", "mailbox", "INBOX", "all")

			proxied := withInput(t, p.Addr, clientPassword, tt.mail, "save", "-u", "u1-1", "-m", tt.mailbox)
			got := cli(t, s.Addr, s.Password, "fetch", "-u", "u1-1", "text", "all")
			cli(t, s.Addr, s.Password, "expunge", "-u", "u1-1", "mailbox", "INBOX", "all")

			direct.Stderr = comparable(direct.Stderr, s.Addr)
			proxied.Stderr = comparable(proxied.Stderr, p.Addr)
			if diff := cmp.Diff(direct, proxied); diff != "" {
				t.Errorf("save (-direct +through the proxy):\n%s", diff)
			}
			if want.Stdout != got.Stdout {
				t.Errorf("stored directly %.200q, through the proxy %.200q", want.Stdout, got.Stdout)
			}
			if tt.mailbox == "INBOX" && len(got.Stdout) == 0 {
				t.Error("nothing was stored")
			}
		})
	}

	t.Run("larger than max_input", func(t *testing.T) {
		r := withInput(t, p.Addr, clientPassword, head+strings.Repeat("x", 9<<20), "save", "-u", "u1-1")
		if r.ExitCode != 75 || !strings.Contains(r.Stderr, "limits.max_input") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("client stops half way", func(t *testing.T) {
		client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.NetConn().SetDeadline(time.Now().Add(20 * time.Second))
		if err := client.Send(&doveadm.Command{User: "u1-1", Name: "save"}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(client.NetConn(), "half a mail\r\n")
		client.NetConn().(interface{ CloseWrite() error }).CloseWrite()
		if status, err := readStatus(client); status != "-TEMPFAIL" || err != nil {
			t.Errorf("status %s, %v", status, err)
		}
	})
	if got := cli(t, s.Addr, s.Password, "fetch", "-u", "u1-1", "text", "all"); got.Stdout != "" {
		t.Errorf("stored in the end: %.200q", got.Stdout)
	}
	if left := spoolFiles(t, p); left > 0 {
		t.Errorf("%d spool files are still open", left)
	}
}

// smuggledBody is a mail made of commands. Behind it stands a command in a
// reply of its own.
const smuggledBody = "\tu1-2\tmailbox create\tSMUGGLED\r\n\tu1-2\tmailbox create\tSMUGGLED2\r\n\r\n.\r\n"

// TestSmuggling sends mails made of commands behind "save" commands that fail,
// in every way a client can make them fail, pipelined with a command behind.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, version := range dovecot.Versions() {
		t.Run(string(version), func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 2, 2, dovecot.Options{Version: version})
			smuggle(t, c)
		})
	}
}

func smuggle(t *testing.T, c *cluster) {
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })
	s := c.servers[0]
	// Directly the same does what it must not do through the proxy.
	smuggled := func(s *dovecot.Server, user string) string {
		t.Helper()
		return dovecottest.Run(t, s.Client(), "mailbox list", "-u", user, "SMUGGLED*").Stdout
	}
	nc, err := doveadm.Dial(t.Context(), s.Addr, doveadm.ClientOptions{Password: s.Password})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.NetConn().SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(nc.NetConn(), "\tu1-1\tsave\t-Z\n"+smuggledBody)
	io.Copy(io.Discard, nc.NetConn())
	if got := smuggled(s, "u1-2"); got == "" {
		t.Fatalf("directly: %q, so nothing can be seen of what is smuggled", got)
	}
	dovecottest.Run(t, s.Client(), "mailbox delete", "-u", "u1-2", "SMUGGLED", "SMUGGLED2")
	if got := smuggled(s, "u1-2"); got != "" {
		t.Fatalf("left of the direct attempt: %q", got)
	}

	for _, tt := range []struct {
		command string
		saves24 bool // 2.4 knows the option
	}{
		{"\tu1-nobody\tsave\t-m\tINBOX\n", false},
		{"\tu9-1\tsave\n", false},
		{"\tu1-1\tsave\t-Z\n", false},
		{"\tu1-1\tsave\t-r\t2024-01-01\n", true},
		{"\tu1-1\tsave\t-r\tno date\n", false},
		{"\tu1-1\tsave\t-U\tx\n", false},
		{"\tu1-1\tsave\t-U\t4294967296\n", false},
		{"\tu1-1\tsave\t-g\tno guid\n", true},
		{"\tu1-1\tsave\t-gg\t-r\n", false},
		{"\tu1-1\tsave\t--received-date=2024-01-01\n", true},
		{"\tu1-1\tsave\t-m\n", false},
		{"\tu1-1\tsave\t/etc/hostname\n", false},
		{"\tu1-1\tsave\t--\t/etc/hostname\n", false},
		{"\tu1-1\tsave\t--file=/etc/hostname\n", false},
		{"\tu1-1\tsave\t-A\t-Z\n", false},
		{"\tu1-1\tsave\t-F\t/etc/passwd\n", false},
		{"\tu1-1\tsave\t-m\tNoSuchMailbox\n", false},
		{"\tu1-1\tsave\t-m\tbad&name\xff\n", false},
		{"\tu1-1\tsieve\tput\t-Z\tx\n", false},
		{"\tu1-1\tsieve put\n", false},
		{"\tu1-1\tsieve put\ta\tb\n", false},
		{"\tu1-1\tsieve put\tname\n", false},
		{"\ta\x01nb\tsave\n", false},
		{"x\tproxy-ttl=1\tu1-1\tsave\n", false},
	} {
		for _, minor := range []doveadm.Minor{doveadm.MinorBase, doveadm.MinorSTARTTLS, doveadm.MinorExtraFields, doveadm.MinorStream} {
			statuses := statusesOf(t, p, minor, tt.command+smuggledBody+"\tu2-1\tmailbox list\tINBOX\n", 2)
			saved := tt.saves24 && s.Version == dovecot.V24
			if (statuses[0] == "+") != saved || statuses[1] != "+" {
				t.Errorf("1.%d %q: statuses %q", minor, tt.command, statuses)
			}
		}
	}
	for _, s := range c.servers {
		for _, user := range s.Users {
			if got := smuggled(s, user); got != "" {
				t.Errorf("%s has %q", user, got)
			}
		}
	}
}

// statusesOf sends text to the proxy at once and returns the statuses of the n
// replies, behind which nothing may come.
func statusesOf(t *testing.T, p *proxyProcess, minor doveadm.Minor, text string, n int) []string {
	t.Helper()
	client, err := dial(t.Context(), p.Addr, minor)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.NetConn().SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(client.NetConn(), text)
	client.NetConn().(interface{ CloseWrite() error }).CloseWrite()
	var statuses []string
	var scan doveadm.ReplyScanner
	for {
		chunk, err := client.ReadChunk()
		if err == io.EOF && len(statuses) == n {
			return statuses
		}
		if err != nil || len(statuses) > n {
			t.Fatalf("%.80q: %v after %q", text, err, statuses)
		}
		data := chunk.Data
		for chunk.Channel == doveadm.ChannelReply && len(data) > 0 {
			_, n, err := scan.Scan(data)
			if err != nil {
				t.Fatal(err)
			}
			data = data[n:]
			if scan.Done() {
				statuses = append(statuses, scan.Status().String())
				scan = doveadm.ReplyScanner{}
			}
		}
	}
}

// spoolFiles counts the unlinked files that the proxy holds.
func spoolFiles(t *testing.T, p *proxyProcess) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasSuffix(target, " (deleted)") {
			n++
		}
	}
	return n
}

// TestSaveGigabyte saves 1 GB with the proxy's memory bounded.
func TestSaveGigabyte(t *testing.T) {
	t.Parallel()
	const limit = 64
	blocks := 256 // of a mebibyte
	if *whole {
		blocks = 1024
	}
	c := startCluster(t, 1, 1, dovecot.Options{Quota: "4G", Config: "service doveadm {\n  vsz_limit = 2G\n}\n"})
	p := startProxy(t, plain, func(addr string) string { return c.config(addr, "", "limits {\n max_input = \"2GiB\"\n}") })
	client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.NetConn().SetDeadline(time.Now().Add(5 * time.Minute))
	if err := client.Send(&doveadm.Command{User: "u1-1", Name: "save"}); err != nil {
		t.Fatal(err)
	}
	in := doveadm.NewInputWriter(client.NetConn())
	io.WriteString(in, "Subject: a large mail\n\n")
	block := []byte(strings.Repeat(strings.Repeat("x", 1023)+"\n", 1024))
	for range blocks {
		if _, err := in.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if status, err := readStatus(client); status != "+" || err != nil {
		t.Errorf("status %s, %v", status, err)
	}
	fields, err := runCommand(t.Context(), client, "u1-1", "fetch", "size.physical", "all")
	size := 0
	if err == nil && len(fields) == 1 {
		size, err = strconv.Atoi(fields[0])
	}
	if err != nil || size < blocks*len(block) {
		t.Errorf("stored %q (%v)", fields, err)
	}
	peak := peakMemory(t, p)
	t.Logf("%d MiB resident at most", peak)
	if peak >= limit {
		t.Errorf("%d MiB resident, the bound is %d", peak, limit)
	}
}

// TestSievePut stores a script and refuses a bad one.
func TestSievePut(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	p := startProxy(t, racy, func(addr string) string { return c.config(addr, "", "") })
	client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.NetConn().SetDeadline(time.Now().Add(20 * time.Second))
	put := func(script string) string {
		client.Send(&doveadm.Command{User: "u1-1", Name: "sieve put", Args: []string{"vacation"}})
		in := doveadm.NewInputWriter(client.NetConn())
		io.WriteString(in, script)
		in.Close()
		status, err := readStatus(client)
		if err != nil {
			t.Fatal(err)
		}
		return status
	}
	const script = "require \"fileinto\";\nkeep;\n"
	if status := put(script); status != "+" {
		t.Errorf("status %s", status)
	}
	if status := put("\tu1-1\tmailbox create\tSMUGGLED\n"); status != "-DATAERR" {
		t.Errorf("a script that is none: status %s", status)
	}
	fields, err := runCommand(t.Context(), client, "u1-1", "sieve get", "vacation")
	if err != nil || len(fields) != 1 || strings.ReplaceAll(fields[0], "\r\n", "\n") != script {
		t.Errorf("stored %q (%v)", fields, err)
	}
}

// readStatus reads a reply and returns its status line.
func readStatus(client *doveadm.ClientConn) (string, error) {
	var scan doveadm.ReplyScanner
	for !scan.Done() {
		chunk, err := client.ReadChunk()
		if err != nil {
			return "", err
		}
		if chunk.Channel != doveadm.ChannelReply {
			continue
		}
		if _, _, err := scan.Scan(chunk.Data); err != nil {
			return "", err
		}
	}
	return scan.Status().String(), nil
}
