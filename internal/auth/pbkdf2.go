package auth

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

const (
	maxPBKDF2Rounds = 10_000_000 // seconds a check
	newPBKDF2Rounds = 1_000_000  // about a quarter of a second
)

// pbkdf2Hash is Dovecot's own form of PBKDF2 with SHA-1, $1$salt$rounds$hex;
// the salt is used as it is written
// (src/lib-auth/password-scheme-pbkdf2.c of Dovecot 2.4).
type pbkdf2Hash struct {
	salt   string
	rounds int
	key    []byte
}

func parsePBKDF2(data string) (matcher, error) {
	form := regexp.MustCompile(`^\$1\$([^$]+)\$([0-9]{1,10})\$([0-9a-fA-F]{40})$`)
	f := form.FindStringSubmatch(data)
	if f == nil {
		return nil, errors.New("the data is not of the form $1$salt$rounds$hash with 40 hexadecimal digits: copy it whole")
	}
	rounds, err := parameter("rounds", f[2], 1, maxPBKDF2Rounds)
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(f[3])
	return pbkdf2Hash{salt: f[1], rounds: rounds, key: key}, err
}

func (h pbkdf2Hash) match(password string) (bool, error) {
	key, err := h.compute(password)
	return err == nil && subtle.ConstantTimeCompare(key, h.key) == 1, err
}

func (h pbkdf2Hash) compute(password string) ([]byte, error) {
	return pbkdf2.Key(sha1.New, password, []byte(h.salt), h.rounds, sha1.Size)
}

func generatePBKDF2(password string) (string, error) {
	h := pbkdf2Hash{salt: rand.Text(), rounds: newPBKDF2Rounds}
	key, err := h.compute(password)
	return fmt.Sprintf("$1$%s$%d$%x", h.salt, h.rounds, key), err
}

// parameter reads a decimal cost parameter within its limits, both included.
func parameter(name, digits string, least, most int) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s=%s is outside %d to %d: %s", name, digits, least, most, remedy)
	}
	return n, nil
}
