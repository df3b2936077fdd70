package dovecot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Version is a release series of Dovecot. The zero value stands for V23.
type Version string

const (
	V23 Version = "2.3" // the packages that are installed on the machine, Debian 12's
	V24 Version = "2.4" // Debian 13's packages, in a folder that scripts/dovecot24 makes
)

// Versions returns all versions, the oldest first.
func Versions() []Version { return []Version{V23, V24} }

// folderName is the name that scripts/dovecot24 gives the folder of V24.
const folderName = "debian-trixie-1"

// Root returns the directory that the programs of the version see as "/": the
// system's for 2.3; for 2.4 a folder, which they run in by chroot(2). It is an
// error if there is no such folder.
func (v Version) Root() (string, error) {
	switch v {
	case "", V23:
		return "/", nil
	case V24:
	default:
		return "", fmt.Errorf("there is no Dovecot %q here, only %q and %q", string(v), V23, V24)
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cache) { // as the specification of the variable says
		cache = "/var/cache"
	}
	root := filepath.Join(cache, "doveadm-proxy", folderName)
	if _, err := os.Stat(root); err != nil {
		return "", fmt.Errorf("no folder with Dovecot 2.4: %w: run make deps", err)
	}
	return root, nil
}

// Inside returns the name that a file of the system has for the programs of
// the version. Those of 2.4 see only what is below their root: MkdirTemp makes
// directories that they see.
func (v Version) Inside(path string) (string, error) {
	root, err := v.Root()
	if err != nil || root == "/" {
		return path, err
	}
	inside, ok := strings.CutPrefix(filepath.Clean(path), root+"/")
	if !ok {
		return "", fmt.Errorf("%s is not visible to Dovecot %s, which sees only what is below %s", path, v, root)
	}
	return "/" + inside, nil
}

// MkdirTemp makes a new directory that the programs of the version see, and
// that every user may read. Removing it is up to the caller.
func (v Version) MkdirTemp(name string) (string, error) {
	root, err := v.Root()
	if err != nil {
		return "", err
	}
	// Not os.TempDir: TMPDIR may be too long for the names of UNIX sockets
	// (107 bytes) or closed to the other users that Dovecot runs as.
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), name+"-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}
