package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/watch"
)

// users is what is in a map.
type users interface {
	// find returns the shard of exactly this user or @domain. An error means
	// that it could not be found out.
	find(user string) (shard uint32, ok bool, err error)
	// line returns where a user stands, 0 where there are no lines.
	line(user string) uint32
	count() int
	memory() int // in bytes
}

// liveMap is a map and the file that it comes from. Where it is followed, a
// changed file becomes a new map while the old one is asked, and a broken one
// does not. It may belong to several tables: to the one before a reload of the
// configuration and to that after it.
type liveMap struct {
	path, format string
	names        *Names
	shards       []string
	log          hclog.Logger
	following    watch.Following

	now atomic.Pointer[loadedMap]

	mu       sync.Mutex
	owners   int
	failures uint64
	err      error // of the last attempt to read it
	stop     context.CancelFunc
	stopped  chan struct{}
}

type loadedMap struct {
	users
	stamp      watch.Stamp
	generation uint64
	at         time.Time
	took       time.Duration
}

// errBeingWritten says that a file was not the same at the end of reading it.
var errBeingWritten = errors.New("it changed while it was read")

// openLiveMap reads a map for one owner.
func openLiveMap(r config.Route, names *Names, shards []string) (*liveMap, []error) {
	f := &liveMap{path: r.Path, format: r.Format, names: names, shards: slices.Clone(shards), owners: 1}
	m, errs := f.read()
	if errs != nil {
		return nil, errs
	}
	m.generation = 1
	f.now.Store(m)
	return f, nil
}

// share makes one more owner of a map, if it is what openLiveMap would read.
func (f *liveMap) share(r config.Route, names *Names, shards []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	same := f.owners > 0 && f.err == nil && f.path == r.Path && f.format == r.Format && slices.Equal(f.shards, shards) && reflect.DeepEqual(f.names, names) &&
		watch.Look(f.path) == f.now.Load().stamp
	if same {
		f.owners++
	}
	return same
}

// follow begins to read the file again whenever it changes, if that has not
// begun.
func (f *liveMap) follow(log hclog.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop != nil {
		return
	}
	f.log = log
	ctx, cancel := context.WithCancel(context.Background())
	f.stop, f.stopped = cancel, make(chan struct{})
	go func() {
		defer close(f.stopped)
		watch.Follow(ctx, f.path, f.now.Load().stamp, f.following, log, f.reload)
	}()
}

// leave ends what follow began, for the last owner. The map can be asked as
// before, by those who still do.
func (f *liveMap) leave() {
	f.mu.Lock()
	f.owners--
	last := f.owners == 0 && f.stop != nil
	f.mu.Unlock()
	if last {
		f.stop()
		<-f.stopped
	}
}

// reload replaces the map by what is in the file now.
func (f *liveMap) reload() {
	m, errs := f.read()
	old := f.now.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(errs) == 1 && errors.Is(errs[0], errBeingWritten) {
		return // the next change is on its way
	}
	f.err = errors.Join(errs...)
	if f.err != nil {
		f.failures++
		for _, err := range errs {
			f.log.Error("the map has changed and cannot be used: what was read before stays in use",
				"path", f.path, "error", err, "users", old.count(), "read", old.at.Format(time.RFC3339))
		}
		return
	}
	m.generation = old.generation + 1
	f.now.Store(m)
	f.log.Info("the map has changed", "path", f.path, "users", m.count(), "users_before", old.count(),
		"generation", m.generation, "took", m.took)
}

// read reads the file as it is now.
func (f *liveMap) read() (*loadedMap, []error) {
	began := time.Now()
	cannot := func(err error) []error { return []error{fmt.Errorf("cannot read the map: %w", err)} }
	opened, err := os.Open(f.path)
	if err != nil {
		return nil, cannot(err)
	}
	info, err := opened.Stat()
	if err != nil {
		opened.Close()
		return nil, cannot(err)
	}
	m := &loadedMap{stamp: watch.StampOf(info), at: began}
	var errs []error
	if f.format == config.MapCDB {
		// The database reads from the file as long as it is asked; the runtime
		// closes it when nobody can do so any more.
		m.users, errs = openCDB(opened, f.names, f.shards)
		if errs != nil {
			opened.Close()
		}
	} else {
		m.users, errs = readUserMap(opened, f.names, f.shards)
		defer opened.Close()
	}
	if again, err := opened.Stat(); err == nil && watch.StampOf(again) != m.stamp {
		opened.Close()
		return nil, []error{errBeingWritten}
	}
	m.took = time.Since(began)
	return m, errs
}

// MapStat is the state of a map file.
type MapStat struct {
	Path       string
	Users      int           // lines, also those of domains and of everybody else
	Memory     int           // bytes that the map takes
	Generation uint64        // counts the times it was read
	Read       time.Time     // when it was read for the last time
	Took       time.Duration // how long that took
	Failures   uint64        // changes of the file that could not be used
	Err        error         // of the last one, nil if what is in the file is in use
}

func (f *liveMap) stat() MapStat {
	m := f.now.Load()
	f.mu.Lock()
	defer f.mu.Unlock()
	return MapStat{
		Path: f.path, Users: m.count(), Memory: m.memory(), Generation: m.generation,
		Read: m.at, Took: m.took, Failures: f.failures, Err: f.err,
	}
}

// Maps returns the states of the map files, in the order of the routes.
func (t *Table) Maps() []MapStat {
	var stats []MapStat
	for _, r := range t.routes {
		if f, ok := r.(*file); ok {
			stats = append(stats, f.from.stat())
		}
	}
	return stats
}
