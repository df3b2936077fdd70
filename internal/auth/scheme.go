package auth

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// scheme is one way to store a password.
type scheme struct {
	name      string
	expensive bool
	base64    bool // the data is base64 unless a suffix says otherwise
	size      int  // of the decoded data, where it is fixed

	parse    func(data string) (matcher, error)
	generate func(password string) (data string, err error) // nil: not worth making new ones
}

// schemes returns what ParseHash accepts, strongest first. Names, default
// encodings and sizes are those of Dovecot's builtin_schemes, crypt_schemes
// and sodium_schemes (src/lib-auth/password-scheme*.c of Dovecot 2.4).
func schemes() []scheme {
	return []scheme{
		{name: "ARGON2ID", expensive: true, parse: parseArgon2id, generate: generateArgon2id},
		{name: "ARGON2I", expensive: true, parse: parseArgon2i},
		{name: "ARGON2", expensive: true, parse: parseArgon2},
		{name: "BLF-CRYPT", expensive: true, parse: parseBcrypt, generate: generateBcrypt},
		{name: "SHA512-CRYPT", expensive: true, parse: parseSHA512Crypt, generate: generateSHA512Crypt},
		{name: "SHA256-CRYPT", expensive: true, parse: parseSHA256Crypt, generate: generateSHA256Crypt},
		{name: "CRYPT", expensive: true, parse: parseCrypt},
		{name: "PBKDF2", expensive: true, parse: parsePBKDF2, generate: generatePBKDF2},

		{name: "SSHA512", base64: true, parse: salted(sha512.New), generate: generateSalted(sha512.New)},
		{name: "SSHA256", base64: true, parse: salted(sha256.New), generate: generateSalted(sha256.New)},
		{name: "SSHA", base64: true, parse: salted(sha1.New)},
		{name: "SHA512", base64: true, size: sha512.Size, parse: unsalted(sha512.New)},
		{name: "SHA256", base64: true, size: sha256.Size, parse: unsalted(sha256.New)},
		{name: "SHA1", base64: true, size: sha1.Size, parse: unsalted(sha1.New)},
		{name: "SHA", base64: true, size: sha1.Size, parse: unsalted(sha1.New)},
		{name: "PLAIN", parse: parsePlain},
		{name: "CLEAR", parse: parsePlain},
		{name: "CLEARTEXT", parse: parsePlain},
	}
}

// refused says why a scheme that Dovecot knows, or once knew, is not accepted.
func refused(name string) (reason string, ok bool) {
	const (
		broken    = "its digest is broken by today's hardware"
		truncated = "it looks at a part of the password only"
		challenge = "it is made for a login mechanism that this proxy does not offer"
	)
	switch name {
	case "MD5", "MD5-CRYPT", "SMD5", "LDAP-MD5", "PLAIN-MD5", "PLAIN-MD4", "LANMAN", "NTLM":
		return broken, true
	case "DES-CRYPT", "PLAIN-TRUNC":
		return truncated, true
	case "CRAM-MD5", "HMAC-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "OTP", "SKEY", "RPA":
		return challenge, true
	}
	return "", false
}

const remedy = `make a new one with "doveadm-proxy hash" or "doveadm pw -s ARGON2ID"`

// lookup finds a scheme by its name in upper case.
func lookup(name string) (scheme, error) {
	all := schemes()
	if i := slices.IndexFunc(all, func(s scheme) bool { return s.name == name }); i >= 0 {
		return all[i], nil
	}
	if reason, ok := refused(name); ok {
		return scheme{}, fmt.Errorf("password scheme %s is refused, because %s: %s", name, reason, remedy)
	}
	if !looksLikeScheme(name) {
		// Clear text may begin with a brace too: it does not belong in a log.
		return scheme{}, errors.New("no known password scheme between the braces: " + remedy)
	}
	names := make([]string, 0, len(all))
	for _, s := range all {
		names = append(names, s.name)
	}
	return scheme{}, fmt.Errorf("unknown password scheme %s: use one of %s", name, strings.Join(names, ", "))
}

func looksLikeScheme(name string) bool {
	known := []string{"ARGON", "CRYPT", "SHA", "MD4", "MD5", "PBKDF", "BLF", "DES", "SCRAM", "CLEAR", "PLAIN"}
	return len(name) <= 20 && slices.ContainsFunc(known, func(part string) bool { return strings.Contains(name, part) })
}
