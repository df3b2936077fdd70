package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
)

// digest is a plain or salted message digest: sum = new(password + salt).
type digest struct {
	new       func() hash.Hash
	sum, salt []byte
}

func (d digest) match(password string) (bool, error) {
	return subtle.ConstantTimeCompare(d.compute(password), d.sum) == 1, nil
}

func (d digest) compute(password string) []byte {
	h := d.new()
	io.WriteString(h, password)
	h.Write(d.salt)
	return h.Sum(nil)
}

// salted reads the digest with the salt behind it. The salt has any length
// from one byte on; Dovecot makes four.
func salted(newHash func() hash.Hash) func(string) (matcher, error) {
	size := newHash().Size()
	return func(data string) (matcher, error) {
		if len(data) <= size {
			return nil, fmt.Errorf("%d bytes of data; there must be %d of digest and a salt behind them: "+
				"copy it whole", len(data), size)
		}
		return digest{newHash, []byte(data[:size]), []byte(data[size:])}, nil
	}
}

func unsalted(newHash func() hash.Hash) func(string) (matcher, error) {
	size := newHash().Size()
	return func(data string) (matcher, error) {
		if len(data) != size {
			return nil, fmt.Errorf("%d bytes of data instead of %d: copy it whole", len(data), size)
		}
		return digest{newHash, []byte(data), nil}, nil
	}
}

func generateSalted(newHash func() hash.Hash) func(string) (string, error) {
	return func(password string) (string, error) {
		d := digest{new: newHash, salt: randomSalt()}
		return base64.StdEncoding.EncodeToString(append(d.compute(password), d.salt...)), nil
	}
}

// parsePlain keeps the digest of a clear-text password: comparing digests
// takes the same time whatever the length of the password is.
func parsePlain(data string) (matcher, error) {
	switch {
	case data == "":
		return nil, errors.New("the password is empty")
	case len(data) > MaxPassword:
		return nil, fmt.Errorf("a password of %d bytes; at most %d are accepted", len(data), MaxPassword)
	case !acceptable(data):
		return nil, errors.New("the password contains a NUL byte")
	}
	sum := sha256.Sum256([]byte(data))
	return digest{sha256.New, sum[:], nil}, nil
}

// randomSalt returns 128 random bits.
func randomSalt() []byte {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails: crypto/rand ends the program instead
	return salt
}
