package acceptance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// packages builds the packages once, as "make packages" does.
var packages = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("make", "--no-print-directory", "packages", "VERSION=v0.0.1")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make packages: %w\n%s", err, out)
	}
	return filepath.Abs("../../bin/packages")
})

// built returns the only package of a format.
func built(t *testing.T, format string) string {
	t.Helper()
	dir, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*."+format))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages: %v, %v", found, err)
	}
	return found[0]
}

// TestPackageLintian: nothing that lintian says, pedantic as it may be.
func TestPackageLintian(t *testing.T) {
	t.Parallel()
	deb := built(t, "deb")
	out, err := exec.Command("lintian", "--pedantic", "--display-info", "--fail-on", "error,warning,info,pedantic", "--allow-root", deb).CombinedOutput()
	if err != nil || strings.Contains(string(out), ": doveadm-proxy") {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

// TestPackageLife: the Debian package is installed, runs, is upgraded without a
// failed command, is removed and purged.
func TestPackageLife(t *testing.T) {
	t.Parallel()
	deb := built(t, "deb")
	m := startMachine(t)
	copyFile(t, deb, filepath.Join(m.dir, "one.deb"))

	// An installation works with what the package has in it.
	m.must("dpkg", "-i", "/mnt/one.deb")
	if out := m.must("dpkg-query", "-W", "-f", "${Status}", "doveadm-proxy"); out != "install ok installed" {
		t.Errorf("dpkg: %s", out)
	}
	m.must("doveadm-proxy", "check", "--config", "/etc/doveadm-proxy")
	m.must("systemctl", "is-active", "--quiet", "doveadm-proxy")
	m.must("systemctl", "is-enabled", "--quiet", "doveadm-proxy")
	if out := m.must("stat", "-c", "%U %G %a", "/run/doveadm-proxy/doveadm.sock"); out != "doveadm-proxy doveadm-proxy 666\n" {
		t.Errorf("socket: %s", out)
	}
	if out := m.must("doveadm-proxy", "status"); !strings.Contains(out, "0.0.1") {
		t.Errorf("status:\n%s", out)
	}
	// The doveadm command gets as far as the backend that is not there.
	out, err := m.run("doveadm", "-o", "doveadm_worker_count=0", "mailbox", "list", "-S", "/run/doveadm-proxy/doveadm.sock", "-u", "ann")
	if err == nil || !strings.Contains(out, "backend mail1") {
		t.Errorf("a command to the default configuration: %v, %s", err, out)
	}
	for _, page := range []string{"doveadm-proxy.8.gz", "doveadm-proxy-init.8.gz"} {
		m.must("test", "-e", "/usr/share/man/man8/"+page)
	}

	// The configuration becomes the administrator's own; an upgrade leaves it.
	m.must("sh", "-c", `printf 'secret\nother\n' | doveadm-proxy init --backend 127.0.0.1:1 --backend-password-file - --client-password-file - --listen 127.0.0.1:`+freePort(t))
	if out := m.must("stat", "-c", "%U %G %a", "/etc/doveadm-proxy/secrets", "/etc/doveadm-proxy/secrets/backends", "/etc/doveadm-proxy/secrets/doveadm"); out != "root doveadm-proxy 750\nroot doveadm-proxy 640\nroot doveadm-proxy 640\n" {
		t.Errorf("secrets: %s", out)
	}
	m.must("systemctl", "restart", "doveadm-proxy")
	before := m.must("systemctl", "show", "-P", "MainPID", "doveadm-proxy")
	config := m.must("cat", "/etc/doveadm-proxy/proxy.hcl")
	m.must("sh", "-c", `mkdir -p /tmp/deb && dpkg-deb -R /mnt/one.deb /tmp/deb && sed -i 's/^Version: .*/Version: 0.0.2-1/' /tmp/deb/DEBIAN/control && sed -i '1s/default/newer default/' /tmp/deb/etc/doveadm-proxy/proxy.hcl && dpkg-deb -Zgzip -z1 -b /tmp/deb /mnt/two.deb`)
	m.must("dpkg", "-i", "--force-confold", "/mnt/two.deb")
	if after := m.must("cat", "/etc/doveadm-proxy/proxy.hcl"); after != config {
		t.Errorf("after the upgrade:\n%s", after)
	}
	if after := m.must("systemctl", "show", "-P", "MainPID", "doveadm-proxy"); after == before || strings.TrimSpace(after) == "0" {
		t.Errorf("main process %s before the upgrade and %s after it", before, after)
	}
	m.must("systemctl", "is-active", "--quiet", "doveadm-proxy")

	// A configuration that the new version does not take leaves the old one running.
	before = m.must("systemctl", "show", "-P", "MainPID", "doveadm-proxy")
	m.must("sh", "-c", `echo 'nonsense {}' >> /etc/doveadm-proxy/proxy.hcl; sed -i 's/^Version: .*/Version: 0.0.3-1/' /tmp/deb/DEBIAN/control; dpkg-deb -Zgzip -z1 -b /tmp/deb /mnt/three.deb`)
	if out := m.must("dpkg", "-i", "--force-confold", "/mnt/three.deb"); !strings.Contains(out, "nonsense") || !strings.Contains(out, "not restarted") {
		t.Errorf("upgrade beside a bad configuration:\n%s", out)
	}
	if after := m.must("systemctl", "show", "-P", "MainPID", "doveadm-proxy"); after != before {
		t.Errorf("main process %s before and %s after an upgrade beside a bad configuration", before, after)
	}

	m.must("dpkg", "-r", "doveadm-proxy")
	if out, err := m.run("systemctl", "is-active", "doveadm-proxy"); err == nil {
		t.Errorf("after the removal: %s", out)
	}
	m.must("test", "-e", "/etc/doveadm-proxy/secrets/backends")
	m.must("dpkg", "-P", "doveadm-proxy")
	if out := m.must("sh", "-c", "ls -d /etc/doveadm-proxy /var/lib/doveadm-proxy /var/log/doveadm-proxy /var/cache/doveadm-proxy /etc/logrotate.d/doveadm-proxy /etc/fail2ban/filter.d/doveadm-proxy.conf /usr/share/doc/doveadm-proxy /etc/systemd/system/*/doveadm-proxy* 2>/dev/null || true"); out != "" {
		t.Errorf("left after purge:\n%s", out)
	}
	if out, err := exec.Command("dpkg-query", "-W", "doveadm-proxy").CombinedOutput(); err == nil {
		t.Errorf("it is on the machine of the test: %s", out)
	}
}

// TestPackageFiles: both packages have the same files.
func TestPackageFiles(t *testing.T) {
	t.Parallel()
	list := func(name string, args ...string) map[string]bool {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		files := map[string]bool{}
		for line := range strings.Lines(string(out)) {
			path := strings.TrimPrefix(strings.TrimSpace(line), ".")
			if i := strings.LastIndex(path, " ./"); i >= 0 {
				path = path[i+2:]
			}
			if path = strings.TrimSuffix(path, "/"); strings.Contains(path, "doveadm-proxy") {
				files[path] = true
			}
		}
		return files
	}
	deb := list("dpkg-deb", "-c", built(t, "deb"))
	rpm := list("rpm", "-qpl", built(t, "rpm"))
	for _, path := range []string{
		"/usr/bin/doveadm-proxy", "/usr/lib/systemd/system/doveadm-proxy.service", "/usr/lib/sysusers.d/doveadm-proxy.conf",
		"/etc/doveadm-proxy/proxy.hcl", "/etc/logrotate.d/doveadm-proxy", "/etc/fail2ban/filter.d/doveadm-proxy.conf",
		"/usr/share/man/man8/doveadm-proxy.8.gz", "/usr/share/man/man5/doveadm-proxy.hcl.5.gz", "/usr/share/bash-completion/completions/doveadm-proxy", "/usr/share/doc/doveadm-proxy/README.md",
	} {
		if !deb[path] || !rpm[path] {
			t.Errorf("%s: in the Debian package: %t, in the RPM: %t", path, deb[path], rpm[path])
		}
	}
	for path := range deb {
		if strings.HasPrefix(path, "/usr/share/man/") && !rpm[path] {
			t.Errorf("%s is not in the RPM", path)
		}
	}
}

// TestPackageDefault: what the package says is right as it is.
func TestPackageDefault(t *testing.T) {
	t.Parallel()
	binary, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary, "check", "--config", "../../packaging/proxy.hcl").CombinedOutput(); err != nil || strings.Contains(string(out), "arning") {
		t.Errorf("%v: %s", err, out)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	target, err := os.Create(to)
	if err == nil {
		_, err = io.Copy(target, source) // by the kernel: files are large here
		err = errors.Join(err, target.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// freePort returns a port that nobody gets until the test ends.
func freePort(t *testing.T) string {
	t.Helper()
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	_, number, err := net.SplitHostPort(port.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return number
}
