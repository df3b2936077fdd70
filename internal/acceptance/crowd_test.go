package acceptance

import (
	"bufio"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// The full sizes are those of "make crowd".
var (
	crowdSessions = flag.Int("crowd-sessions", 2_000, "idle sessions of TestIdleSessions")
	crowdSilent   = flag.Int("crowd-silent", 5_000, "connections of TestSilentConnections")
)

// memoryPerSession is the most that an idle session may take of the proxy's
// resident memory, in bytes.
const memoryPerSession = 16 << 10

// crowdConfig has no backend that anybody asks.
func crowdConfig(addr string) string {
	return fmt.Sprintf(`
listener "main" { address = %q }
client "doveadm" { password = "{PLAIN}%s" }
shard "s1" {
  backend "mail1" {
    address  = "127.0.0.1:1"
    password = "x"
  }
}
route "ring" {}
limits {
  max_sessions      = 100000
  handshake_timeout = "5m"
}
`, addr, clientPassword)
}

// source is an address of this machine for connection n: one has no more than
// 28,000 ports for connections to the same listener.
func source(n int) *net.TCPAddr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, byte(n/4000), 2)}
}

func (p *proxyProcess) connectFrom(n int) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: source(n), Timeout: time.Minute}
	nc, err := d.Dial("tcp", p.Addr)
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nc.SetDeadline(time.Now().Add(5 * time.Minute))
}

// resident returns the resident memory of the proxy in bytes.
func (p *proxyProcess) resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// descriptors returns how many files the proxy has open.
func (p *proxyProcess) descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func mayOpen(t *testing.T, files int) {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || int(r.Cur) < files {
		t.Fatalf("the test and the proxy have to open %d files each, the limit is %d (%v): ulimit -n %d", files, r.Cur, err, files)
	}
}

func inParallel(t *testing.T, n int, do func(n int) error) {
	t.Helper()
	var next atomic.Int64
	var g errgroup.Group
	for range 64 {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(i); err != nil {
					return fmt.Errorf("connection %d: %w", i, err)
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestIdleSessions: what sessions cost that are logged in and say nothing.
func TestIdleSessions(t *testing.T) {
	n := *crowdSessions
	mayOpen(t, n+200)
	p := startProxy(t, plain, crowdConfig)
	login := "VERSION\tdoveadm-server\t1\t3\nPLAIN\t" +
		base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00"+clientPassword)) + "\n\t\tOPTION\tlog-passthrough\n"
	before := p.resident(t)
	conns := make([]net.Conn, n)
	t.Cleanup(func() {
		for _, nc := range conns {
			if nc != nil {
				nc.Close()
			}
		}
	})
	inParallel(t, n, func(i int) error {
		nc, err := p.connectFrom(i)
		if err != nil {
			return err
		}
		conns[i] = nc
		if _, err := io.WriteString(nc, login); err != nil {
			return err
		}
		in := bufio.NewReaderSize(nc, 64)
		for {
			line, err := in.ReadString('\n')
			if err != nil || line == "+\n" {
				return err
			}
		}
	})
	each := (p.resident(t) - before) / n
	t.Logf("%d idle sessions: %d bytes of resident memory each", n, each)
	if each > memoryPerSession {
		t.Errorf("an idle session takes %d bytes, want at most %d", each, memoryPerSession)
	}
}

// TestSilentConnections: clients that connect and say nothing leave nothing
// behind.
func TestSilentConnections(t *testing.T) {
	mayOpen(t, 1000)
	p := startProxy(t, plain, crowdConfig)
	connect := func(i int) error {
		nc, err := p.connectFrom(i)
		if err != nil {
			return err
		}
		if i%2 == 0 {
			nc.SetLinger(0) // a reset
		}
		return nc.Close()
	}
	settled := func(files int) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for p.descriptors(t) > files {
			if time.Now().After(deadline) {
				t.Fatalf("%d files are open, %d were before", p.descriptors(t), files)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	// The first ones are for what stays: stacks and buffers that are used again.
	files := p.descriptors(t)
	inParallel(t, *crowdSilent/4, connect)
	settled(files)
	before := p.resident(t)
	inParallel(t, *crowdSilent, connect)
	settled(files)
	after := p.resident(t)
	t.Logf("%d connections: %d KiB resident before, %d KiB after, %d files", *crowdSilent, before>>10, after>>10, files)
	if grown := after - before; grown > 8<<20 {
		t.Errorf("the proxy grew by %d KiB", grown>>10)
	}
}

// TestFewDescriptors: a proxy that may not open as many files as it is
// configured for says so at its start, and what it cannot serve it refuses with
// a reason that the real command shows, while what it serves works.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	limited := func() (string, error) {
		path, err := plain()
		if err != nil {
			return "", err
		}
		script := filepath.Join(t.TempDir(), "limited")
		return script, os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nulimit -n 100 && exec %s \"$@\"\n", path), 0o700)
	}
	p := startProxy(t, limited, func(addr string) string { return c.config(addr, "pool {\n max_open = 2\n}", "") })
	p.waitLog("the limit of open files allows fewer sessions than limits.max_sessions: set LimitNOFILE= of the systemd unit (ulimit -n) to what is needed: limit=100 needed=10066 sessions=34 max_sessions=10000")
	var sessions []*doveadm.ClientConn
	for range 34 {
		client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		sessions = append(sessions, client)
	}
	const reason = "doveadm-proxy: no file descriptor is left for it (LimitNOFILE of the systemd unit)"
	for range 3 {
		got := cli(t, p.Addr, clientPassword, "quota get", "-u", "u1-1")
		if got.ExitCode == 0 || !strings.Contains(got.Stderr, reason) {
			t.Errorf("the command says %q, exit %d, want %q", got.Stderr, got.ExitCode, reason)
		}
	}
	p.waitLog("connection refused")
	for _, client := range sessions {
		if err := mustBeQuota(runCommand(t.Context(), client, "u1-1", "quota get")); err != nil {
			t.Fatal(err)
		}
	}
	sessions[0].Close()
	for deadline := time.Now().Add(time.Minute); ; {
		if got := cli(t, p.Addr, clientPassword, "quota get", "-u", "u1-1"); got.ExitCode == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("still %q", got.Stderr)
		}
	}
}
