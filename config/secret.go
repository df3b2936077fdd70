package config

import "fmt"

// Secret is a string that no formatter, logger or encoder prints. The zero
// value is an empty secret.
type Secret struct {
	// A pointer, because fmt prints unexported strings of a struct that is
	// itself unexported without asking its methods.
	value *string
}

const masked = "***"

// NewSecret returns a Secret that holds s.
func NewSecret(s string) Secret { return Secret{value: &s} }

// Reveal returns the secret text. Call it only where it is used.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty reports whether there is no secret text.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal reports whether both hold the same text.
func (s Secret) Equal(o Secret) bool { return s.Reveal() == o.Reveal() }

// Format implements fmt.Formatter for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, masked) }

// String implements fmt.Stringer.
func (s Secret) String() string { return masked }

// MarshalText implements encoding.TextMarshaler, and by it JSON's encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }
