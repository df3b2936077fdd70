package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// passwords are what a client or a backend logs in with: one password, or two
// while the old one is being replaced.
type passwords struct {
	current, old *Secret
	file         *string // where both come from; empty: the configuration itself
}

// credentials are the attributes that set passwords.
func (w passwords) credentials(takes, example, doc, rotation, file string) []attr {
	return []attr{
		{
			name: "password", secret: true, field: secretText(w.current, w.file, takes), example: example,
			doc: doc + " Better in a file of its own, or `env(\"NAME\")`.",
		},
		{
			name: "old_password", secret: true, field: secretText(w.old, w.file, takes), example: `env("OLD_PASSWORD")`,
			doc: "Beside `password`, while it is being replaced: the one before. " + rotation,
		},
		{
			name: "password_file", field: w.fromFile(), example: strconv.Quote(file),
			doc: "A file with what `password` would say, instead of it; a second line is what `old_password` would say. Spaces and line ends around them are cut off. " +
				"It is read when the configuration is loaded, and again when it has changed, without a reload. " +
				"Only the proxy's user should be able to read it; there is a warning if all users can.",
		},
	}
}

// secretText is a secret that stands in the configuration, unless file names
// where it comes from.
func secretText(to *Secret, file *string, takes string) field {
	return field{
		takes: takes,
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if p := checkSecret(s); p != nil {
				return p
			}
			*to = NewSecret(s)
			return nil
		},
		get: func() cty.Value {
			if *file != "" {
				return cty.NilVal
			}
			return optional(to.Reveal())
		},
	}
}

// fromFile is the path of a file with passwords.
func (w passwords) fromFile() field {
	return field{
		takes: "a path",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if p := checkText(s); p != nil {
				return p
			}
			path, p := resolve(s, v.dir)
			if p != nil {
				return p
			}
			b, err := readFile(path)
			if err != nil {
				return &problem{summary: "Cannot read the password file", detail: reason(err) +
					" Create the file, with the password as its only line, and let the proxy's user read it."}
			}
			current, old, err := ParsePasswords(b)
			if err != nil {
				return &problem{summary: "Wrong content of the password file", detail: path + ": " + err.Error() + "."}
			}
			*w.current, *w.old, *w.file = current, old, path
			return readableByAll("Password", path)
		},
		get: func() cty.Value { return optional(*w.file) },
	}
}

// ParsePasswords reads what is in a password file: a line with the password,
// and, while it is being replaced, a second one with the old password. The
// error does not hold any of it.
func ParsePasswords(content []byte) (current, old Secret, err error) {
	var found []Secret
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if p := checkSecret(line); p != nil {
			return Secret{}, Secret{}, errors.New(strings.TrimSuffix(p.detail, "."))
		}
		found = append(found, NewSecret(line))
	}
	switch len(found) {
	case 0:
		return Secret{}, Secret{}, errors.New("it is empty")
	case 1:
		return found[0], Secret{}, nil
	case 2:
		if found[0].Equal(found[1]) {
			return found[0], Secret{}, nil
		}
		return found[0], found[1], nil
	}
	return Secret{}, Secret{}, fmt.Errorf("it has %d lines: the first is the password, and a second one, while it is being replaced, the old password", len(found))
}

func checkSecret(s string) *problem {
	switch {
	case s == "":
		return wrong("It is empty.")
	case s == masked:
		return wrong("It is " + masked + ", which stands for a secret in printed configurations. Write the secret itself.")
	case strings.ContainsAny(s, "\x00\r\n"):
		return wrong("It has more than one line, or a NUL byte. A password is one line.")
	}
	return nil
}

// readableByAll warns of a secret that is none.
func readableByAll(what, path string) *problem {
	info, err := os.Stat(path)
	if err != nil || info.Mode()&0o006 == 0 {
		return nil
	}
	return &problem{
		warning: true,
		summary: what + " file open to all users",
		detail: fmt.Sprintf("%s has the mode %04o: every user of this system can read or change it. Run: chmod 0640 %s (the owner root, the group that of the proxy).",
			path, info.Mode().Perm(), path),
	}
}

// passwords settles what a block says of its passwords, and returns whether
// there is any, in the block or where it started from.
func (l *loader) passwords(at *place, w passwords) bool {
	switch {
	case at.has("password") && at.has("password_file"):
		l.errorf(at.of("password_file"), "Two passwords", "The block has password and password_file. Remove one of the two. The old one of a rotation is old_password, or the second line of the file.")
	case at.has("old_password") && !at.has("password"):
		l.errorf(at.of("old_password"), "old_password without password",
			"It stands beside the password that replaces it. Write that into this block, too; or both into a file, the old one as its second line, and: password_file = \"/path/to/the/file\"")
	case at.has("password"):
		// Not those of the block that this one started from.
		*w.file = ""
		if !at.has("old_password") {
			*w.old = Secret{}
		}
	}
	return at.inherits("password") || at.inherits("password_file")
}

// checkScheme looks at the {SCHEME} in front of a client's password. Whether
// the data fits the scheme is for those who verify passwords.
func checkScheme(password string) *problem {
	const remedy = `Make a hash with "doveadm-proxy hash" or "doveadm pw -s ARGON2ID" and write the whole line.`
	rest, ok := strings.CutPrefix(password, "{")
	name, data, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return &problem{summary: "Password without a scheme", detail: "A client's password begins with its scheme in braces. " + remedy}
	}
	name, _, _ = strings.Cut(strings.ToUpper(name), ".") // {SSHA256.hex}
	accepted := []string{
		"ARGON2ID", "ARGON2I", "ARGON2", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "CRYPT", "PBKDF2",
		"SSHA512", "SSHA256", "SSHA", "SHA512", "SHA256", "SHA1", "SHA", "PLAIN", "CLEAR", "CLEARTEXT",
	}
	refused := []string{
		"MD5", "MD5-CRYPT", "SMD5", "LDAP-MD5", "PLAIN-MD5", "PLAIN-MD4", "DES-CRYPT", "PLAIN-TRUNC", "LANMAN", "NTLM",
		"CRAM-MD5", "HMAC-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "OTP", "SKEY", "RPA",
	}
	switch {
	case slices.Contains(refused, name):
		return &problem{
			summary: "Password scheme refused",
			detail:  fmt.Sprintf("%s is too weak, or not made for a login with the password. Use ARGON2ID. %s", name, remedy),
		}
	case !slices.Contains(accepted, name):
		// The name is not shown: clear text may begin with a brace too.
		return &problem{summary: "Unknown password scheme", detail: fmt.Sprintf("The schemes are %s. %s", list(accepted), remedy)}
	case data == "":
		return &problem{summary: "Password without data", detail: "There is nothing behind the scheme. " + remedy}
	}
	return nil
}

// schemeOf returns the name of the scheme in front of a password, in capitals
// and without its encoding; empty: there is none.
func schemeOf(password string) string {
	rest, ok := strings.CutPrefix(password, "{")
	name, _, closed := strings.Cut(rest, "}")
	if !ok || !closed {
		return ""
	}
	name, _, _ = strings.Cut(strings.ToUpper(name), ".")
	return name
}
