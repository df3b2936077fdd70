package starter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Group is the group of the daemon, which has to read what root writes.
const Group = "doveadm-proxy"

// File is one to be written.
type File struct {
	Path    string
	Content string
	Mode    fs.FileMode
	// Default is what a package may have put there, which nobody has changed and
	// which may be replaced.
	Default string
}

// Files returns the files of a site below a directory. An empty secret: its
// file is not written. packaged is the configuration of the packages.
func (s Site) Files(dir, clientHash, backendPassword, packaged string) []File {
	files := []File{{filepath.Join(dir, ConfigFile), s.Config(), 0o644, packaged}}
	if s.NeedsMap() {
		files = append(files, File{Path: filepath.Join(dir, MapFile), Content: s.UserMap(), Mode: 0o640})
	}
	if clientHash != "" {
		files = append(files, File{Path: filepath.Join(dir, s.ClientSecret()), Content: clientHash + "\n", Mode: 0o640})
	}
	if backendPassword != "" {
		files = append(files, File{Path: filepath.Join(dir, BackendSecret), Content: backendPassword + "\n", Mode: 0o640})
	}
	return files
}

// Existing returns the files that are there already and would be overwritten.
func Existing(files []File) ([]string, error) {
	var there []string
	for _, f := range files {
		content, err := os.ReadFile(f.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case string(content) == f.Content || f.Default != "" && string(content) == f.Default:
		default:
			there = append(there, f.Path)
		}
	}
	return there, nil
}

// Write writes files, all or, if one of them is there already, none; force
// overwrites. What is not for everybody's eyes belongs to root and the daemon's
// group, where there is one, and otherwise to who runs this.
func Write(files []File, force bool) error {
	if !force {
		there, err := Existing(files)
		if err != nil {
			return err
		}
		if len(there) > 0 {
			return fmt.Errorf("already there: %s: nothing was written; --force overwrites, --dir writes elsewhere", strings.Join(there, ", "))
		}
	}
	gid := -1
	if os.Geteuid() == 0 {
		var unknown user.UnknownGroupError
		group, err := user.LookupGroup(Group)
		switch {
		case errors.As(err, &unknown):
		case err != nil:
			return err
		default:
			if gid, err = strconv.Atoi(group.Gid); err != nil {
				return err
			}
		}
	}
	for _, f := range files {
		if err := write(f, gid); err != nil {
			return err
		}
	}
	return nil
}

func write(f File, gid int) (err error) {
	private := f.Mode&0o004 == 0
	if private && gid < 0 {
		f.Mode &^= 0o077
	}
	dir := filepath.Dir(f.Path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		mode := fs.FileMode(0o755)
		if filepath.Base(dir) == filepath.Dir(BackendSecret) {
			mode = 0o750
			if gid < 0 {
				mode = 0o700
			}
		}
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil {
			return err
		}
		if mode == 0o750 {
			if err := os.Chown(dir, 0, gid); err != nil {
				return err
			}
		}
	}
	// Beside the old file, so that nobody ever reads a half of one; the mode is
	// there before the content.
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(f.Path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if private && gid >= 0 {
		if err := tmp.Chown(0, gid); err != nil {
			return errors.Join(err, tmp.Close())
		}
	}
	_, err = tmp.WriteString(f.Content)
	if err := errors.Join(err, tmp.Chmod(f.Mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), f.Path)
}
