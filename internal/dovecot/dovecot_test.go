package dovecot_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// soon bounds waiting for something that takes milliseconds on an idle machine.
const soon = 30 * time.Second

// client is a connection in the oldest version of the protocol.
type client struct {
	net.Conn
	r *bufio.Reader
}

// connect opens a connection without waiting for a word from the server.
func connect(t *testing.T, addr string) client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(soon))
	fmt.Fprint(conn, "VERSION\tdoveadm-server\t1\t0\n")
	return client{conn, bufio.NewReader(conn)}
}

func (c client) expect(t *testing.T, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.r, got)
	if err != nil || string(got) != want {
		t.Fatalf("got %q and error %v, want %q", got[:n], err, want)
	}
}

func (c client) login(t *testing.T, password string) {
	t.Helper()
	c.expect(t, "-\n")
	fmt.Fprintf(c, "PLAIN\t%s\n", base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00"+password)))
	c.expect(t, "+\n")
}

// eachVersion runs a test with every version of Dovecot, side by side.
func eachVersion(t *testing.T, test func(t *testing.T, v dovecot.Version)) {
	for _, v := range dovecot.Versions() {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			test(t, v)
		})
	}
}

func TestInstances(t *testing.T) { eachVersion(t, testInstances) }

func testInstances(t *testing.T, v dovecot.Version) {
	var servers []*dovecot.Server
	for n := range 3 {
		s := dovecottest.Start(t, dovecot.Options{
			Version: v,
			Users:   []string{fmt.Sprintf("ann%d", n), fmt.Sprintf("ben%d@example.com", n)},
			Quota:   "2M",
		})
		if err := s.Seed(2); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	for n, s := range servers {
		for _, user := range s.Users {
			got := dovecottest.Run(t, s.Client(), "quota get", "-u", user)
			want := "Quota name Type    Value Limit                         %\n" +
				"User quota STORAGE     1  2048                         0\n" +
				"User quota MESSAGE     3     -                         0\n"
			if diff := cmp.Diff(dovecot.Result{Stdout: want, Time: got.Time}, got); diff != "" {
				t.Errorf("quota of %s (-want +got):\n%s", user, diff)
			}

			raw := connect(t, s.Addr)
			raw.login(t, s.Password)
			fmt.Fprintf(raw, "\t%s\tquota get\n", user)
			raw.expect(t, "User quota\tSTORAGE\t1\t2048\t0\tUser quota\tMESSAGE\t3\t-\t0\t\n+\n")

			mailbox := "hdr.subject: message 1 for " + user + "\n\f\n" +
				"hdr.subject: message 2 for " + user + "\n"
			got = dovecottest.Run(t, s.Client(), "fetch", "-u", user, "hdr.subject", "mailbox", "INBOX")
			if got.Stdout != mailbox || got.ExitCode != 0 {
				t.Errorf("fetch of %s: %q, exit code %d, want %q", user, got.Stdout, got.ExitCode, mailbox)
			}
			got = dovecottest.Run(t, s.Client(), "mailbox list", "-u", user)
			if got.Stdout != "Archive\nINBOX\n" {
				t.Errorf("mailboxes of %s: %q", user, got.Stdout)
			}
			other := servers[(n+1)%len(servers)]
			if got := dovecottest.Run(t, other.Client(), "quota get", "-u", user); got.ExitCode != 67 {
				t.Errorf("%s on the wrong instance: exit code %d, want 67 (no user)", user, got.ExitCode)
			}
		}
		wrong := s.Client()
		wrong.Password = "wrong"
		if got := dovecottest.Run(t, wrong, "quota get", "-u", s.Users[0]); got.ExitCode != 75 || !strings.Contains(got.Stderr, "authentication failed") {
			t.Errorf("wrong password: exit code %d, %q", got.ExitCode, got.Stderr)
		}
	}
}

// Everything that the plugins bring works, for the administrator and remotely.
func TestPlugins(t *testing.T) { eachVersion(t, testPlugins) }

func testPlugins(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
	if err := s.Seed(1); err != nil {
		t.Fatal(err)
	}
	c := s.Client()
	script := "# says nothing\nkeep;\n"
	put, err := c.Command(t.Context(), "sieve put", "-u", "ann", "main")
	if err != nil {
		t.Fatal(err)
	}
	put.Stdin = strings.NewReader(script)
	if got, err := dovecot.Run(t.Context(), put); err != nil || got.ExitCode != 0 {
		t.Errorf("sieve put: %+v, %v", got, err)
	}
	dovecottest.Run(t, c, "mailbox metadata set", "-u", "ann", "INBOX", "/private/comment", "post")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"sieve get", []string{"main"}, "# says nothing\r\nkeep;\r\n\n"},
		{"mailbox metadata get", []string{"INBOX", "/private/comment"}, "post\n"},
		{"acl rights", []string{"INBOX"}, "lookup read write write-seen write-deleted insert post expunge create delete admin\n"},
	} {
		got := dovecottest.Run(t, c, tt.name, append([]string{"-u", "ann"}, tt.args...)...)
		if !strings.HasSuffix(got.Stdout, tt.want) || got.ExitCode != 0 {
			t.Errorf("%s: %+v, want %q at the end", tt.name, got, tt.want)
		}
	}
	// With the configuration of an instance the client knows users to go through.
	c.Config = s.Config
	if got := dovecottest.Run(t, c, "mailbox list", "-A"); got.Stdout != "ann Archive\nann INBOX\n" {
		t.Errorf("mailbox list -A: %+v", got)
	}
}

func TestStopAndRestart(t *testing.T) { eachVersion(t, testStopAndRestart) }

func testStopAndRestart(t *testing.T, v dovecot.Version) {
	for _, tt := range []struct {
		name string
		stop func(*dovecot.Server) error
	}{
		{"stop", (*dovecot.Server).Stop},
		{"kill", (*dovecot.Server).Kill},
		{"stop of a frozen instance", func(s *dovecot.Server) error {
			return errors.Join(s.Signal(syscall.SIGSTOP), s.Stop())
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
			addr := s.Addr
			open := connect(t, s.Addr)
			open.login(t, s.Password)
			processes := s.Processes("")
			if err := tt.stop(s); err != nil {
				t.Fatal(err)
			}
			for _, pid := range processes {
				if alive(pid) {
					t.Errorf("process %d is still there", pid)
				}
			}
			if _, err := io.ReadAll(open); err != nil {
				t.Errorf("open connection: %v, want its end", err)
			}
			if _, err := net.Dial("tcp", s.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connect to the stopped instance: %v, want connection refused", err)
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := dovecottest.Run(t, s.Client(), "quota get", "-u", "ann"); got.ExitCode != 0 || s.Addr != addr {
				t.Errorf("after the restart on %s (was %s): %+v", s.Addr, addr, got)
			}
			if got := len(s.Processes("dovecot")); got != 1 {
				t.Errorf("%d masters, want 1", got)
			}
		})
	}
}

// doveadm stop leaves processes with open connections behind; ours does not.
func TestOrphans(t *testing.T) { eachVersion(t, testOrphans) }

func testOrphans(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
	open := connect(t, s.Addr)
	open.login(t, s.Password)
	if got, err := s.Doveadm(t.Context(), "stop"); err != nil || got.ExitCode != 0 {
		t.Fatalf("doveadm stop: %+v, %v", got, err)
	}
	orphans := s.Processes("doveadm-server")
	if len(orphans) != 1 || !alive(orphans[0]) {
		t.Errorf("doveadm processes after doveadm stop: %v, want one", orphans)
	}
	fmt.Fprint(open, "\tann\tquota get\n")
	open.expect(t, "\n-TEMPFAIL\n")
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if left := s.Processes(""); len(left) > 0 || alive(orphans[0]) {
		t.Errorf("left after Stop: %v", left)
	}
}

func TestSignal(t *testing.T) { eachVersion(t, testSignal) }

func testSignal(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
	if err := s.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s.Addr)
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if b, err := c.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a frozen instance said %q, %v", b, err)
	}
	if err := s.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(soon))
	c.login(t, s.Password)
}

func TestProcessLimit(t *testing.T) { eachVersion(t, testProcessLimit) }

func testProcessLimit(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}, ProcessLimit: 2})
	first, second := connect(t, s.Addr), connect(t, s.Addr)
	first.login(t, s.Password)
	second.login(t, s.Password)
	if got := len(s.Processes("doveadm-server")); got != 2 {
		t.Errorf("%d doveadm processes for two connections", got)
	}
	third := connect(t, s.Addr)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := s.WaitLog(ctx, "process_limit (2) reached"); err != nil {
		t.Error(err)
	}
	first.Close()
	third.login(t, s.Password)
}

func TestReload(t *testing.T) { eachVersion(t, testReload) }

func testReload(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}, Password: `old "#\ %{user} %%{user} 50% %% $x one`})
	if got := dovecottest.Run(t, s.Client(), "quota get", "-u", "ann"); got.ExitCode != 0 {
		t.Errorf("before: %+v", got)
	}
	config, err := os.ReadFile(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Config, append(config, "doveadm_password = new\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := s.Client()
	c.Password = "new"
	if got := dovecottest.Run(t, c, "quota get", "-u", "ann"); got.ExitCode != 0 {
		t.Errorf("after: %+v", got)
	}
}

func TestSaveMail(t *testing.T) { eachVersion(t, testSaveMail) }

func testSaveMail(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
	want := func(count string) {
		t.Helper()
		got := dovecottest.Run(t, s.Client(), "mailbox status", "-u", "ann", "-t", "messages", "*")
		if got.Stdout != "messages="+count+"\n" {
			t.Errorf("%+v, want %s messages", got, count)
		}
	}
	want("0")
	if err := s.SaveMail("ann", "Work.2024", dovecot.Message("ann", "a"), dovecot.Message("ann", "b")); err != nil {
		t.Fatal(err)
	}
	want("2")
	// Into a mailbox that Dovecot has already read.
	if err := s.SaveMail("ann", "Work.2024", bytes.Repeat([]byte("x\n"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	want("3")
	for _, bad := range [][2]string{{"ben", "INBOX"}, {"ann", "a/b"}, {"ann", "Entwürfe"}, {"ann", "a..b"}} {
		if err := s.SaveMail(bad[0], bad[1], nil); err == nil {
			t.Errorf("saved mail of %q in %q", bad[0], bad[1])
		}
	}
}

func TestStartFails(t *testing.T) { eachVersion(t, testStartFails) }

func testStartFails(t *testing.T, v dovecot.Version) {
	name := fmt.Sprintf("failing%d", os.Getpid())
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		opts dovecot.Options
		want string
	}{
		{"bad configuration", t.Context(), dovecot.Options{Config: "no_such_setting = 1"}, "Unknown setting: no_such_setting"},
		{"upper case", t.Context(), dovecot.Options{Users: []string{"Ann"}}, `user "Ann": write it in lower case`},
		{"slash", t.Context(), dovecot.Options{Users: []string{"a/b"}}, `user "a/b"`},
		{"cancelled", cancelled, dovecot.Options{}, "context canceled"},
	} {
		tt.opts.Name, tt.opts.Version = name, v
		s, err := dovecot.Start(tt.ctx, tt.opts)
		if err == nil {
			s.Close()
			t.Fatalf("%s: it started", tt.name)
		}
		if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %q, want %q in it", tt.name, err, tt.want)
		}
	}
	root, err := v.Root()
	if err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "tmp", name+"-*")); err != nil || len(left) > 0 {
		t.Errorf("directories left: %v (error %v)", left, err)
	}
}

func TestRunContext(t *testing.T) { eachVersion(t, testRunContext) }

func testRunContext(t *testing.T, v dovecot.Version) {
	s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
	if err := s.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := s.Client().Run(ctx, "quota get", "-u", "ann"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v, want that the deadline passed", got, err)
	}
}

// A test binary that is killed leaves nothing behind. The child is this test
// binary, which starts an instance and then waits to be killed.
func TestKilledTest(t *testing.T) {
	if v := os.Getenv("DOVECOT_TEST_CHILD"); v != "" {
		s, err := dovecot.Start(t.Context(), dovecot.Options{Version: dovecot.Version(v), Name: "child"})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("started", s.Dir, s.Processes("")[0])
		select {}
	}
	eachVersion(t, testKilledTest)
}

func testKilledTest(t *testing.T, v dovecot.Version) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestKilledTest$")
	cmd.Env = append(os.Environ(), "DOVECOT_TEST_CHILD="+string(v))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	var pid int
	if _, err := fmt.Fscanf(stdout, "started %s %d\n", &dir, &pid); err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Errorf("process %d of the instance is not there", pid)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // its error is the kill
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := dovecot.Poll(ctx, func() bool { return !alive(pid) && !exists(dir) }); err != nil {
		t.Errorf("%v: process %d alive: %t, directory %s exists: %t", err, pid, alive(pid), dir, exists(dir))
	}
}

func TestReservePort(t *testing.T) {
	p, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := net.Dial("tcp", p.Addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect: %v, want connection refused", err)
	}
	for range 2 {
		l, err := net.Listen("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// alive says whether a process is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	return !bytes.Contains(stat, []byte(") Z "))
}
