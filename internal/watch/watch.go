// Package watch makes a value of files that an operator names, and makes it
// anew when they change, so that a renewed certificate or password needs
// neither a restart nor a reload.
//
//	files := watch.New(watch.Options[*tls.Config]{Name: "TLS files", Log: log, Build: build}, certFile, keyFile)
//	...
//	config, err := files.Value() // for each connection
package watch

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// interval is how often the files are read at most.
const interval = time.Second

// Options say what is made of the files.
type Options[T any] struct {
	// Name of the files in the log, a plural: "TLS files".
	Name string
	Log  hclog.Logger
	// Build makes the value of what is in the files, by their paths. Its error
	// must not hold what is secret: it is logged.
	Build func(contents map[string][]byte) (T, error)
	// Describe returns what to say in the log about a new value, as pairs; it
	// may be nil.
	Describe func(T) []any
}

// Files is a value and the files it is made of. Nothing happens while nobody
// asks for it. All methods may be called from any goroutine.
type Files[T any] struct {
	Options[T]
	paths []string

	// mu guards what follows. Files are read under it: who comes meanwhile
	// wants to know what is in them, too.
	mu      sync.Mutex
	checked time.Time
	last    string    // what the last look found: a digest or an error
	made    bool      // good is a value
	good    T         // the last one that could be made
	digest  string    // of its files
	changed time.Time // the newest modification time of its files
	err     error     // why there is none
}

// New reads the files for the first time. Empty paths name no file.
func New[T any](o Options[T], paths ...string) *Files[T] {
	f := &Files[T]{Options: o, checked: time.Now()}
	for _, path := range paths {
		if path != "" {
			f.paths = append(f.paths, path)
		}
	}
	f.look()
	return f
}

// Value returns the value as the files have it, or had it when they could be
// used for the last time. It is the same one as long as they do not change, and
// belongs to everybody: it must not be changed. The error says why there never
// was one.
//
// The files are read at most once a second. Their contents are compared and
// not their times, which miss a second change within a few milliseconds.
func (f *Files[T]) Value() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.checked) >= interval {
		f.checked = now
		f.look()
	}
	return f.value()
}

// Fresh is Value after a look at the files, however short ago the last one was.
func (f *Files[T]) Fresh() (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checked = time.Now()
	f.look()
	return f.value()
}

func (f *Files[T]) value() (T, error) {
	if !f.made {
		return f.good, f.err
	}
	return f.good, nil
}

// Changed returns when the newest of the files of the value was written, the
// zero time if there is none.
func (f *Files[T]) Changed() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// look reads the files. What it finds is logged once. The caller holds mu.
func (f *Files[T]) look() {
	contents, changed, err := f.read()
	found := ""
	if err == nil {
		found = f.sum(contents)
	} else {
		found = err.Error()
	}
	if found == f.last {
		return
	}
	f.last = found
	if err == nil && found == f.digest {
		f.Log.Info(f.Name+" are as they were before", "files", f.names())
		return
	}
	var made T
	if err == nil {
		made, err = f.Build(contents)
	}
	switch {
	case err != nil && !f.made:
		f.err = err
	case err != nil:
		f.Log.Error(f.Name+" have changed and cannot be used: what was read before stays in use", "files", f.names(), "error", err)
	default:
		if f.made || f.err != nil {
			f.Log.Info(f.Name+" have changed: new connections use them", append([]any{"files", f.names()}, f.describe(made)...)...)
		}
		f.good, f.made, f.digest, f.changed, f.err = made, true, found, changed, nil
	}
}

func (f *Files[T]) describe(v T) []any {
	if f.Describe == nil {
		return nil
	}
	return f.Describe(v)
}

func (f *Files[T]) names() string { return strings.Join(f.paths, " ") }

func (f *Files[T]) read() (map[string][]byte, time.Time, error) {
	contents := make(map[string][]byte)
	var newest time.Time
	var errs []error
	for _, path := range f.paths {
		b, changed, err := read(path)
		if changed.After(newest) {
			newest = changed
		}
		contents[path], errs = b, append(errs, err)
	}
	return contents, newest, errors.Join(errs...)
}

func read(path string) ([]byte, time.Time, error) {
	// A pipe that somebody put there would block for ever.
	info, err := os.Stat(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("%s is not a regular file", path)
	}
	b, err := os.ReadFile(path)
	return b, info.ModTime(), err
}

// sum returns a digest of what is in the files.
func (f *Files[T]) sum(contents map[string][]byte) string {
	h := sha256.New()
	for _, path := range f.paths {
		one := sha256.Sum256(contents[path])
		h.Write(one[:])
	}
	return string(h.Sum(nil))
}
