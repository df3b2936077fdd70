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

func TestPasswordFileContent(t *testing.T) {
	dir := t.TempDir()
	for content, ok := range map[string]bool{
		"x": true, "x\n": true, " \tx \r\n\n": true, "x y": true, "\xff": true,
		"": false, "\n": false, "x\ny": false, "x\x00y": false, masked: false,
	} {
		var s Secret
		write(t, dir, map[string]string{"secret": content})
		p := secretFile(&s).set(value{is: "secret", dir: dir})
		if (p == nil) != ok || s.Empty() == ok {
			t.Errorf("%q: %v", content, p)
		}
	}
	var s Secret
	if p := secretFile(&s).set(value{is: ".", dir: dir}); p == nil {
		t.Error("a directory is taken for a file")
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
