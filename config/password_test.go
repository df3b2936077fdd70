package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A password file that all users can read is a warning, not more.
func TestPasswordFileMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o640: false, 0o644: true, 0o604: true, 0o602: true} {
		write(t, dir, map[string]string{"secret": "{PLAIN}x"})
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		src := strings.Replace(small, `password = "{PLAIN}x"`, `password_file = "secret"`, 1)
		cfg, diags := Parse(filepath.Join(dir, "test.hcl"), []byte(src))
		if cfg == nil || cfg.Clients[0].Password.Reveal() != "{PLAIN}x" {
			t.Fatalf("mode %o: %v", mode, diags)
		}
		var got []string
		for _, p := range Problems(diags) {
			got = append(got, p.Severity+": "+p.Summary)
		}
		want := ""
		if warned {
			want = "warning: Password file open to all users"
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("mode %o: %q, want %q", mode, got, want)
		}
	}
}

// A password file has the password, and the old one while it is replaced.
func TestPasswordFileContent(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string][2]string{
		"x": {"x"}, "x\n": {"x"}, " \tx \r\n\n": {"x"}, "x y": {"x y"}, "\xff": {"\xff"},
		"new\nold": {"new", "old"}, "\n new \r\n\r\n old\n\n": {"new", "old"}, "same\nsame\n": {"same"},
		"": {}, "\n": {}, "x\ny\nz": {}, "x\x00y": {}, "new\no\rld": {}, masked: {}, "new\n" + masked: {},
	} {
		var got Client
		write(t, dir, map[string]string{"secret": content})
		p := got.passwords().fromFile().set(value{is: "secret", dir: dir})
		if (p == nil) != (want[0] != "") || got.Password.Reveal() != want[0] || got.OldPassword.Reveal() != want[1] {
			t.Errorf("%q: %v, %q, %q", content, p, got.Password.Reveal(), got.OldPassword.Reveal())
		}
		if path := filepath.Join(dir, "secret"); p == nil && got.PasswordFile != path {
			t.Errorf("%q: file %q, want %q", content, got.PasswordFile, path)
		}
	}
	if p := new(Client).passwords().fromFile().set(value{is: ".", dir: dir}); p == nil {
		t.Error("a directory is taken for a file")
	}
}

// What a backend says of its passwords replaces all that its defaults say.
func TestOldPassword(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"two": "new\nold\n", "one": "only\n", "md5": "{PLAIN}x\n{MD5}x\n"})
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct {
		defaults, backend string
		want              [3]string // password, old password, file
		problem           string
	}{
		{`password_file = "two"`, ``, [3]string{"new", "old", file("two")}, ""},
		{`password_file = "two"`, `password = "own"`, [3]string{"own"}, ""},
		{`password_file = "two"`, `password_file = "one"`, [3]string{"only", "", file("one")}, ""},
		{"password = \"new\"\nold_password = \"old\"", ``, [3]string{"new", "old"}, ""},
		{"old_password = \"old\"\npassword = \"new\"", `password = "own"`, [3]string{"own"}, ""},
		{"old_password = \"old\"\npassword = \"new\"", `password_file = "one"`, [3]string{"only", "", file("one")}, ""},
		{`password = "new"`, "old_password = \"own\"\npassword = \"newest\"", [3]string{"newest", "own"}, ""},
		{`password = "new"`, `old_password = "own"`, [3]string{}, "old_password without password"},
		{``, "password_file = \"one\"\nold_password = \"own\"", [3]string{}, "old_password without password"},
	} {
		src := strings.Replace(small, `password = "y"`, "", 1)
		src = strings.Replace(src, `address  = "h:1"`, "address = \"h:1\"\n"+tt.backend, 1)
		src = "backend_defaults {\n" + tt.defaults + "\n}\n" + src
		cfg, diags := Parse(file("test.hcl"), []byte(src))
		if tt.problem != "" || cfg == nil {
			if len(diags) != 1 || diags[0].Summary != tt.problem {
				t.Errorf("%q, %q: %v", tt.defaults, tt.backend, diags)
			}
			continue
		}
		b := cfg.Shards[0].Backends[0]
		if got := [3]string{b.Password.Reveal(), b.OldPassword.Reveal(), b.PasswordFile}; got != tt.want {
			t.Errorf("%q, %q: %q, want %q", tt.defaults, tt.backend, got, tt.want)
		}
	}

	src := strings.Replace(small, `password = "{PLAIN}x"`, `password_file = "md5"`, 1)
	if _, diags := Parse(file("test.hcl"), []byte(src)); len(diags) != 1 || diags[0].Summary != "Password scheme refused" {
		t.Errorf("the old password of a client is of a weak scheme: %v", diags)
	}
}

// Files that systemd hands to the service are named wherever a path is.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"panel": "{PLAIN}x\n", "host": "h:1\n"})
	src := strings.Replace(small, `password = "{PLAIN}x"`, `password_file = "credential:panel"`, 1)
	src = strings.Replace(src, `"h:1"`, `file("credential:host")`, 1)

	t.Setenv("CREDENTIALS_DIRECTORY", "")
	_, diags := Parse("/etc/test.hcl", []byte(src))
	if len(diags) != 2 || diags[0].Summary != "No credentials" || diags[1].Summary != "No credentials" {
		t.Errorf("without credentials: %v", diags)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	cfg, diags := Parse("/etc/test.hcl", []byte(src))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	if c := cfg.Clients[0]; c.Password.Reveal() != "{PLAIN}x" || c.PasswordFile != filepath.Join(dir, "panel") {
		t.Errorf("%q from %q", c.Password.Reveal(), c.PasswordFile)
	}
	if got := cfg.Shards[0].Backends[0].Address; got != "h:1" {
		t.Errorf("address %q", got)
	}
	for _, name := range []string{"", "..", "../x", "/etc/passwd", "a/b"} {
		bad := strings.Replace(src, "credential:panel", "credential:"+name, 1)
		if _, diags := Parse("/etc/test.hcl", []byte(bad)); !diags.HasErrors() {
			t.Errorf("the credential %q is accepted", name)
		}
	}
}

// What env and file say is a value like any other, and relative to its file.
func TestFunctions(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"host": " mail1 \n", "sub/users.map": ""})
	t.Setenv("CONFIG_TEST_PORT", "24245")
	t.Setenv("CONFIG_TEST_MAX", "3")
	src := strings.Replace(small, `"h:1"`, `"${file("host")}:${env("CONFIG_TEST_PORT")}"`, 1) +
		"backend_defaults {\n  pool { max_open = env(\"CONFIG_TEST_MAX\") }\n}\nroute \"file\" { path = \"sub/../sub/users.map\" }\n"
	cfg, diags := Parse(filepath.Join(dir, "test.hcl"), []byte(src))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	b := cfg.Shards[0].Backends[0]
	if b.Address != "mail1:24245" || b.Pool.MaxOpen != 3 {
		t.Errorf("%+v", b)
	}
	if want := filepath.Join(dir, "sub/users.map"); cfg.Routes[0].Path != want {
		t.Errorf("path %q, want %q", cfg.Routes[0].Path, want)
	}
}
