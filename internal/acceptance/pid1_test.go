package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pid1 is a real systemd, the first process of name spaces of its own, which
// knows our unit and nothing else. It shares the network with the test.
type pid1 struct {
	namespaces
	t   *testing.T
	dir string // the unit sees it as /opt
}

// pid1Script makes the name spaces fit for a systemd, which it becomes. What
// the units write must not reach the machine.
const pid1Script = `set -e
mount --make-rprivate /
mount --bind "$1" /opt
for file in passwd group; do mount --bind "/opt/$file" "/etc/$file"; done
mount -t proc proc /proc
for dir in /run /tmp /var/tmp /var/cache /var/lib; do mount -t tmpfs -o mode=0755 tmpfs "$dir"; done
chmod 1777 /tmp /var/tmp
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH=/opt/units /lib/systemd/systemd --system
`

// startPID1 starts a systemd with the unit as it is shipped, except for the
// places of binary, configuration and log.
func startPID1(t *testing.T) *pid1 {
	t.Helper()
	p := &pid1{t: t, dir: t.TempDir()}
	// The daemon's user has to get there.
	for d := p.dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	p.unit("doveadm-proxy.service", "/usr/bin/doveadm-proxy", "/opt/doveadm-proxy", "/etc/doveadm-proxy", "/opt/proxy.hcl")
	p.write("units/doveadm-proxy.service.d/log.conf", "[Service]\nStandardError=append:/opt/log\n")
	for _, target := range bootTargets {
		p.write("units/"+target+".target", "[Unit]\nDefaultDependencies=no\n")
	}
	for file, line := range map[string]string{"passwd": "doveadm-proxy:x:64245:64245::/nonexistent:/bin/false\n", "group": "doveadm-proxy:x:64245:\n"} {
		text, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		p.write(file, string(text)+line)
	}

	t.Cleanup(func() { // after the end of the systemd
		if t.Failed() {
			t.Logf("log of the unit:\n%s", p.log())
		}
	})
	p.namespaces = boot(t, pid1Script, p.dir, namespaces{})
	return p
}

// unit installs a unit as it is shipped, but for the replacements.
func (p *pid1) unit(name string, oldnew ...string) {
	p.t.Helper()
	text, err := os.ReadFile("../../systemd/" + name)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("units/"+name, strings.NewReplacer(oldnew...).Replace(string(text)))
}

func (p *pid1) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// install puts a binary in the place of the one before, as a package manager
// does.
func (p *pid1) install(binary string) {
	p.t.Helper()
	copyFile(p.t, binary, filepath.Join(p.dir, "new"))
	if err := os.Chmod(filepath.Join(p.dir, "new"), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(p.dir, "new"), filepath.Join(p.dir, "doveadm-proxy")); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pid1) systemctl(args ...string) (string, error) {
	return p.run(append([]string{"systemctl", "--no-pager"}, args...)...)
}

// must runs systemctl, which has to succeed.
func (p *pid1) must(args ...string) string {
	p.t.Helper()
	out, err := p.systemctl(args...)
	if err != nil {
		status, _ := p.systemctl("status", "doveadm-proxy")
		p.t.Fatalf("systemctl %s: %v\n%s\n%s", strings.Join(args, " "), err, out, status)
	}
	return strings.TrimSpace(out)
}

func (p *pid1) log() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	return string(b)
}

// waitLog waits until the log has the text so often.
func (p *pid1) waitLog(text string, times int) {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); strings.Count(p.log(), text) < times; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the log does not say %q %d times", text, times)
		}
	}
}

// child returns the only child of a process that p knows by this id.
func (p *pid1) child(pid int) string {
	p.t.Helper()
	out, err := p.run("/bin/sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/children", pid))
	if err != nil {
		p.t.Fatalf("children of %d: %v: %s", pid, err, out)
	}
	return strings.TrimSpace(out)
}
