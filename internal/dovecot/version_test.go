package dovecot_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// The programs are what the versions say they are.
func TestVersions(t *testing.T) {
	eachVersion(t, func(t *testing.T, v dovecot.Version) {
		cmd, err := dovecot.Command(t.Context(), v, "dovecot", "--version")
		if err != nil {
			t.Fatal(err)
		}
		got, err := dovecot.Run(t.Context(), cmd)
		if err != nil || !strings.HasPrefix(got.Stdout, string(v)+".") || got.ExitCode != 0 {
			t.Errorf("dovecot --version: %+v, %v", got, err)
		}
	})
}

// The script that makes the folder of 2.4 and this package look in one place,
// whether there is something or not.
func TestRootAsScript(t *testing.T) {
	for _, cache := range []string{os.Getenv("XDG_CACHE_HOME"), "", "relative", t.TempDir()} {
		t.Setenv("XDG_CACHE_HOME", cache)
		out, err := exec.CommandContext(t.Context(), "../../scripts/dovecot24", "path").Output()
		if err != nil {
			t.Fatal(err)
		}
		folder := strings.TrimSuffix(string(out), "\n")
		root, err := dovecot.V24.Root()
		if err != nil {
			root = err.Error()
		}
		if root != folder && !strings.Contains(root, " "+folder+": ") {
			t.Errorf("XDG_CACHE_HOME %q: root %s; scripts/dovecot24 says %s", cache, root, folder)
		}
	}
}

func TestMissingPrograms(t *testing.T) {
	_, err := dovecot.Command(t.Context(), dovecot.V23, "no-such-program")
	want := "no-such-program is not installed: apt-get install --yes dovecot-core dovecot-imapd dovecot-sieve dovecot-managesieved"
	if err == nil || err.Error() != want {
		t.Errorf("2.3: error %v, want %s", err, want)
	}
	_, err = dovecot.Command(t.Context(), dovecot.V24, "no-such-program")
	want = " has no no-such-program: remove that folder, then run make deps"
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("2.4: error %v, want %s", err, want)
	}

	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	want = ": no such file or directory: run make deps"
	if _, err := dovecot.Start(t.Context(), dovecot.Options{Version: dovecot.V24}); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("start without the folder: %v, want %s", err, want)
	}
	if _, err := (dovecot.Client{Version: dovecot.V24}).Run(t.Context(), "pw"); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("client without the folder: %v, want %s", err, want)
	}
	if _, err := dovecot.Start(t.Context(), dovecot.Options{Version: "2.2"}); err == nil || !strings.Contains(err.Error(), `no Dovecot "2.2"`) {
		t.Errorf("start of 2.2: %v", err)
	}
}

func TestInside(t *testing.T) {
	root, err := dovecot.V24.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		v          dovecot.Version
		path, want string // empty: an error
	}{
		{dovecot.V23, "/a/b", "/a/b"},
		{"", "/a/b", "/a/b"},
		{dovecot.V24, root + "/a/b", "/a/b"},
		{dovecot.V24, root + "//a/", "/a"},
		{dovecot.V24, root + "/../b", ""},
		{dovecot.V24, root + "x/b", ""},
		{dovecot.V24, "/a/b", ""},
		{"2.2", "/a/b", ""},
	} {
		got, err := tt.v.Inside(tt.path)
		if (err != nil) != (tt.want == "") || err == nil && got != tt.want {
			t.Errorf("version %q, %s: %q, %v, want %q", tt.v, tt.path, got, err, tt.want)
		}
	}
}

func TestTempDir(t *testing.T) {
	eachVersion(t, func(t *testing.T, v dovecot.Version) {
		var dir string
		t.Run("use", func(t *testing.T) {
			dir = dovecottest.TempDir(t, v)
			inside, err := v.Inside(dir)
			if err != nil {
				t.Fatal(err)
			}
			// Any program that reads a file will do.
			if err := os.WriteFile(filepath.Join(dir, "conf"), []byte("no configuration\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd, err := dovecot.Command(t.Context(), v, "doveconf", "-c", inside+"/conf")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := dovecot.Run(t.Context(), cmd); err != nil || !strings.Contains(got.Stderr, inside+"/conf line 1") {
				t.Errorf("doveconf: %+v, %v, want that it read the file", got, err)
			}
		})
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s after the test: %v, want %v", dir, err, fs.ErrNotExist)
		}
	})
}
