package watch

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

// Stamp tells one state of a file from another without reading it. The zero
// value is that of a file that is not there.
type Stamp struct {
	device, inode    uint64
	size             int64
	written, changed time.Time
}

// StampOf returns the stamp of what was found by os.Stat or of an open file.
func StampOf(info fs.FileInfo) Stamp {
	s := Stamp{size: info.Size(), written: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = sys.Dev, sys.Ino
		s.changed = time.Unix(sys.Ctim.Unix())
	}
	return s
}

// Look returns the stamp of the file at path, the zero one if there is none.
func Look(path string) Stamp {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}
	}
	return StampOf(info)
}

// Following says how fast Follow is; zero values mean the defaults.
type Following struct {
	// Quiet is for how long a file is left alone before it is taken to be
	// written: 200ms. One that never rests is read all the same after ten times
	// that.
	Quiet time.Duration
	// Poll is how often is looked without a sign of the kernel, which tells of
	// no change on a network file system and behind a symbolic link: 5s.
	Poll time.Duration
}

// Follow calls changed, in its own goroutine, each time the file at path has
// become another than seen, the last time with what is there now. It watches
// the directory, because a file that is replaced by renaming another one is
// not the file that was watched. It returns when ctx is over.
//
// It is for large files, which Files would read once a second.
func Follow(ctx context.Context, path string, seen Stamp, f Following, log hclog.Logger, changed func()) {
	if f.Quiet == 0 {
		f.Quiet = 200 * time.Millisecond
	}
	if f.Poll == 0 {
		f.Poll = 5 * time.Second
	}
	dir := filepath.Dir(path)
	var events chan fsnotify.Event
	var errs chan error
	add := func() {}
	if notify, err := fsnotify.NewWatcher(); err == nil {
		defer notify.Close()
		events, errs = notify.Events, notify.Errors
		// Again at every poll: the directory may have been replaced. What the
		// watcher watches already costs nothing.
		add = func() { _ = notify.Add(dir) }
	} else {
		log.Warn("the kernel does not tell of changed files: they are looked at now and then", "path", path, "every", f.Poll, "error", err)
	}
	add()
	poll := time.NewTicker(f.Poll)
	defer poll.Stop()
	for {
		if now := Look(path); now != seen {
			now, ok := settle(ctx, path, now, f.Quiet)
			if !ok {
				return
			}
			if now != seen {
				seen = now
				changed()
				continue // it may have changed meanwhile
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-errs: // an overflow: something has changed
		case <-poll.C:
			add()
		}
	}
}

// settle waits until the file is left alone.
func settle(ctx context.Context, path string, now Stamp, quiet time.Duration) (Stamp, bool) {
	for range 10 {
		select {
		case <-ctx.Done():
			return now, false
		case <-time.After(quiet):
		}
		next := Look(path)
		if next == now {
			break
		}
		now = next
	}
	return now, true
}
