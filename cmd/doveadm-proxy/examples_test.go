package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

// TestExampleExpectations: the rights in examples/ are as described beside them.
func TestExampleExpectations(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secrets/panel", "{PLAIN}x\n")
	write("secrets/backends", "y\n")
	write("panel.users", "@example.com\n")
	write("tls/x", "")
	ca := certtest.NewCA(t, "ca")
	ca.Write(t, filepath.Join(dir, "tls"), "ca")
	ca.Issue(t, "proxy.example.com").Write(t, filepath.Join(dir, "tls"), "proxy")
	src, err := os.ReadFile("../../examples/panel.hcl")
	if err != nil {
		t.Fatal(err)
	}
	write("panel.hcl", strings.ReplaceAll(string(src), "/etc/doveadm-proxy", dir))
	var stdout, stderr bytes.Buffer
	code := run([]string{"check", "--config", filepath.Join(dir, "panel.hcl"), "--simulate", "../../examples/panel.expect"}, nil, &stdout, &stderr)
	if code != 0 || stderr.Len() > 0 || !strings.Contains(stdout.String(), "all 18 expectations are met") {
		t.Errorf("exit code %d\n%s%s", code, &stdout, &stderr)
	}
}
