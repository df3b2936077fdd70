package acceptance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine is a copy of this one: an overlay over its root directory, in which
// a real systemd is the first process. What is installed there, stays there, and
// goes with the test. It shares the network with the test, and a directory.
type machine struct {
	namespaces
	t   *testing.T
	dir string // the machine sees it as /mnt
}

// machineScript makes the machine of name spaces that have been made for it.
// What changes is in memory. Of the units that this machine would start at boot
// nothing is there, nor of its caches: the folder of the tests' Dovecot 2.4 is in
// the one that a purge of the package removes. No index of all manual pages is
// made for ours.
const machineScript = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs /media
mkdir /media/upper /media/work /media/root
mount -t overlay -o lowerdir=/,upperdir=/media/upper,workdir=/media/work overlay /media/root
cd /media/root
rm -rf etc/systemd/system etc/doveadm-proxy usr/bin/doveadm-proxy usr/sbin/policy-rc.d var/lib/man-db/auto-update
mkdir -p etc/systemd/system mnt
mount --bind "$1" mnt
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs -o ro sysfs sys
for dir in run tmp var/tmp var/cache; do mount -t tmpfs -o mode=0755 tmpfs "$dir"; done
chmod 1777 tmp var/tmp
mkdir -p run/lock
mount -t cgroup2 cgroup2 sys/fs/cgroup
pivot_root . media
umount -l /media
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test \
	SYSTEMD_UNIT_PATH=/mnt/units:/etc/systemd/system:/lib/systemd/system /lib/systemd/systemd --system
`

// startMachine starts one. Targets are empty, so that nothing starts but what is
// enabled in it.
func startMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &machine{t: t, dir: dir}
	os.Chmod(dir, 0o755)
	for _, target := range bootTargets {
		m.write("units/"+target+".target", "[Unit]\nDefaultDependencies=no\n", 0o644)
	}
	m.namespaces = boot(t, machineScript, dir, namespaces{
		enter: []string{"-r", "-w"},
		env:   []string{"PATH=/mnt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "HOME=/root", "LC_ALL=C.UTF-8"},
	})
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := m.run("sh", "-c", "systemctl --no-pager status doveadm-proxy; ls -lR /etc/doveadm-proxy")
			t.Logf("the machine at the end:\n%s", log)
		}
	})
	return m
}

// write writes a file that the machine sees below /mnt.
func (m *machine) write(name, text string, mode os.FileMode) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		m.t.Fatal(err)
	}
}

// must runs a program, which has to succeed, and returns what it printed.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, err := m.run(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
