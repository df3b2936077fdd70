// Package auth checks the passwords of the proxy's own clients against hashes
// in Dovecot's form, {SCHEME}data, as "doveadm pw" writes them.
//
//	hash, err := auth.ParseHash("{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$...")
//	...
//	cache := auth.NewCache(auth.CacheOptions{})
//	panel := func() auth.Passwords { return auth.Passwords{Current: hash} }
//	verifier := auth.NewVerifier(map[string]auth.Source{"panel": panel}, cache)
//	verdict, err := verifier.Verify(ctx, "panel", password)
//
// A login with an unknown name costs as much as one with a wrong password, a
// verified password is remembered for a while under a keyed hash, and the
// number of expensive checks at work at once is bounded.
package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	// MaxPassword is the length in bytes above which a password is always
	// wrong. It is the limit of libxcrypt, and so of Dovecot's crypt schemes.
	// It matters: the cost of SHA-crypt grows with the square of the length.
	MaxPassword = 512

	maxText = 4096 // of a whole {SCHEME}data, in bytes
)

// Hash is one stored password. It is immutable and safe for concurrent use;
// no formatter or encoder prints more of it than its scheme.
type Hash struct {
	scheme    string
	expensive bool
	matcher   matcher
	// Stands for the text in sort orders and cache keys, so that a {PLAIN}
	// password is not kept.
	fingerprint [sha256.Size]byte
}

// matcher is what a scheme makes of its data.
type matcher interface {
	// match compares in constant time. An error says that the comparison
	// could not be made, never that the password is wrong.
	match(password string) (bool, error)
}

// ParseHash reads a password in Dovecot's form, {SCHEME}data. Names of schemes
// are case-insensitive and may carry an encoding: {SSHA256.hex}, {PLAIN.b64}.
//
// Weak and unknown schemes, malformed data and parameters that would cost
// seconds or gigabytes a check are refused. Errors say what to write instead
// and never contain the data.
func ParseHash(text string) (Hash, error) {
	switch {
	case len(text) > maxText:
		return Hash{}, fmt.Errorf("password text of %d bytes; at most %d make sense", len(text), maxText)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Hash{}, errors.New("control character (a line break?) in the password text: write it as one line, " +
			"or in base64 with a scheme like {PLAIN.b64}")
	}
	name, data, ok := cutScheme(text)
	if !ok {
		return Hash{}, errors.New("no {SCHEME} in front of the password: write what \"doveadm-proxy hash\" or " +
			"\"doveadm pw\" prints, or put {PLAIN} before clear text")
	}
	name, encoding, _ := strings.Cut(name, ".")
	scheme, err := lookup(name)
	if err != nil {
		return Hash{}, err
	}
	raw, err := scheme.decode(data, encoding)
	if err != nil {
		return Hash{}, fmt.Errorf("{%s}: %w", scheme.name, err)
	}
	m, err := scheme.parse(raw)
	if err != nil {
		return Hash{}, fmt.Errorf("{%s}: %w", scheme.name, err)
	}
	return Hash{
		scheme:      scheme.name,
		expensive:   scheme.expensive,
		matcher:     m,
		fingerprint: sha256.Sum256([]byte(text)),
	}, nil
}

// cutScheme splits {SCHEME}data; the scheme is returned in upper case.
func cutScheme(text string) (name, data string, ok bool) {
	rest, ok := strings.CutPrefix(text, "{")
	if !ok {
		return "", "", false
	}
	name, data, ok = strings.Cut(rest, "}")
	return strings.ToUpper(name), data, ok
}

// decode undoes the encoding of the data. Without a suffix Dovecot tells hex
// from base64 by the length, for schemes whose length is fixed
// (password_decode in src/lib-auth/password-scheme.c of Dovecot 2.4).
func (s scheme) decode(data, encoding string) (string, error) {
	switch encoding {
	case "":
		if s.size > 0 && len(data) == 2*s.size {
			if raw, err := hex.DecodeString(data); err == nil {
				return string(raw), nil
			}
		}
		if !s.base64 {
			return data, nil
		}
		fallthrough
	case "B64", "BASE64":
		raw, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return "", errors.New("the data is not base64: copy it whole, padding (=) included")
		}
		return string(raw), nil
	case "HEX":
		raw, err := hex.DecodeString(data)
		if err != nil {
			return "", errors.New("the data is not hexadecimal")
		}
		return string(raw), nil
	}
	return "", errors.New("unknown encoding behind the dot: use .b64 or .hex")
}

// Equal reports whether both are the same text.
func (h Hash) Equal(o Hash) bool { return h.fingerprint == o.fingerprint }

// Scheme is the name of the scheme in upper case, without an encoding.
func (h Hash) Scheme() string { return h.scheme }

// Expensive reports whether a check takes milliseconds and more on purpose.
func (h Hash) Expensive() bool { return h.expensive }

// Match reports whether password is the stored one. It takes as long as the
// scheme needs; Verifier is what bounds and remembers such checks. An error
// means that the check could not be made.
func (h Hash) Match(password string) (bool, error) {
	if h.matcher == nil || !acceptable(password) {
		return false, nil
	}
	ok, err := h.matcher.match(password)
	if err != nil {
		return false, fmt.Errorf("{%s}: %w", h.scheme, err)
	}
	return ok, nil
}

// acceptable reports whether a password can be right at all. Dovecot's
// strings end at a NUL, so none of its hashes is of a password with one.
func acceptable(password string) bool {
	return len(password) <= MaxPassword && strings.IndexByte(password, 0) < 0
}

// String returns the scheme with the data masked.
func (h Hash) String() string { return "{" + h.scheme + "}***" }

// Format implements fmt.Formatter for every verb.
func (h Hash) Format(f fmt.State, _ rune) { io.WriteString(f, h.String()) }

// MarshalText implements encoding.TextMarshaler, and by it JSON's encoder.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }
