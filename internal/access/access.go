// Package access decides whether a client may run a command.
//
// A client has allow and deny blocks (config.Rule). A deny block that applies
// decides; else an allow block that covers the command allows it; else it is
// denied. A client without allow blocks has one that says nothing.
//
// What an allow block does not say it does not grant where that is dangerous:
// commands that need the right admin and those that are not in the command table have
// to be granted by their names, and what arguments do beyond working on the
// mail of the command's user by its danger (doveadm.Danger). A block that is
// limited to some users covers no command that concerns others, and a deny
// block for some users applies to every command that may concern one of them.
package access

import (
	"net/netip"
	"slices"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
)

// Rules are the rights of all clients. They do not change; any number of
// goroutines may use them.
type Rules struct {
	clients map[string]*client
}

type client struct {
	deny, allow []rule
	asksShard   bool
}

// Request is what is to be decided about.
type Request struct {
	Client  string
	From    netip.Addr // invalid: a UNIX socket
	Command *doveadm.CommandInfo
	Name    string // of the command; Command does not have it if it is unknown
	User    string // in the normal form of router.Names
	Effects doveadm.Effects
	Shard   string // of the user; empty: none, or not asked for by AsksShard
}

// Decision says who decided, and how.
type Decision struct {
	Allowed bool
	// Rule is the block that decided, as "deny #2"; empty if no allow block
	// covers the command.
	Rule string
}

// AsksShard reports whether a rule of the client is about shards.
func (r *Rules) AsksShard(name string) bool {
	c := r.clients[name]
	return c != nil && c.asksShard
}

// Decide decides. It does not allocate, and its time does not grow with the
// number of clients, nor, but for the logarithm, with that of user patterns
// (see glob.Set).
func (r *Rules) Decide(q *Request) Decision {
	c := r.clients[q.Client]
	if c == nil {
		return Decision{}
	}
	for i := range c.deny {
		if c.deny[i].applies(q) {
			return Decision{Rule: c.deny[i].name}
		}
	}
	for i := range c.allow {
		if c.allow[i].covers(q) == covered {
			return Decision{Allowed: true, Rule: c.allow[i].name}
		}
	}
	return Decision{}
}

// rule is one block. What is nil says nothing.
type rule struct {
	name     string
	commands *commands
	users    *glob.Set
	networks []netip.Prefix
	shards   []string
	dangers  doveadm.Danger
}

// commands are what the attribute commands of a block says.
type commands struct {
	known    map[*doveadm.CommandInfo]bool // true: by its name, or by its right
	unknown  map[string]bool               // names that are not in the table
	patterns []string
}

// coverage is the first thing that is in the way of an allow block.
type coverage uint8

const (
	covered coverage = iota
	otherCommand
	notByName // a command that patterns do not cover
	otherNetwork
	otherUser
	severalUsers // the command concerns users of whom there is no list
	otherShard
	dangerous
)

// covers says whether an allow block allows the request.
func (r *rule) covers(q *Request) coverage {
	dangers := r.dangers
	switch r.commands.find(q) {
	case noCommand:
		return otherCommand
	case byPattern:
		if isUnknown(q.Command) {
			if dangers&doveadm.Unforeseen == 0 {
				return notByName
			}
		} else if q.Command.Right == doveadm.RightAdmin {
			return notByName
		}
	case byName:
		if isUnknown(q.Command) {
			dangers |= doveadm.Unforeseen
		}
	}
	switch {
	case r.networks != nil && !contains(r.networks, q.From):
		return otherNetwork
	case r.users != nil && !r.users.Match(q.User):
		return otherUser
	case r.users != nil && q.Effects.Everyone:
		return severalUsers
	case r.users != nil && q.Effects.OtherUser != "" && !r.users.Match(q.Effects.OtherUser):
		return otherUser
	case r.shards != nil && !slices.Contains(r.shards, q.Shard):
		return otherShard
	case q.Effects.Danger&^dangers != 0:
		return dangerous
	}
	return covered
}

// applies says whether a deny block denies the request.
func (r *rule) applies(q *Request) bool {
	return r.commands.find(q) != noCommand &&
		(r.networks == nil || contains(r.networks, q.From)) &&
		(r.users == nil || q.Effects.Everyone || r.users.Match(q.User) || q.Effects.OtherUser != "" && r.users.Match(q.Effects.OtherUser)) &&
		(r.shards == nil || slices.Contains(r.shards, q.Shard)) &&
		(r.dangers == 0 || q.Effects.Danger&r.dangers != 0)
}

// found is how commands cover a command.
type found uint8

const (
	noCommand found = iota
	byPattern       // or because the block names none
	byName          // or by its right
)

func (c *commands) find(q *Request) found {
	if c == nil {
		return byPattern
	}
	if !isUnknown(q.Command) {
		named, ok := c.known[q.Command]
		switch {
		case named:
			return byName
		case ok:
			return byPattern
		}
		return noCommand
	}
	if c.unknown[q.Name] {
		return byName
	}
	for _, p := range c.patterns {
		if glob.Match(p, q.Name) {
			return byPattern
		}
	}
	return noCommand
}

// isUnknown reports whether servers may have the command, but the table does
// not. Commands that only the doveadm program has are among them.
func isUnknown(c *doveadm.CommandInfo) bool {
	return c.Series == 0 || c.Kind == doveadm.ClientCommand
}

func contains(networks []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
