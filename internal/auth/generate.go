package auth

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultScheme is what new hashes are made with unless one asks for another.
const DefaultScheme = "ARGON2ID"

// Schemes returns the names that Generate accepts, the recommended one first.
func Schemes() []string {
	var names []string
	for _, s := range schemes() {
		if s.generate != nil {
			names = append(names, s.name)
		}
	}
	return names
}

// Generate returns password in Dovecot's form {SCHEME}data with a new random
// salt, for a client block of the proxy or for Dovecot itself. The expensive
// schemes take about a quarter of a second, then and at each check.
func Generate(scheme, password string) (string, error) {
	switch {
	case password == "":
		return "", errors.New("the password is empty")
	case len(password) > MaxPassword:
		return "", fmt.Errorf("a password of %d bytes; at most %d are accepted", len(password), MaxPassword)
	case !acceptable(password):
		return "", errors.New("the password contains a NUL byte")
	}
	s, err := lookup(strings.ToUpper(scheme))
	if err != nil {
		return "", err
	}
	if s.generate == nil {
		return "", fmt.Errorf("no new hashes are made with %s, only read: use one of %s", s.name, strings.Join(Schemes(), ", "))
	}
	data, err := s.generate(password)
	if err != nil {
		return "", fmt.Errorf("{%s}: %w", s.name, err)
	}
	return "{" + s.name + "}" + data, nil
}
