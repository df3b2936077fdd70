package dovecot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Command prepares a program of Dovecot with an environment of its own: what
// it does must not depend on who runs it. A program of 2.4 runs inside the root
// of its version, which takes root's rights. SysProcAttr is never nil.
func Command(ctx context.Context, version Version, name string, args ...string) (*exec.Cmd, error) {
	root, err := version.Root()
	if err != nil {
		return nil, err
	}
	path, err := program(root, name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if root != "/" {
		if os.Geteuid() != 0 {
			return nil, errors.New("dovecot 2.4 needs root to run in its folder: run this as root (sudo)")
		}
		cmd.SysProcAttr.Chroot = root
		cmd.Dir = "/"
	}
	return cmd, nil
}

// packages are Debian's names of what an instance of 2.3 needs.
const packages = "dovecot-core dovecot-imapd dovecot-sieve dovecot-managesieved"

// program finds a program of Dovecot and returns its name inside root. The
// daemon is in a directory that is not on the PATH of an ordinary user.
func program(root, name string) (string, error) {
	if root != "/" {
		for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
			path := filepath.Join(dir, name)
			if _, err := exec.LookPath(filepath.Join(root, path)); err == nil {
				return path, nil
			}
		}
		return "", fmt.Errorf("%s has no %s: remove that folder, then run make deps", root, name)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: apt-get install --yes %s", name, packages)
}
