package doveadm

import "strings"

// Right is what a client needs to run a command. Each command needs one: the
// last of these that fits what it does. What a command may do besides depends on its
// arguments; that is its Effects.
type Right uint8

const (
	// RightAdmin: for the server, for users other than that of the command, or
	// nobody knows. An entry that names none needs this one.
	RightAdmin Right = iota
	// RightRead: tells about a user's account, not what the mails say.
	RightRead
	// RightWrite: changes something of a user's mail.
	RightWrite
	// RightMailContent: gives out mails, scripts or keys, or answers questions
	// about the text of mails, as searches do. Those that also write, as
	// dsync-server, need this one.
	RightMailContent
)

// Rights returns all of them.
func Rights() []Right { return []Right{RightRead, RightWrite, RightMailContent, RightAdmin} }

func (r Right) String() string {
	return [...]string{RightAdmin: "admin", RightRead: "read", RightWrite: "write", RightMailContent: "mail-content"}[r]
}

// Danger is a set of things that a command with its arguments makes a server
// do beyond working on the mail of the command's user. The server does them
// with administrator rights.
type Danger uint8

const (
	// OpensFiles: it opens files or sockets that an argument names.
	OpensFiles Danger = 1 << iota
	// ReachesHosts: it connects to another host that an argument names.
	ReachesHosts
	// RunsPrograms: it runs a program that an argument names.
	RunsPrograms
	// TouchesUsers: it works on another mail user whom an argument names.
	TouchesUsers
	// ChangesSettings: an argument overrides settings of the server.
	ChangesSettings
	// Unforeseen: the command, or an option of it, is not in the table.
	Unforeseen

	dangers = iota
)

// Dangers returns all of them, one by one.
func Dangers() []Danger {
	var all []Danger
	for i := range dangers {
		all = append(all, 1<<i)
	}
	return all
}

// Names returns a word for each danger in the set.
func (d Danger) Names() []string {
	var names []string
	for i, name := range [dangers]string{"files", "hosts", "programs", "users", "settings", "unknown"} {
		if d&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (d Danger) String() string { return strings.Join(d.Names(), ", ") }
