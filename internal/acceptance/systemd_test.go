package acceptance

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// notifySocket stands for systemd's: it collects what the daemon tells.
type notifySocket struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newNotifySocket(t *testing.T) *notifySocket {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notifySocket{t, path, conn}
}

// expect reads messages until one begins with prefix, and returns it. Others
// than watchdog messages are an error.
func (n *notifySocket) expect(prefix string) string {
	n.t.Helper()
	n.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 4096)
	for {
		size, err := n.conn.Read(b)
		if err != nil {
			n.t.Fatalf("waiting for %s: %v", prefix, err)
		}
		message := string(b[:size])
		if strings.HasPrefix(message, prefix) {
			return message
		}
		if message != "WATCHDOG=1" {
			n.t.Errorf("got %q, want %s", message, prefix)
		}
	}
}

// TestSystemd runs the daemon as systemd does: with an activated socket, a
// notify socket and a watchdog.
func TestSystemd(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	binary, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	notify := newNotifySocket(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	addr := listener.Addr().String()
	p := &proxyProcess{t: t, Addr: addr, Config: filepath.Join(t.TempDir(), "proxy.hcl"), exited: make(chan error, 1)}
	// The address of the block is taken already: only the activated socket
	// can serve it.
	good := c.config(addr, "", "")
	p.writeConfig(good)
	// The process id must be that of the daemon, which the shell becomes.
	p.cmd = exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" serve --config "$1"`, binary, p.Config)
	p.cmd.ExtraFiles = []*os.File{socket}
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify.path, "LISTEN_FDS=1", "LISTEN_FDNAMES=main", "WATCHDOG_USEC=600000")
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(p.end)

	notify.expect("READY=1")
	listener.Close() // ours; the daemon has its own copy
	if err := mustBeQuota(loginOnce(t.Context(), addr, "u1-1", "quota get")); err != nil {
		t.Error(err)
	}
	notify.expect("WATCHDOG=1")
	notify.expect("WATCHDOG=1")

	// A reload that works, and one that does not.
	p.signal(syscall.SIGHUP)
	if m := notify.expect("RELOADING=1"); !strings.Contains(m, "\nMONOTONIC_USEC=") {
		t.Errorf("reload announced by %q", m)
	}
	notify.expect("READY=1")
	p.writeConfig(good + "nonsense {}\n")
	p.signal(syscall.SIGHUP)
	notify.expect("RELOADING=1")
	if m := notify.expect("READY=1"); !strings.Contains(m, "the old configuration keeps serving") {
		t.Errorf("a failed reload ends with %q", m)
	}
	if err := mustBeQuota(loginOnce(t.Context(), addr, "u1-1", "quota get")); err != nil {
		t.Error(err)
	}

	// A daemon that accepts nothing any more tells the watchdog nothing.
	p.signal(syscall.SIGSTOP)
	quiet(t, notify)
	p.signal(syscall.SIGCONT)
	notify.expect("WATCHDOG=1")

	p.signal(syscall.SIGTERM)
	notify.expect("STOPPING=1")
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// quiet drops what has been sent and checks that nothing follows for longer
// than the watchdog waits.
func quiet(t *testing.T, n *notifySocket) {
	t.Helper()
	b := make([]byte, 4096)
	for range 2 {
		n.conn.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
		for {
			if _, err := n.conn.Read(b); err != nil {
				break
			}
		}
	}
	n.conn.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
	if size, err := n.conn.Read(b); err == nil {
		t.Errorf("a stopped daemon sent %q", b[:size])
	}
}

// TestUnixSocket: a pre-authenticated socket, its mode, and what a crash
// leaves behind.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	path := filepath.Join(t.TempDir(), "doveadm.sock")
	extra := fmt.Sprintf("listener \"local\" {\n address = \"unix:%s\"\n mode = \"0660\"\n client = \"doveadm\"\n}\n", path)
	start := func() *proxyProcess {
		return startProxy(t, racy, func(addr string) string { return c.config(addr, "", extra) })
	}
	first := start()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	// The real command asks no password there.
	r := cli(t, path, "", "quota get", "-u", "u1-1")
	direct := cli(t, c.servers[0].Addr, c.servers[0].Password, "quota get", "-u", "u1-1")
	if r.Stdout != direct.Stdout || r.ExitCode != 0 || r.Stderr != "" {
		t.Errorf("through the socket: %+v, directly %+v", r, direct)
	}
	// A killed proxy leaves the socket; the next one takes it.
	first.cmd.Process.Kill()
	<-first.exited
	first.exited <- nil
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	second := start()
	if err := mustBeQuota(loginOnce(ctx, second.Addr, "u1-1", "quota get")); err != nil {
		t.Error(err)
	}
	if r := cli(t, path, "", "mailbox list", "-u", "u1-1"); r.ExitCode != 0 {
		t.Errorf("through the new socket: %+v", r)
	}
	second.signal(syscall.SIGTERM)
	second.wait()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
