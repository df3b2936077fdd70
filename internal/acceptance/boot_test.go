package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bootTargets are those that our units name. They are empty: nothing starts but
// what a test enables.
var bootTargets = []string{"default", "sysinit", "basic", "shutdown", "network-online", "multi-user", "sockets"}

// namespaces are those of a systemd that is the first process of them.
type namespaces struct {
	pid   int // of the systemd
	enter []string
	env   []string // of what is run there; nil: that of the test
}

// boot starts the script in name spaces of its own, where it makes itself at home
// in dir and becomes a systemd. The systemd ends with the test.
func boot(t *testing.T, script, dir string, n namespaces) namespaces {
	t.Helper()
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--cgroup", "--ipc", "--uts", "/bin/sh", "-c", script, "sh", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: this test needs util-linux and systemd: run make deps", err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // and with it, by --kill-child, all others
		<-exited
	})
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		select {
		case <-exited:
			t.Fatalf("no systemd can run here as the first process of a name space (that takes root, overlayfs and cgroup2): %s", out.String())
		default:
		}
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if n.pid, _ = strconv.Atoi(strings.TrimSpace(string(children))); n.pid != 0 {
			if _, err := n.run("systemctl", "--no-pager", "list-units"); err == nil {
				return n
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("systemd does not come up: %s", out.String())
		}
	}
}

// command prepares a program beside the systemd.
func (n *namespaces) command(ctx context.Context, args ...string) *exec.Cmd {
	enter := append([]string{"-t", strconv.Itoa(n.pid), "-m", "-p", "-C"}, n.enter...)
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.Env = n.env
	return cmd
}

func (n *namespaces) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := n.command(ctx, args...).CombinedOutput()
	return string(out), err
}
