package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// ErrNoBackend says that the configuration has no backend of a name.
var ErrNoBackend = errors.New("no backend has this name")

// wish is what an operator wants of a backend, and since when.
type wish struct {
	State pool.Operator `json:"state"`
	Since time.Time     `json:"since"`
}

// wishes are what operators want of backends, as it stands in a file: those of
// backends that the configuration does not name, too, for they may come back.
type wishes struct {
	path string // empty: they end with the process

	mu     sync.Mutex // guards what follows, and the file; held during the I/O on it
	byName map[string]wish
}

// wishFile is the form of the file.
type wishFile struct {
	Version  int             `json:"version"`
	Backends map[string]wish `json:"backends"` // without those that are active
}

const wishFileVersion = 1

// loadWishes reads the file. There are none if it does not exist or makes no
// sense; then it is put aside, and warning says so: a proxy that does not start
// would be worse than a backend that is used too early.
func loadWishes(path string) (w *wishes, warning error) {
	w = &wishes{path: path, byName: make(map[string]wish)}
	if path == "" {
		return w, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); err != nil {
			return w, fmt.Errorf("admin.state_file: drain, down and resume will fail: %w", err)
		}
		return w, nil
	}
	var file wishFile
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err == nil && file.Version != wishFileVersion {
		err = fmt.Errorf("it is of version %d, this program knows %d", file.Version, wishFileVersion)
	}
	if err == nil {
		for name, want := range file.Backends {
			w.byName[name] = want
		}
		return w, nil
	}
	aside := path + time.Now().UTC().Format(".broken-20060102T150405")
	if kept := os.Rename(path, aside); kept != nil {
		// It is not written over either.
		w.path = ""
		return w, fmt.Errorf("admin.state_file: %s: %w; and it cannot be put aside, so what operators want now is forgotten at the next start: %w", path, err, kept)
	}
	return w, fmt.Errorf("admin.state_file: %s: %w; it is kept as %s", path, err, aside)
}

// get returns what an operator wants of a backend.
func (w *wishes) get(backend string) wish {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byName[backend]
}

// set keeps a wish, in the file first, and then has it carried out. No other
// wish is kept or carried out meanwhile.
func (w *wishes) set(backend string, to pool.Operator, carryOut func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	was, had := w.byName[backend]
	if to == pool.Active {
		delete(w.byName, backend)
	} else if !had || was.State != to {
		w.byName[backend] = wish{to, time.Now().UTC().Truncate(time.Second)}
	}
	if err := w.save(); err != nil {
		if delete(w.byName, backend); had {
			w.byName[backend] = was
		}
		return err
	}
	carryOut()
	return nil
}

// save replaces the file as a whole, so that whoever dies meanwhile leaves the
// old one or the new one behind. The caller holds mu.
func (w *wishes) save() (err error) {
	if w.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(wishFile{wishFileVersion, w.byName}, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(w.path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(w.path)+".*")
	if err != nil {
		return fmt.Errorf("admin.state_file: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), w.path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("admin.state_file: %w", err)
	}
	// The name, too, shall outlive a loss of power.
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
	return nil
}

// SetOperator takes a backend out of service or back into it; see [pool.Pool].
// With an error, which is ErrNoBackend if the name is wrong, nothing has
// changed.
func (p *Proxy) SetOperator(name string, to pool.Operator) error {
	p.mu.Lock()
	ending := p.ending
	p.mu.Unlock()
	if ending {
		return errShuttingDown
	}
	p.reloading.Lock() // so that it is the pool of a backend that gets it
	defer p.reloading.Unlock()
	at, ok := p.snapshot.Load().pools[name]
	if !ok {
		return fmt.Errorf("%w: %q", ErrNoBackend, name)
	}
	was := at.Operator()
	if err := p.wishes.set(name, to, func() { at.SetOperator(to) }); err != nil {
		return err
	}
	if was != to {
		p.log.Info("an operator changed the state of a backend", "backend", name, "state", to.String(), "was", was.String(), "in_use", at.Stat().InUse)
	}
	return nil
}
