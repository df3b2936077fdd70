package dovecot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// SaveMail puts messages into a user's mailbox (made if it is not there), in
// this order, by writing the files of the Maildir: for many users that is much
// faster than doveadm save. Dovecot notices them at the next look into the
// mailbox, whether it runs now or not. Several goroutines may save for
// different users. mailbox is "INBOX" or a name of ASCII letters, digits,
// spaces and hyphens, with dots between levels.
func (s *Server) SaveMail(user, mailbox string, messages ...[]byte) error {
	if err := s.saveMail(user, mailbox, messages); err != nil {
		return fmt.Errorf("save mail of %q in %q: %w", user, mailbox, err)
	}
	return nil
}

func (s *Server) saveMail(user, mailbox string, messages [][]byte) error {
	if !slices.Contains(s.Users, user) {
		return fmt.Errorf("dovecot instance %q has no such user", s.Name)
	}
	dir := filepath.Join(s.Dir, "mail", user, "Maildir")
	if mailbox != "INBOX" {
		if strings.Trim(mailbox, mailboxLetters) != "" || strings.Contains("."+mailbox+".", "..") {
			return fmt.Errorf("not a name that can be written here; use doveadm mailbox create")
		}
		dir = filepath.Join(dir, "."+mailbox)
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := s.mkdir(filepath.Join(dir, sub)); err != nil {
			return err
		}
	}
	for _, message := range messages {
		// Dovecot numbers new mail in the order of these two numbers.
		n := s.mails.Add(1)
		name := fmt.Sprintf("%d.M%dP1.seed", 1_700_000_000+n, n)
		tmp := filepath.Join(dir, "tmp", name)
		if err := os.WriteFile(tmp, message, 0o600); err != nil {
			return err
		}
		if err := os.Chown(tmp, mailID, mailID); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(dir, "cur", name+":2,")); err != nil {
			return err
		}
	}
	return nil
}

const mailboxLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -."

// mkdir makes a directory of a user's mail and those above it, for the owner
// of the mail.
func (s *Server) mkdir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case os.IsExist(err):
		return nil
	case os.IsNotExist(err) && dir != s.Dir:
		if err := s.mkdir(filepath.Dir(dir)); err != nil {
			return err
		}
		return s.mkdir(dir)
	case err != nil:
		return err
	}
	return os.Chown(dir, mailID, mailID)
}

// Seed gives every user the same set of mail: perUser messages in INBOX and
// one in the mailbox Archive. Each names its user, so a reply that belongs to
// somebody else is recognized.
func (s *Server) Seed(perUser int) error {
	for _, user := range s.Users {
		var inbox [][]byte
		for n := range perUser {
			inbox = append(inbox, Message(user, fmt.Sprintf("message %d for %s", n+1, user)))
		}
		if err := s.SaveMail(user, "INBOX", inbox...); err != nil {
			return err
		}
		if err := s.SaveMail(user, "Archive", Message(user, "old message for "+user)); err != nil {
			return err
		}
	}
	return nil
}

// Message makes a small message to user. Its body has what the doveadm
// protocol escapes or could mistake: tabs, lines of dots, bytes above 127.
func Message(user, subject string) []byte {
	return fmt.Appendf(nil, `From: sender@example.net
To: %s
Subject: %s
Date: Tue, 14 Nov 2023 22:13:20 +0000
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Hello %s,
	a tab, a lone dot
.
..
and Grüße.
`, user, subject, user)
}
