package dovecot

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// mailID owns the mail of all users, as user and as group. It is a number
// without a name, customary for virtual mail users, so that it does not depend
// on the machine.
const mailID = 5000

// configFiles hold the whole configuration of an instance, for each version.
// Plugins are those that doveadm has commands for; nothing but doveadm listens.
//
//go:embed dovecot-2.3.conf dovecot-2.4.conf
var configFiles embed.FS

// quote makes a text fit between the quotes of dovecot.conf. There, %{name} is a
// variable to 2.4, in every setting, and %%{ stands for %{; any other % is itself
// in both versions.
func quote(v Version, text string) string {
	text = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)
	if v == V24 {
		text = strings.ReplaceAll(text, "%{", "%%{")
	}
	return text
}

// writeFiles writes the configuration and the users, and makes the directory
// of the mail.
func (s *Server) writeFiles(opts Options) error {
	mail := filepath.Join(s.Dir, "mail")
	if err := errors.Join(os.Mkdir(mail, 0o700), os.Chown(mail, mailID, mailID)); err != nil {
		return err
	}

	var users bytes.Buffer
	for _, user := range opts.Users {
		// Name, password (nobody logs in with it), uid, gid, gecos, home, shell, extra fields.
		fmt.Fprintf(&users, "%s:{PLAIN}unused::::::\n", user)
	}
	// Read by the auth process, which runs as another user.
	if err := os.WriteFile(filepath.Join(s.Dir, "users"), users.Bytes(), 0o644); err != nil {
		return err
	}

	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	quota := opts.Quota
	if quota == "" {
		quota = "1G"
	}
	dir, err := s.Version.Inside(s.Dir)
	if err != nil {
		return err
	}
	config, err := template.ParseFS(configFiles, "dovecot-"+string(s.Version)+".conf")
	if err != nil {
		return err
	}
	own, err := template.New("Options.Config").Parse(opts.Config)
	if err != nil {
		return err
	}
	var text, lines bytes.Buffer
	if err := own.Execute(&lines, map[string]any{"Dir": dir}); err != nil {
		return err
	}
	err = config.Execute(&text, map[string]any{
		"Dir": dir, "Name": s.Name, "Password": quote(s.Version, s.Password), "Host": host, "Port": port,
		"ProcessLimit": opts.ProcessLimit, "MailID": mailID, "Quota": quota, "Config": lines.String(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(s.Config, text.Bytes(), 0o600)
}

// checkUsers refuses names that this package cannot write into a passwd-file
// or use as a directory's name.
func checkUsers(users []string) error {
	for _, user := range users {
		switch {
		case user == "" || user[0] == '.' || strings.ContainsAny(user, ":/\x00\r\n"):
			return fmt.Errorf("user %q: a name must not be empty, begin with a dot or contain colons, slashes, NULs or line ends", user)
		case user != strings.ToLower(user):
			return fmt.Errorf("user %q: write it in lower case, because Dovecot looks names up so", user)
		}
	}
	return nil
}
