package moves

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pulse is a locked file, whose lock ends with the process however that ends.
// By it the members on one machine know of each other who lives.
type pulse struct {
	dir  string
	file *os.File
}

const pulseSuffix = ".alive"

// startPulse makes the file of a member in dir.
func startPulse(dir, id string) (*pulse, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, id+pulseSuffix), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		os.Remove(f.Name())
		return nil, err
	}
	return &pulse{dir, f}, nil
}

// dead calls bury for each member whose process has ended, and removes its file
// if bury returns no error.
func (p *pulse) dead(bury func(id string) error) error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), pulseSuffix)
		path := filepath.Join(p.dir, e.Name())
		if !ok || path == p.file.Name() || lives(path) {
			continue
		}
		err := bury(id)
		if err == nil {
			err = os.Remove(path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// lives reports whether somebody has the lock of a file. It is not known of a
// file that cannot be opened.
func lives(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// stop removes the file.
func (p *pulse) stop() {
	os.Remove(p.file.Name())
	p.file.Close()
}
