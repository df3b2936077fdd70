package admin

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what a caller of the endpoint may do. Each may do what those before
// it may.
type Role int

// The roles.
const (
	Nobody   Role = iota // is told whether the proxy lives, and nothing else
	Viewer               // sees states, counts, and who runs what
	Operator             // changes what runs: backends, sessions, log levels
	Admin                // changes what the proxy is, and sees what is in commands
)

func roleNames() []string { return []string{"nobody", "viewer", "operator", "admin"} }

// Roles returns all roles, the least first.
func Roles() []Role { return []Role{Nobody, Viewer, Operator, Admin} }

func (r Role) String() string { return roleNames()[r] }

// MarshalText returns the name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes a name.
func (r *Role) UnmarshalText(text []byte) error {
	i := slices.Index(roleNames(), string(text))
	if i < 0 {
		return fmt.Errorf("unknown role %q: use one of %s", text, strings.Join(roleNames(), ", "))
	}
	*r = Role(i)
	return nil
}

// Caller is who sent a request.
type Caller struct {
	Name string // of the user block, or of an account of this system; empty: not known
	From string // the address; "local" on a UNIX socket
	Role Role
}

// who names a caller in a sentence.
func (c *Caller) who() string {
	if c.Name == "" {
		return "somebody at " + c.From
	}
	return c.Name
}
