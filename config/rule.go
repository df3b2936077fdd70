package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
)

// Rule is an allow or a deny block of a client. A list that is empty says
// nothing.
type Rule struct {
	Commands  []string // names, patterns of names, and rights
	Users     []string // patterns, and @domain
	UsersFile string   // more of them, one a line
	Networks  []netip.Prefix
	Shards    []string
	Backends  []string
	Dangerous []string // names of doveadm.Danger
}

func (r *Rule) block(name string) block {
	b := block{
		name: name, in: "client", many: true,
		doc: "What the client may do. A command is allowed if all that one of the blocks says is true of it, and no `deny` block applies. " +
			"A client without `allow` may do everything that is not dangerous, for every user; an `allow` block without `commands` is about just that. [rights.md](rights.md) explains it all.",
		example: `
client "panel" {
  password_file = "/etc/doveadm-proxy/secrets/panel"
  allow {
    commands = ["read", "mailbox create"]
    users    = ["@example.com"]
    networks = ["10.0.0.0/8"]
  }
  allow {
    commands = ["who"]
  }
  deny {
    users = ["postmaster@*"]
  }
}`,
		attrs: []attr{
			{
				name: "commands", field: texts(&r.Commands), example: `["read", "mailbox create", "sieve *"]`,
				doc: "Names of commands, patterns of them (`*`, `?`), and the rights `read`, `write`, `mail-content` and `admin`, each of which stands for all commands that need it ([commands.md](commands.md)). " +
					"Commands that need `admin` are allowed by their names or by that word, commands that this version does not know by their names; patterns cover neither. Without the attribute: all others.",
			},
			{
				name: "users", field: texts(&r.Users), example: `["@example.com", "*-test@*"]`,
				doc: "Patterns of which one has to match the whole user name, and domains: `@example.com`. A to Z count as a to z. Commands that concern other users than these, or the whole server, are not covered.",
			},
			{
				name: "users_file", field: existingFile(&r.UsersFile), example: `"/etc/doveadm-proxy/panel.users"`,
				doc: "A file with more of them, one a line; `#` begins a comment. It is read when the configuration is loaded.",
			},
			{
				name: "networks", field: networks(&r.Networks), example: `["10.0.0.0/8", "2001:db8::/32"]`,
				doc: "Networks from one of which the client has to come. Whoever comes by a UNIX socket comes from none.",
			},
			{
				name: "shards", field: texts(&r.Shards), example: `["s1"]`,
				doc: "Shards, to one of which the user has to belong.",
			},
			{
				name: "backends", field: texts(&r.Backends), example: `["mail1"]`,
				doc: "Backends. It covers users of a shard of which all backends are named.",
			},
			{
				name: "dangerous", field: words(&r.Dangerous, doveadm.Dangers()), example: `["files"]`,
				doc: "What the arguments of a command may make a backend do, with its administrator's rights, beyond working on the mail of the user: `files` (open files and sockets), `hosts` (connect to other hosts), " +
					"`programs` (run them), `users` (work on other users), `settings` (override any of its settings), `unknown` (commands and options that this version does not know). Without the attribute: nothing of it.",
			},
		},
	}
	if name == "deny" {
		b.doc = "What the client may not do, whatever it is allowed. A command is denied if all that one of the blocks says is true of it. A block that says nothing denies everything."
		b.example = ""
		for name, doc := range map[string]string{
			"commands":  "As in `allow`, but patterns cover every command. Without the attribute: all.",
			"users":     "As in `allow`. Commands that concern one of them besides others, or the whole server, are denied too.",
			"networks":  "Networks from one of which the client comes. Whoever comes by a UNIX socket comes from none.",
			"shards":    "Shards, to one of which the user belongs.",
			"backends":  "Backends. It denies users of a shard of which one backend is named.",
			"dangerous": "Dangers as in `allow`, of which the command has one. Without the attribute: all commands, with dangers and without.",
		} {
			at := slices.IndexFunc(b.attrs, func(a attr) bool { return a.name == name })
			b.attrs[at].doc = doc
		}
	}
	return b
}

// words is a list of those that dangers have.
func words(to *[]string, all []doveadm.Danger) field {
	var names []string
	for _, d := range all {
		names = append(names, d.Names()...)
	}
	f := texts(to)
	f.takes = "a list of words"
	read := f.set
	f.set = func(v value) *problem {
		if p := read(v); p != nil {
			return p
		}
		for i, word := range *to {
			if !slices.Contains(names, word) {
				p := wrong(join(nearest(word, names), fmt.Sprintf("The words are %s.", list(names))))
				p.at = &v.is.([]value)[i].rng
				return p
			}
		}
		return nil
	}
	return f
}

// rule decodes an allow or a deny block into a client.
func (l *loader) rule(name string, to *[]Rule) func(*hclsyntax.Block) {
	return func(b *hclsyntax.Block) {
		r := new(placed[Rule])
		r.at = l.block(r.value.block(name), b, nil)
		items, _ := r.at.attrs["commands"].is.([]value)
		for i, command := range r.value.Commands {
			l.ruleCommand(command, items[i])
		}
		*to = append(*to, r.value)
		l.rules = append(l.rules, r)
	}
}

// ruleCommand warns of a command that is probably mistyped. It is no error: a
// plugin of the backends may have it.
func (l *loader) ruleCommand(command string, v value) {
	names := []string{}
	for _, right := range doveadm.Rights() {
		names = append(names, right.String())
	}
	for _, c := range doveadm.Commands() {
		names = append(names, c.Name)
	}
	if slices.ContainsFunc(names, func(name string) bool { return glob.Match(command, name) }) {
		return
	}
	if glob.HasWildcard(command) {
		l.warnf(v.rng, "Pattern without a command", "No command that this version knows matches it. Commands that it does not know are not covered by patterns; write their names.")
		return
	}
	l.warnf(v.rng, "Unknown command", "%s", join(nearest(command, names),
		"This version does not know it. That is all right if a plugin of the backends has it: write its whole name, with single spaces."))
}

func (l *loader) checkRules() {
	var backends []string
	for _, b := range l.backends {
		backends = append(backends, b.value.Name)
	}
	for _, r := range l.rules {
		for _, reference := range []struct {
			kind, attr   string
			named, names []string
		}{
			{"shard", "shards", r.value.Shards, l.shardNames()},
			{"backend", "backends", r.value.Backends, backends},
		} {
			items, _ := r.at.attrs[reference.attr].is.([]value)
			for i, name := range reference.named {
				l.known(reference.kind, items[i], name, reference.names)
			}
		}
		for i, user := range r.value.Users {
			if domain, ok := strings.CutPrefix(user, "@"); ok && domain == "" {
				items := r.at.attrs["users"].is.([]value)
				l.errorf(items[i].rng, "No domain", "There is nothing behind the @. Write \"@example.com\", or \"*\" for everybody.")
			}
		}
	}
}
