package config

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// credentials are the two attributes that set a password.
func credentials(to *Secret, takes, example, doc, file string) []attr {
	return []attr{
		{
			name: "password", secret: true, field: secretText(to, takes), example: example,
			doc: doc + " Better in a file of its own, or `env(\"NAME\")`.",
		},
		{
			name: "password_file", field: secretFile(to), example: strconv.Quote(file),
			doc: "A file with what `password` would say, instead of it. Spaces and line ends around it are cut off. It is read when the configuration is loaded. " +
				"Only the proxy's user should be able to read it; there is a warning if all users can.",
		},
	}
}

// secretText is a secret that stands in the configuration.
func secretText(to *Secret, takes string) field {
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
		get: func() cty.Value { return optional(to.Reveal()) },
	}
}

// secretFile is the path of a file with a secret.
func secretFile(to *Secret) field {
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
			path := resolve(s, v.dir)
			b, err := readFile(path)
			if err != nil {
				return &problem{summary: "Cannot read the password file", detail: reason(err) +
					" Create the file, with the password as its only line, and let the proxy's user read it."}
			}
			secret := strings.TrimSpace(string(b))
			if p := checkSecret(secret); p != nil {
				return &problem{summary: "Wrong content of the password file", detail: path + ": " + p.detail}
			}
			*to = NewSecret(secret)
			return readableByAll("Password", path)
		},
		get: func() cty.Value { return cty.NilVal },
	}
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

// password reports two passwords in one block. It returns whether there is
// any, in the block or where it started from.
func (l *loader) password(at *place) bool {
	if at.has("password") && at.has("password_file") {
		l.errorf(at.of("password_file"), "Two passwords", "The block has password and password_file. Remove one of the two.")
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
