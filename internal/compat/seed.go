package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// templateMails are the mails of everybody's INBOX.
func templateMails() [][]byte {
	return [][]byte{
		dovecot.Message("user", "first"),
		dovecot.Message("user", "second"),
		[]byte("From: \"Odd\\\\\tName\" <odd@example.net>\n" +
			"To: user@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus?=\n\tfolded\n" +
			"Date: Wed, 15 Nov 2023 00:00:00 +0000\nMessage-ID: <odd@example.net>\nX-Raw: 8-bit \xfc \x01 control\n\n" +
			"a\ttab, \x01 one, \x7f delete\rbare CR\n\n.\n..\n\xff\xfe\n"),
		[]byte("From: a@example.net\nSubject: attachments\nDate: Thu, 16 Nov 2023 00:00:00 +0000\nMIME-Version: 1.0\n" +
			"Message-ID: <same@example.net>\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\ntext part\n" +
			"--b\nContent-Type: application/octet-stream; name=\"a b.bin\"\nContent-Disposition: attachment; filename=\"a b.bin\"\n" +
			"Content-Transfer-Encoding: base64\n\nAAECAwQFBgcICQoLDA0ODw==\n--b--\n"),
		[]byte("Message-ID: <same@example.net>\n\n"),
	}
}

// otherFiles are those of a home that "mail fs" works on.
var otherFiles = map[string]string{
	"fs/file":          "a\ttab, \x01 and \xfc\nand a second line",
	"fs/dir/one":       "1",
	"fs/dir/two words": "2",
}

// Names that the configuration of Dovecot 2.4 has for what "mail fs" and "mail
// dict" work on. The dict is that of a plugin that is not loaded, so nothing else
// uses it.
const (
	fsName   = "compat_fs"
	dictName = "quota_clone"
)

// dictText is what the dict has for each user at first.
func dictText(users []string) string {
	var b strings.Builder
	for _, user := range users {
		fmt.Fprintf(&b, "shared/%[1]s/number\n41\nshared/%[1]s/test\na value\n", user)
	}
	return b.String()
}

// oddMailboxes have what the protocol escapes in their names.
var oddMailboxes = []string{"tab\tname", "\x01", "\x011", "line\nend\r", "\x01t\t\t"}

// templateCommands complete everybody's mail.
func templateCommands() []command {
	script := []byte("require \"fileinto\";\r\nkeep;\r\n")
	return []command{
		{name: "mailbox create", args: []string{"Work", "Work.2023", "Grüße", "Empty"}},
		{name: "mailbox create", args: []string{"-s", "Subscribed"}},
		{name: "mailbox create", args: []string{"--", "-dash"}},
		{name: "flags add", args: []string{`\Flagged $Keyword`, "mailbox", "INBOX", "uid", "2"}},
		{name: "flags add", args: []string{`\Seen`, "mailbox", "INBOX", "uid", "1"}},
		{name: "mailbox metadata set", args: []string{"INBOX", "/private/comment", "a\ttab\nand a line"}},
		{name: "mailbox metadata set", args: []string{"-s", "", "/private/vendor/vendor.dovecot/pvt/server/comment", "of the server"}},
		{name: "acl set", args: []string{"Work", "user=bob", "lookup", "read"}},
		{name: "sieve put", args: []string{"main"}, input: script, hasInput: true},
		{name: "sieve put", args: []string{"-a", "other"}, input: script, hasInput: true},
		{name: "mailbox cryptokey generate", args: []string{"-U"}},
		{name: "mailbox cryptokey generate", args: []string{"Work"}},
		{name: "fetch", args: []string{"text date.saved date.received date.sent size.virtual guid imap.envelope imap.bodystructure", "all"}},
		{name: "index", args: []string{"*"}},
		{name: "quota recalc"},
	}
}

// largeMail is a mail of 300 KiB whose lines have what the protocol escapes.
func largeMail() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: large@example.net\nSubject: large\nX-Long: %s\n\n", strings.Repeat("long header ", 600))
	for n := 0; b.Len() < 300<<10; n++ {
		fmt.Fprintf(&b, "line %d\twith a tab, \x01 and \xfc; %s\n", n, strings.Repeat("x", n%70))
	}
	return b.Bytes()
}

// bigCommands complete the mail of the big user.
func bigCommands() []command {
	create := command{name: "mailbox create"}
	for n := range 200 {
		create.args = append(create.args, fmt.Sprintf("Folder %d of many", n+1))
	}
	return []command{
		create,
		{name: "fetch", args: []string{"text date.saved date.received size.virtual guid", "all"}},
		{name: "mailbox status", args: []string{"all", "*"}},
		{name: "quota recalc"},
	}
}
