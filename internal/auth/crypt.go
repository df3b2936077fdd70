package auth

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/crypto/bcrypt"
)

const (
	maxBcryptCost  = 16         // seconds a check
	maxCryptRounds = 10_000_000 // seconds a check
	minCryptRounds = 1000       // crypt(3) takes fewer for 1000, so such a hash never matches

	// Each about a quarter of a second.
	newBcryptCost   = 12
	newSHA512Rounds = 500_000
	newSHA256Rounds = 1_000_000

	maxBcryptPassword = 72 // bytes; bcrypt does not look at more
)

// parseCrypt reads what crypt(3) makes, as far as it is strong enough.
func parseCrypt(data string) (matcher, error) {
	switch {
	case strings.HasPrefix(data, "$2"):
		return parseBcrypt(data)
	case strings.HasPrefix(data, "$5$"):
		return parseSHA256Crypt(data)
	case strings.HasPrefix(data, "$6$"):
		return parseSHA512Crypt(data)
	case strings.HasPrefix(data, "$1$"):
		return nil, errors.New("the data is of MD5-CRYPT, which is refused: " + remedy)
	case strings.HasPrefix(data, "$y$"), strings.HasPrefix(data, "$gy$"), strings.HasPrefix(data, "$7$"):
		return nil, errors.New("the data is of yescrypt or scrypt, which this proxy does not know: " + remedy)
	case len(data) == 13:
		return nil, errors.New("the data is of DES-CRYPT, which is refused: " + remedy)
	}
	return nil, errors.New("the data begins with none of $2y$, $5$ and $6$: copy it whole")
}

// bcryptHash is the whole text, $2y$cost$salthash.
type bcryptHash string

func parseBcrypt(data string) (matcher, error) {
	form := regexp.MustCompile(`^\$2([a-z])\$([0-9]{2})\$[./A-Za-z0-9]{53}$`)
	f := form.FindStringSubmatch(data)
	if f == nil {
		return nil, errors.New("the data is not of the form $2y$cost$… with 53 characters at the end: copy it whole")
	}
	// x marks hashes of a library that treated non-ASCII passwords wrongly.
	if !strings.Contains("aby", f[1]) {
		return nil, fmt.Errorf("bcrypt of the kind $2%s$ is refused, only $2a$, $2b$ and $2y$ are safe: %s", f[1], remedy)
	}
	if _, err := parameter("cost", f[2], bcrypt.MinCost, maxBcryptCost); err != nil {
		return nil, err
	}
	return bcryptHash(data), nil
}

func (h bcryptHash) match(password string) (bool, error) {
	err := bcrypt.CompareHashAndPassword([]byte(h), []byte(password))
	if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return false, nil
	}
	return err == nil, err
}

func generateBcrypt(password string) (string, error) {
	if len(password) > maxBcryptPassword {
		return "", fmt.Errorf("bcrypt ignores what is behind the first %d bytes of a password, and this one has %d: "+
			"use ARGON2ID", maxBcryptPassword, len(password))
	}
	data, err := bcrypt.GenerateFromPassword([]byte(password), newBcryptCost)
	return string(data), err
}

// shaCrypt is SHA256-CRYPT or SHA512-CRYPT.
type shaCrypt struct{ digest algorithm.Digest }

func parseSHA256Crypt(data string) (matcher, error) {
	if strings.HasPrefix(data, "$6$") {
		return nil, errors.New("the data is of SHA512-CRYPT: write {SHA512-CRYPT}")
	}
	return parseSHACrypt(data, shacrypt.VariantSHA256, 43)
}

func parseSHA512Crypt(data string) (matcher, error) {
	if strings.HasPrefix(data, "$5$") {
		return nil, errors.New("the data is of SHA256-CRYPT: write {SHA256-CRYPT}")
	}
	return parseSHACrypt(data, shacrypt.VariantSHA512, 86)
}

// parseSHACrypt is strict where the decoder of the library is not.
func parseSHACrypt(data string, variant shacrypt.Variant, size int) (matcher, error) {
	form := regexp.MustCompile(`^\$([0-9])\$(?:rounds=([0-9]{1,10})\$)?[^$:]{1,16}\$([./A-Za-z0-9]+)$`)
	f := form.FindStringSubmatch(data)
	if f == nil || f[1] != variant.Prefix() || len(f[3]) != size {
		return nil, fmt.Errorf("the data is not of the form $%s$salt$hash with %d characters of hash: copy it whole",
			variant.Prefix(), size)
	}
	if f[2] != "" {
		if _, err := parameter("rounds", f[2], minCryptRounds, maxCryptRounds); err != nil {
			return nil, err
		}
	}
	digest, err := shacrypt.DecodeVariant(variant)(data)
	if err != nil {
		return nil, errors.New("the data cannot be read as a SHA-crypt hash: copy it whole")
	}
	return shaCrypt{digest}, nil
}

func (h shaCrypt) match(password string) (bool, error) { return h.digest.MatchAdvanced(password) }

func generateSHA256Crypt(password string) (string, error) {
	return generateSHACrypt(password, shacrypt.VariantSHA256, newSHA256Rounds)
}

func generateSHA512Crypt(password string) (string, error) {
	return generateSHACrypt(password, shacrypt.VariantSHA512, newSHA512Rounds)
}

func generateSHACrypt(password string, variant shacrypt.Variant, rounds int) (string, error) {
	hasher, err := shacrypt.New(shacrypt.WithVariant(variant), shacrypt.WithIterations(rounds))
	if err != nil {
		return "", err
	}
	digest, err := hasher.Hash(password)
	if err != nil {
		return "", err
	}
	return digest.Encode(), nil
}
