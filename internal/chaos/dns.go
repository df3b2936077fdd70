package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// names is a real name server, which this process and its children ask and
// nobody else.
type names struct {
	cmd   *exec.Cmd
	hosts string // its file of names
}

// startNames starts dnsmasq and makes it the only resolver. The files that say
// so are mounted over those of the system, see private.
func startNames(ctx context.Context, dir string) (*names, error) {
	path, err := exec.LookPath("dnsmasq")
	if err != nil {
		path = "/usr/sbin/dnsmasq"
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("dnsmasq is not installed: apt-get install --yes dnsmasq-base (%w)", err)
	}
	// Out of the way of other name servers of the machine.
	addr := fmt.Sprintf("127.77.%d.%d", rand.IntN(250), 1+rand.IntN(250))
	n := &names{hosts: filepath.Join(dir, "names")}
	if err := os.WriteFile(n.hosts, nil, 0o644); err != nil {
		return nil, err
	}
	for target, text := range map[string]string{
		"/etc/resolv.conf":   "nameserver " + addr + "\n",
		"/etc/nsswitch.conf": "hosts: files dns\n",
	} {
		own := filepath.Join(dir, filepath.Base(target))
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			return nil, err
		}
		if err := syscall.Mount(own, target, "", syscall.MS_BIND, ""); err != nil {
			return nil, fmt.Errorf("mount over %s: %w", target, err)
		}
	}
	n.cmd = exec.Command(path, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
		"--local=/chaos.test/", "--bind-interfaces", "--listen-address="+addr, "--addn-hosts="+n.hosts, "--pid-file=", "--user=root")
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	return n, nil
}

// set gives name one address, or none, and returns when that is known.
func (n *names) set(ctx context.Context, name, addr string) error {
	line := ""
	if addr != "" {
		line = addr + " " + name + "\n"
	}
	if err := os.WriteFile(n.hosts, []byte(line), 0o644); err != nil {
		return err
	}
	if err := n.signal(syscall.SIGHUP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true}
	for {
		found, err := resolver.LookupHost(ctx, name)
		var failed *net.DNSError
		if err == nil && len(found) == 1 && found[0] == addr || addr == "" && errors.As(err, &failed) && failed.IsNotFound {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the name server does not say %s for %s: %w", addr, name, errors.Join(ctx.Err(), err))
		}
	}
}

func (n *names) signal(sig syscall.Signal) error { return n.cmd.Process.Signal(sig) }

func (n *names) close() error {
	n.cmd.Process.Kill()
	n.cmd.Wait() // its error is the signal
	return nil
}
