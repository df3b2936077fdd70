package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files of examples/ are right as they are, once their secrets are there.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../examples/*.hcl")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	t.Setenv("PANEL_PASSWORD_HASH", "{PLAIN}panel-secret")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := installed(t)
			credentials(t, dir)
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, filepath.Base(file))
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(src), "/etc/doveadm-proxy", dir)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, diags := Load(path); len(diags) > 0 {
				var sb strings.Builder
				WriteDiagnostics(&sb, diags, false)
				t.Error(sb.String())
			}
		})
	}
}

// credentials does what systemd does of the drop-in among the examples.
func credentials(t *testing.T, installed string) {
	t.Helper()
	unit, err := os.ReadFile("../examples/systemd/credentials.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for line := range strings.Lines(string(unit)) {
		setting, ok := strings.CutPrefix(strings.TrimSpace(line), "LoadCredential=")
		if !ok {
			continue
		}
		name, path, _ := strings.Cut(setting, ":")
		content, err := os.ReadFile(strings.Replace(path, "/etc/doveadm-proxy", installed, 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
}
