package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// loadRate is how many commands a second the load of a restart sends.
const loadRate = 500

// restartLoad sends commands through the proxy: half of them on a connection of
// their own, as the doveadm command does, the others on connections that are kept.
type restartLoad struct {
	t        *testing.T
	addrs    []string
	stop     context.CancelFunc
	workers  sync.WaitGroup
	answered atomic.Int64
	failed   atomic.Int64
	closed   atomic.Int64 // kept connections that the proxy ended between two commands
	begin    time.Time
}

func startRestartLoad(t *testing.T, addrs ...string) *restartLoad {
	ctx, cancel := context.WithCancel(t.Context())
	l := &restartLoad{t: t, addrs: addrs, stop: cancel, begin: time.Now()}
	beat := make(chan int)
	l.workers.Go(func() {
		defer close(beat)
		for n := 0; ; n++ {
			due := l.begin.Add(time.Duration(n) * time.Second / loadRate)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(due)):
			}
			select {
			case <-ctx.Done():
				return
			case beat <- n:
			}
		}
	})
	for i := range 64 {
		l.workers.Go(func() {
			if i%2 == 0 {
				l.keep(beat)
				return
			}
			for n := range beat {
				l.count(loginOnce(l.t.Context(), l.addrs[n%len(l.addrs)], "u1-1", "mailbox list", "INBOX"))
			}
		})
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *restartLoad) count(fields []string, err error) {
	if err == nil && (len(fields) != 1 || fields[0] != "INBOX") {
		err = fmt.Errorf("wrong answer %q", fields)
	}
	if err != nil {
		l.failed.Add(1)
		l.t.Errorf("after %d commands: %v", l.answered.Load(), err)
		return
	}
	l.answered.Add(1)
}

// keep sends commands on one connection, and opens another one when the proxy
// has ended that: it looks before it sends, as a client with a pool does.
func (l *restartLoad) keep(beat <-chan int) {
	var c *doveadm.ClientConn
	for n := range beat {
		if c != nil && ended(c) {
			l.closed.Add(1)
			c.Close()
			c = nil
		}
		if c == nil {
			var err error
			if c, err = dial(l.t.Context(), l.addrs[n%len(l.addrs)], doveadm.MaxMinor); err != nil {
				l.count(nil, err)
				continue
			}
		}
		l.count(runCommand(l.t.Context(), c, "u1-1", "mailbox list", "INBOX"))
	}
	if c != nil {
		c.Close()
	}
}

// ended reports whether the peer has closed a connection on which nothing is
// expected.
func ended(c *doveadm.ClientConn) bool {
	nc := c.NetConn()
	nc.SetReadDeadline(time.Now().Add(50 * time.Microsecond))
	_, err := nc.Read(make([]byte, 1))
	nc.SetReadDeadline(time.Time{})
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// more returns when n more commands have been answered.
func (l *restartLoad) more(n int64) {
	l.t.Helper()
	goal := l.answered.Load() + n
	for deadline := time.Now().Add(2 * time.Minute); l.answered.Load() < goal; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) || l.failed.Load() > 0 {
			l.t.Fatalf("%d commands answered, %d failed", l.answered.Load(), l.failed.Load())
		}
	}
}

func (l *restartLoad) end() {
	l.stop()
	l.workers.Wait()
}

// TestRestartAndUpgradeFailNoCommand restarts the unit under load, and upgrades
// the binary, while commands run that take longer than that.
func TestRestartAndUpgradeFailNoCommand(t *testing.T) {
	t.Parallel()
	var binaries []string
	for _, version := range []string{"v1", "v2"} {
		path, err := build("restart-"+version, "-ldflags", "-X main.version="+version)
		if err != nil {
			t.Fatal(err)
		}
		binaries = append(binaries, path)
	}
	c := startCluster(t, 1, 2, dovecot.Options{})
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	p := startPID1(t)
	// The daemon's own directory, seen from here.
	socket := fmt.Sprintf("/proc/%d/root/run/doveadm-proxy/local.sock", p.pid)
	config := c.config(port.Addr, "", `listener "local" {
  address = "unix:/run/doveadm-proxy/local.sock"
  client  = "doveadm"
  mode    = "0600"
}`)
	second, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	p.write("proxy.hcl", config)
	p.install(binaries[0])
	p.must("start", "doveadm-proxy")
	p.waitLog("ready: version=v1", 1)
	// One more listener, by a reload (systemd before 253 does not know
	// notify-reload).
	p.write("proxy.hcl", config+fmt.Sprintf("listener \"second\" {\n address = %q\n}\n", second.Addr))
	p.must("kill", "--kill-whom=main", "--signal=HUP", "doveadm-proxy")
	p.waitLog(" reloaded:", 1)

	// Both of these began before the restart and end after it.
	save, err := dial(t.Context(), port.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer save.Close()
	const half = "Subject: restart\r\n\r\nfirst half\r\n"
	if err := save.Send(&doveadm.Command{User: "u1-2", Name: "save"}); err != nil {
		t.Fatal(err)
	}
	if _, err := save.NetConn().Write([]byte(half)); err != nil {
		t.Fatal(err)
	}
	run, err := dial(t.Context(), port.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	// A run over many users: one command after the other on one connection.
	runs := make(chan error, 1)
	enough := make(chan struct{})
	go func() {
		for {
			select {
			case <-enough:
				runs <- nil
				return
			case <-time.After(50 * time.Millisecond):
			}
			if _, err := runCommand(context.Background(), run, "u1-2", "mailbox list", "INBOX"); err != nil {
				runs <- err
				return
			}
		}
	}()

	load := startRestartLoad(t, port.Addr, second.Addr, socket)
	load.more(1000)
	p.must("restart", "doveadm-proxy")
	p.waitLog("ready: version=v1", 2)
	load.more(500)
	p.install(binaries[1])
	p.must("restart", "doveadm-proxy")
	p.waitLog("ready: version=v2", 1)
	load.more(1000)
	took := time.Since(load.begin)
	load.end()
	t.Logf("%d commands in %.1f s (%.0f a second), %d failed; %d kept connections were ended between two commands",
		load.answered.Load(), took.Seconds(), float64(load.answered.Load())/took.Seconds(), load.failed.Load(), load.closed.Load())

	// More than is held in memory: its server still has a place for files.
	if _, err := io.WriteString(save.NetConn(), strings.Repeat("second half\r\n", 100_000)+".\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := finish(save); err != nil {
		t.Errorf("the save that was running: %v", err)
	}
	close(enough)
	if err := <-runs; err != nil {
		t.Errorf("the run over many users: %v", err)
	}
	// The oldest server ends now by itself, having nothing left to do.
	save.Close()
	run.Close()
	p.waitLog(" stopped: took=", 2)
	if log := p.log(); strings.Contains(log, "cut off") || strings.Contains(log, "[ERROR]") || strings.Contains(log, "panic") {
		t.Error("the log has an error")
	}

	// A listener that the next process does not want is not kept.
	p.write("proxy.hcl", config)
	p.must("restart", "doveadm-proxy")
	p.waitLog("ready: version=v2", 2)
	if _, err := dial(t.Context(), second.Addr, doveadm.MaxMinor); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a listener that is gone: %v", err)
	}
	// Connections outlive even a crash, if nobody had accepted them.
	main, err := strconv.Atoi(p.must("show", "--property=MainPID", "--value", "doveadm-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.run("kill", "-KILL", p.child(main)); err != nil {
		t.Fatalf("kill: %v: %s", err, out)
	}
	if _, err := loginOnce(t.Context(), port.Addr, "u1-1", "mailbox list"); err != nil {
		t.Logf("at the crash: %v", err) // accepted before it
	}
	p.waitLog("ready: version=v2", 3)
	if _, err := loginOnce(t.Context(), socket, "u1-1", "mailbox list"); err != nil {
		t.Errorf("after a crash: %v", err)
	}

	p.must("stop", "doveadm-proxy")
	if state, _ := p.systemctl("is-active", "doveadm-proxy"); strings.TrimSpace(state) != "inactive" {
		t.Errorf("after the stop: %s", state)
	}
	if _, err := os.Stat(filepath.Dir(socket)); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}

	// The same with the socket unit, which starts the service by the first
	// connection.
	p.unit("doveadm-proxy.socket", "127.0.0.1:24245", port.Addr)
	p.must("daemon-reload")
	p.must("start", "doveadm-proxy.socket")
	load = startRestartLoad(t, port.Addr)
	load.more(100)
	p.must("restart", "doveadm-proxy")
	p.waitLog("ready: version=v2", 5)
	load.more(100)
	load.end()
	p.must("stop", "doveadm-proxy.socket", "doveadm-proxy.service")
}

// finish reads the reply of a command that was sent.
func finish(c *doveadm.ClientConn) error {
	c.NetConn().SetDeadline(time.Now().Add(60 * time.Second))
	var scan doveadm.ReplyScanner
	for !scan.Done() {
		chunk, err := c.ReadChunk()
		if err != nil {
			return err
		}
		if chunk.Channel == doveadm.ChannelReply {
			if _, _, err := scan.Scan(chunk.Data); err != nil {
				return err
			}
		}
	}
	if !scan.Status().OK {
		return fmt.Errorf("status %s", scan.Status())
	}
	return nil
}

// TestOverlapWithoutSystemd: the two processes of serve --overlap end together,
// whichever of them is the first.
func TestOverlapWithoutSystemd(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	binary, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		end  func(parent, server int)
		code int
		says string
	}{
		{"told to stop", func(parent, _ int) { syscall.Kill(parent, syscall.SIGTERM) }, 0, " stopped: took="},
		{"the parent is killed", func(parent, _ int) { syscall.Kill(parent, syscall.SIGKILL) }, -1, "the parent process has ended"},
		{"the server is killed", func(_, server int) { syscall.Kill(server, syscall.SIGKILL) }, 75, "the server ended: signal: killed"},
		{"the watchdog is not content", func(parent, _ int) { syscall.Kill(parent, syscall.SIGABRT) }, 75, "the server ended: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			port, err := dovecot.ReservePort()
			if err != nil {
				t.Fatal(err)
			}
			defer port.Close()
			p := &proxyProcess{t: t, Addr: port.Addr, Config: filepath.Join(t.TempDir(), "proxy.hcl")}
			p.writeConfig(c.config(port.Addr, "", ""))
			// A file and not a pipe: the server may outlive its parent.
			log, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			cmd := exec.Command(binary, "serve", "--overlap", "--config", p.Config)
			cmd.Stderr = log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			server := 0
			t.Cleanup(func() {
				cmd.Process.Kill()
				if server != 0 {
					syscall.Kill(server, syscall.SIGKILL)
				}
			})
			wait := func(what string, done func(log string) bool) {
				t.Helper()
				for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					b, _ := os.ReadFile(log.Name())
					if done(string(b)) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s; the log: %s", what, b)
					}
				}
			}
			wait("not ready", func(log string) bool { return strings.Contains(log, "ready:") })
			if server, err = strconv.Atoi(childOf(cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			if _, err := loginOnce(t.Context(), port.Addr, "u1-1", "mailbox list"); err != nil {
				t.Fatal(err)
			}
			tt.end(cmd.Process.Pid, server)
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			wait("the log does not say "+tt.says, func(log string) bool { return strings.Contains(log, tt.says) })
			wait("the server is still there", func(string) bool { return syscall.Kill(server, 0) == syscall.ESRCH || zombie(server) })
		})
	}
}

// zombie reports whether a process has ended and nobody has asked how: in a
// container that may stay so.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// childOf returns the only child of a process.
func childOf(pid int) string {
	var all []string
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		b, _ := os.ReadFile(path)
		all = append(all, strings.Fields(string(b))...)
	}
	return strings.Join(all, " ")
}
