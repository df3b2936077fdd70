package proxy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

func mustLoadWishes(t *testing.T, path string) *wishes {
	t.Helper()
	w, warning := loadWishes(path)
	if warning != nil {
		t.Fatal(warning)
	}
	return w
}

// TestWishes: they are in the file before they are carried out, and read back
// as they were, whatever the configuration has meanwhile.
func TestWishes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "operator.json")
	w := mustLoadWishes(t, path)
	set := func(name string, to pool.Operator) {
		t.Helper()
		carried := false
		err := w.set(name, to, func() {
			carried = true
			kept := mustLoadWishes(t, path).byName[name].State
			if kept != to {
				t.Errorf("%s is %v in the file when it is made %v", name, kept, to)
			}
		})
		if err != nil || !carried {
			t.Fatalf("%v, carried out: %v", err, carried)
		}
	}
	set("a", pool.Draining)
	set("b", pool.Down)
	set("c", pool.Down)
	set("c", pool.Active)
	since := w.get("a").Since
	set("a", pool.Draining)
	again := mustLoadWishes(t, path)
	if a, b, c := again.get("a"), again.get("b"), again.get("c"); a.State != pool.Draining || b.State != pool.Down || c.State != pool.Active || !a.Since.Equal(since) || since.IsZero() {
		t.Errorf("%+v, %+v, %+v", a, b, c)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("files %v, %v", left, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestWishNotKept: what cannot be kept is not done.
func TestWishNotKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	w, warning := loadWishes(filepath.Join(dir, "operator.json"))
	if warning == nil || !strings.Contains(warning.Error(), dir) {
		t.Errorf("warning %v", warning)
	}
	err := w.set("a", pool.Down, func() { t.Error("done, although it is not kept") })
	if err == nil || w.get("a").State != pool.Active {
		t.Errorf("%v, %+v", err, w.get("a"))
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.set("a", pool.Down, func() {}); err != nil || w.get("a").State != pool.Down {
		t.Errorf("after the directory came: %v, %+v", err, w.get("a"))
	}
}

// TestBrokenWishes: a file that makes no sense is put aside, with what was in
// it, and the proxy goes on.
func TestBrokenWishes(t *testing.T) {
	for what, text := range map[string]string{
		"empty":          "",
		"cut":            `{"version": 1, "backends": {"a": {"sta`,
		"unknown state":  `{"version": 1, "backends": {"a": {"state": "asleep"}}}`,
		"later version":  `{"version": 2, "backends": {}}`,
		"something else": `[]`,
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "operator.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			w, warning := loadWishes(path)
			if warning == nil || !strings.Contains(warning.Error(), path) || len(w.byName) != 0 {
				t.Fatalf("warning %v, %v", warning, w.byName)
			}
			if err := w.set("b", pool.Draining, func() {}); err != nil {
				t.Error(err)
			}
			aside, err := filepath.Glob(path + ".broken-*")
			if err != nil || len(aside) != 1 || !strings.Contains(warning.Error(), aside[0]) {
				t.Fatalf("put aside as %q, %v; %v", aside, err, warning)
			}
			if got, err := os.ReadFile(aside[0]); err != nil || string(got) != text {
				t.Errorf("%q, %v", got, err)
			}
			if mustLoadWishes(t, path).get("b").State != pool.Draining {
				t.Error("what was set afterwards is lost")
			}
		})
	}
}

func FuzzWishes(f *testing.F) {
	f.Add(`{"version": 1, "backends": {"a": {"state": "draining", "since": "2026-01-02T03:04:05Z"}}}`)
	f.Add(`{"version": 1, "backends": null}`)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "operator.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w, warning := loadWishes(path)
		if warning == nil && !json.Valid([]byte(text)) {
			t.Errorf("took %q", text)
		}
		for name, want := range w.byName {
			if want.State < pool.Active || want.State > pool.Down {
				t.Errorf("%q is %d", name, want.State)
			}
		}
		aside, err := filepath.Glob(path + ".broken-*")
		if err != nil || (len(aside) == 1) != (warning != nil) {
			t.Errorf("%q, %v, after %v", aside, err, warning)
		}
		for _, name := range aside {
			os.Remove(name)
		}
	})
}
