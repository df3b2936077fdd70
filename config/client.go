package config

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Client is one client block: who may log in to the proxy.
type Client struct {
	Name     string
	Password Secret // in Dovecot's form, {SCHEME}data

	// OldPassword is valid too, while it is being replaced; empty: there is none.
	OldPassword Secret
	// PasswordFile is where the passwords come from, to be read again when it
	// changes; empty: they stand in the configuration.
	PasswordFile string
	Priority     string // PriorityInteractive or PriorityBulk
	MaxSessions  int    // 0: only the other limits count
	MaxCommands  int    // at the same time, of all its sessions; 0: no limit

	// PipelineDepth is how many commands that a session sends ahead run at the
	// same time.
	PipelineDepth int
}

// The priorities of clients.
const (
	PriorityInteractive = "interactive"
	PriorityBulk        = "bulk"
)

func (c *Client) block() block {
	return block{
		name: "client", label: "name", many: true,
		doc: "Who may log in to the proxy. The name is the user name of the login (`doveadm_username` of a Dovecot client, which is `doveadm` where nothing else is set). " +
			"At least one is needed. These passwords are the proxy's own: they have nothing to do with those of the backends.",
		example: `
client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

client "panel" {
  password = "{SHA512-CRYPT}$6$rounds=5000$usesomesillystri$D4IrlXatmP7rx3P3InaxBeoomnAihCKRVQAr/36eYMU8Ehsd5SnNNHWuHXC8BTnRoKS2hBpi/8kgLvMUYASsI1"
}`,
		attrs: append(c.passwords().credentials("a hash in Dovecot's form, `{SCHEME}data`", `"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$…"`,
			"The hashed password, as `doveadm-proxy hash` or `doveadm pw -s ARGON2ID` prints it. `{PLAIN}` before a password in clear text works too.",
			"Both are valid. The log says who still uses it, and when nobody has for a day.",
			"/etc/doveadm-proxy/secrets/panel"),
			attr{
				name: "pipeline_depth", field: count(&c.PipelineDepth, 1), def: `16`,
				doc: "How many of the commands that one session sends ahead, without waiting for replies, run at the same time. Commands for the same user never do, and replies come in the order of the commands. `1`: one after the other.",
			},
			attr{
				name: "priority", field: choice(&c.Priority, PriorityInteractive, PriorityBulk), def: `"interactive"`,
				doc: "Who waits for whom where a backend has more to do than `max_open` of its `pool`. Clients take turns; those of priority `\"bulk\"` (a nightly run over all users) come after the interactive ones, and never have more than `max_bulk` connections.",
			},
			attr{
				name: "max_sessions", field: count(&c.MaxSessions, 0), def: `0`,
				doc: "Sessions of this client at the same time. One more gets a log line and is closed after its login. 0: only the `max_sessions` of the listener and of `limits` count.",
			},
			attr{
				name: "max_commands", field: count(&c.MaxCommands, 0), def: `0`,
				doc: "Commands of this client that run, or wait for a connection, at the same time, of all its sessions together. Further ones wait, no longer than `acquire_timeout` of the backend's `pool`, and are answered with a temporary failure then. 0: no limit.",
			}),
		later: []later{
			{"allow", "Remove the block: a client may run every command for every user. Give the password only to those who may do that."},
			{"rate_limit", "Remove the attribute."},
			{"tls_subject", "Use password_file. client_ca_file in the tls block of a listener admits only clients with a certificate; who they are they say by their login."},
		},
	}
}

func (c *Client) passwords() passwords {
	return passwords{&c.Password, &c.OldPassword, &c.PasswordFile}
}

func (l *loader) client(b *hclsyntax.Block) {
	c := new(placed[Client])
	c.at = l.block(c.value.block(), b, nil)
	c.value.Name = label(b)
	l.clients = append(l.clients, c)

	if !l.passwords(&c.at, c.value.passwords()) {
		l.missingIn(c.at.whole, c.at.header, "No password", "Nobody can log in as this client. "+
			"Write what \"doveadm-proxy hash\" prints into a file, and: password_file = \"/path/to/the/file\"")
	}
	if !c.value.Password.Empty() {
		if p := checkScheme(c.value.Password.Reveal()); p != nil {
			l.errorf(c.at.of("password", "password_file"), p.summary, "%s", p.detail)
		}
	}
	if !c.value.OldPassword.Empty() {
		if p := checkScheme(c.value.OldPassword.Reveal()); p != nil {
			l.errorf(c.at.of("old_password", "password_file"), p.summary, "This is of the old password. %s", p.detail)
		}
	}
}

func (l *loader) checkClients() {
	if len(l.clients) == 0 {
		l.missing(l.end(), "No client", "Nobody can log in. Add a block: client \"doveadm\" { password_file = \"/path/to/the/file\" }, and write what \"doveadm-proxy hash\" prints into the file.")
	}
	seen := map[string]hcl.Range{}
	for _, c := range l.clients {
		l.unique("client", c.value.Name, &c.at, seen)
	}
}

func (l *loader) clientNames() []string {
	var names []string
	for _, c := range l.clients {
		names = append(names, c.value.Name)
	}
	return names
}
