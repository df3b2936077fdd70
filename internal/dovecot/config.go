package dovecot

import (
	"bytes"
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

// configTemplate is the whole configuration of an instance. Plugins are those
// that doveadm has commands for; nothing but doveadm listens.
var configTemplate = template.Must(template.New("dovecot.conf").Parse(`base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = {{.Dir}}/dovecot.log
log_timestamp = "%Y-%m-%d %H:%M:%S.%{usecs} "
instance_name = {{.Name}}
protocols =
ssl = no
listen = 127.0.0.1

doveadm_password = "{{.Password}}"
service doveadm {
  process_limit = {{.ProcessLimit}}
  inet_listener {
    address = {{.Host}}
    port = {{.Port}}
  }
}

passdb {
  driver = passwd-file
  args = username_format=%u {{.Dir}}/users
}
userdb {
  driver = passwd-file
  args = username_format=%u {{.Dir}}/users
}

mail_uid = {{.MailID}}
mail_gid = {{.MailID}}
mail_home = {{.Dir}}/mail/%u
mail_location = maildir:~/Maildir
mail_fsync = never
namespace inbox {
  inbox = yes
}

mail_plugins = quota acl
mail_attribute_dict = file:%h/dovecot-attributes
plugin {
  quota = count:User quota
  quota_vsizes = yes
  quota_rule = *:storage={{.Quota}}
  acl = vfile
  sieve = file:~/sieve;active=~/.dovecot.sieve
}
{{.Config}}
`))

// quote makes a text fit between the quotes of dovecot.conf.
var quote = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// writeFiles writes the configuration and the users, and makes the directory
// of the mail.
func (s *Server) writeFiles(opts Options) error {
	// Dovecot's processes run as several users; MkdirTemp made it ours alone.
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		return err
	}
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
	var config bytes.Buffer
	err = configTemplate.Execute(&config, map[string]any{
		"Dir": s.Dir, "Name": s.Name, "Password": quote.Replace(s.Password), "Host": host, "Port": port,
		"ProcessLimit": opts.ProcessLimit, "MailID": mailID, "Quota": quota, "Config": opts.Config,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(s.Config, config.Bytes(), 0o600)
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
