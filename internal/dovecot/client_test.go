package dovecot_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// The command of each version as a client of each version.
func TestClients(t *testing.T) {
	eachVersion(t, func(t *testing.T, v dovecot.Version) {
		s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}, Quota: "2M"})
		if err := s.Seed(2); err != nil {
			t.Fatal(err)
		}
		for _, v := range dovecot.Versions() {
			t.Run("client "+string(v), func(t *testing.T) {
				c := s.Client()
				c.Version = v
				for _, tt := range []struct {
					name string
					args []string
					want string
				}{
					{
						"quota get",
						[]string{"-u", "ann"},
						"Quota name Type    Value Limit                         %\n" +
							"User quota STORAGE     1  2048                         0\n" +
							"User quota MESSAGE     3     -                         0\n",
					},
					{"mailbox list", []string{"-u", "ann"}, "Archive\nINBOX\n"},
					{"mailbox status", []string{"-u", "ann", "messages", "INBOX"}, "INBOX messages=2\n"},
					{
						"fetch",
						[]string{"-u", "ann", "hdr.subject", "mailbox", "Archive"},
						"hdr.subject: old message for ann\n",
					},
				} {
					got := dovecottest.Run(t, c, tt.name, tt.args...)
					if got.Stdout != tt.want || got.ExitCode != 0 {
						t.Errorf("%s: %+v, want %q", tt.name, got, tt.want)
					}
				}
				saveAndFetch(t, c)

				if got := dovecottest.Run(t, c, "quota get", "-u", "nobody"); got.ExitCode != 67 {
					t.Errorf("unknown user: %+v, want exit code 67", got)
				}
				c.Password = "wrong"
				if got := dovecottest.Run(t, c, "quota get", "-u", "ann"); got.ExitCode != 75 || !strings.Contains(got.Stderr, "authentication failed") {
					t.Errorf("wrong password: %+v, want exit code 75", got)
				}
			})
		}
	})
}

// saveAndFetch saves a mail from standard input, expects it back and deletes it.
func saveAndFetch(t *testing.T, c dovecot.Client) {
	t.Helper()
	run := func(stdin, want, name string, args ...string) {
		t.Helper()
		cmd, err := c.Command(t.Context(), name, append([]string{"-u", "ann"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = strings.NewReader(stdin)
		got, err := dovecot.Run(t.Context(), cmd)
		if diff := cmp.Diff(dovecot.Result{Stdout: want, Time: got.Time}, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	run("", "", "mailbox create", "Saved")
	// Dots that need stuffing, a line that would be a command, an unfinished one.
	run("Subject: saved\n\n.\n..two\n\tann\tmailbox delete\tArchive\nend", "", "save", "-m", "Saved")
	run("", "hdr: Subject: saved\n\n\nbody: .\n..two\n\tann\tmailbox delete\tArchive\nend\n", "fetch", "hdr body", "mailbox", "Saved")
	run("", "Archive\n", "mailbox list", "Archive")
	run("", "", "mailbox delete", "Saved")
}

func TestClientAtUnixSocket(t *testing.T) {
	eachVersion(t, func(t *testing.T, v dovecot.Version) {
		s := dovecottest.Start(t, dovecot.Options{Version: v, Users: []string{"ann"}})
		c := dovecot.Client{Version: v, Addr: filepath.Join(s.Dir, "run", "doveadm-server")}
		if got := dovecottest.Run(t, c, "mailbox list", "-u", "ann"); got.Stdout != "INBOX\n" || got.ExitCode != 0 {
			t.Errorf("mailbox list: %+v", got)
		}
	})
}

// What the command of 2.4 cannot see is an error, not another file.
func TestClientSeesNoFile(t *testing.T) {
	for _, c := range []dovecot.Client{
		{Version: dovecot.V24, Addr: "/run/dovecot/doveadm-server"},
		{Version: dovecot.V24, Addr: "127.0.0.1:1", Config: "/etc/dovecot/dovecot.conf"},
	} {
		if _, err := c.Run(t.Context(), "purge"); err == nil || !strings.Contains(err.Error(), "is not visible to Dovecot 2.4") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
