package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

// installed returns a directory with what examples expect in
// /etc/doveadm-proxy: secrets, certificates and a map of users.
func installed(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"secrets/doveadm":   "{PLAIN}doveadm-secret\n",
		"secrets/panel":     "{PLAIN}panel-secret\n",
		"secrets/operator":  "{PLAIN}operator-secret\n",
		"secrets/backends":  "backend-secret\n",
		"secrets/mail3":     "mail3-secret\n",
		"secrets/ldap":      "ldap-secret\n",
		"secrets/route-db":  "postgres://proxy:route-secret@db.example.com/mail\n",
		"secrets/users-api": "# of the panel\nAuthorization: Bearer http-secret\n",
		"panel.users":       "@example.com\n",
		"users.map":         "moved@example.com s2\n",
		"moved.map":         "moved@example.com mail2\n",
		"domains":           "example.org example.com\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	ca := certtest.NewCA(t, "ca")
	ca.Write(t, filepath.Join(dir, "tls"), "ca")
	ca.Issue(t, "proxy.example.com").Write(t, filepath.Join(dir, "tls"), "proxy")
	return dir
}
