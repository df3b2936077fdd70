package config

import (
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Client is one client block: who may use the proxy, and for what.
type Client struct {
	Name     string
	Username string // of the login; empty: the name of the block
	Password Secret // in Dovecot's form, {SCHEME}data; empty: none is asked for

	// How a client is recognized besides. What is empty says nothing; all else
	// has to be true of a session.
	Listeners  []string
	Networks   []netip.Prefix
	TLSSubject string    // of the client's certificate, as RFC 2253 writes it
	TLSNames   []string  // kind:name, one of which the certificate is for
	UnixUsers  []Account // one of which the client's process runs as
	UnixGroups []Account

	Allow []Rule // empty: everything that is not dangerous
	Deny  []Rule

	// OldPassword is valid too, while it is being replaced; empty: there is none.
	OldPassword Secret
	// PasswordFile is where the passwords come from, to be read again when it
	// changes; empty: they stand in the configuration.
	PasswordFile string
	Priority     string // PriorityInteractive or PriorityBulk
	MaxSessions  int    // 0: only the other limits count
	MaxCommands  int    // at the same time, of all its sessions; 0: no limit
	Rates        Rates

	// PipelineDepth is how many commands that a session sends ahead run at the
	// same time.
	PipelineDepth int
}

// Rates is how much a client may ask for; 0: no limit.
type Rates struct {
	Commands       int           // a second
	Burst          int           // at once, after a pause; 0: as many as in a second
	Wait           time.Duration // that a command may wait for its turn
	BytesPerSecond int64         // of replies and input
	BytesPerDay    int64         // likewise; a day of UTC
}

func (r *Rates) attrs() []attr {
	return []attr{
		{
			name: "rate_limit", field: count(&r.Commands, 0), def: `0`,
			doc: "Commands a second, of all sessions of the client together. One more gets `-TEMPFAIL`, unless `rate_wait` lets it wait. `0`: no limit.",
		},
		{
			name: "rate_burst", field: count(&r.Burst, 0), def: `0`,
			doc: "Commands at once after a pause. `0`: as many as in a second.",
		},
		{
			name: "rate_wait", field: duration(&r.Wait, 0), def: `"0s"`,
			doc: "How long a command above `rate_limit` may wait for its turn instead. For clients that run a command for each of many users, and would rather be slow than fail.",
		},
		{
			name: "bytes_per_second", field: sizeOrNone(&r.BytesPerSecond), example: `"10MiB"`,
			doc: "Bytes of replies and of input a second. A command that is running is not stopped; those after it get `-TEMPFAIL` until what it had too much is made up for. Without the attribute: no limit.",
		},
		{
			name: "bytes_per_day", field: sizeOrNone(&r.BytesPerDay), example: `"100GiB"`,
			doc: "Bytes of replies and of input a day (UTC). When they are used up, commands get `-TEMPFAIL` until midnight. The count ends with the process. Without the attribute: no limit.",
		},
	}
}

// The priorities of clients.
const (
	PriorityInteractive = "interactive"
	PriorityBulk        = "bulk"
)

// LoginName is the user name with which the client logs in.
func (c *Client) LoginName() string {
	if c.Username != "" {
		return c.Username
	}
	return c.Name
}

// SelfEvident reports whether the client's sessions need no login: there is
// no password, but a certificate or an account to know the client by.
func (c *Client) SelfEvident() bool {
	return c.Password.Empty() && (c.HasCertificate() || c.HasAccount())
}

// HasCertificate reports whether the client is known by a certificate.
func (c *Client) HasCertificate() bool { return c.TLSSubject != "" || len(c.TLSNames) > 0 }

// HasAccount reports whether the client is known by the account of its process.
func (c *Client) HasAccount() bool { return len(c.UnixUsers) > 0 || len(c.UnixGroups) > 0 }

// always reports whether every session may be the client's.
func (c *Client) always() bool {
	return len(c.Listeners) == 0 && len(c.Networks) == 0 && !c.HasCertificate() && !c.HasAccount()
}

func (c *Client) block() block {
	return block{
		name: "client", label: "name", many: true,
		doc: "Who may use the proxy, and for what. A client is known by the user name and the password of its login, by its certificate, by the account of its process (on a UNIX socket), or by its listener. " +
			"The name of the block stands in the log. Old clients can only say `doveadm` (`doveadm_username` of a Dovecot client): several clients may log in under one `username` " +
			"if their listeners, networks or certificates tell them apart. The first in the order of the configuration of which all is true is asked for its password. " +
			"At least one client is needed. These passwords are the proxy's own: they have nothing to do with those of the backends.",
		example: `
client "doveadm" {
  password_file = "/etc/doveadm-proxy/secrets/doveadm"
}

client "panel" {
  username = "doveadm"
  networks = ["10.1.0.0/16"]
  password = "{SHA512-CRYPT}$6$rounds=5000$usesomesillystri$D4IrlXatmP7rx3P3InaxBeoomnAihCKRVQAr/36eYMU8Ehsd5SnNNHWuHXC8BTnRoKS2hBpi/8kgLvMUYASsI1"
}`,
		attrs: slices.Concat(append(c.passwords().credentials("a hash in Dovecot's form, `{SCHEME}data`", `"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$…"`,
			"The hashed password, as `doveadm-proxy hash` or `doveadm pw -s ARGON2ID` prints it. `{PLAIN}` before a password in clear text works too. "+
				"A client that is known by its certificate or account needs none; with one it has to log in besides.",
			"Both are valid. The log says who still uses it, and when nobody has for a day.",
			"/etc/doveadm-proxy/secrets/panel"),
			attr{
				name: "username", field: text(&c.Username), example: `"doveadm"`,
				doc: "The user name of the client's login. Without it: the name of the block.",
			},
			attr{
				name: "listeners", field: texts(&c.Listeners), example: `["main"]`,
				doc: "Listeners, one of which the client has to use.",
			},
			attr{
				name: "networks", field: networks(&c.Networks), example: `["10.0.0.0/8"]`,
				doc: "Networks from one of which the client has to come. Whoever comes by a UNIX socket comes from none.",
			},
			attr{
				name: "tls_subject", field: text(&c.TLSSubject), example: `"CN=panel,O=Example"`,
				doc: "The subject of the client's certificate, as `openssl x509 -noout -subject -nameopt RFC2253` prints it. The listener needs `client_ca_file`.",
			},
			attr{
				name: "tls_san", field: certNames(&c.TLSNames), example: `["dns:panel.example.com", "uri:spiffe://example.com/panel"]`,
				doc: "Names (`dns:`, `uri:`, `email:` or `ip:`), one of which the client's certificate is for (its subjectAltName). The listener needs `client_ca_file`.",
			},
			attr{
				name: "unix_users", field: accounts(&c.UnixUsers, lookupUser), example: `["root", "1000"]`,
				doc: "Users of this system, by name or number, as one of which the client's process runs. For UNIX sockets.",
			},
			attr{
				name: "unix_groups", field: accounts(&c.UnixGroups, lookupGroup), example: `["root"]`,
				doc: "Groups of this system, by name or number, one of which is that of the client's process. Its supplementary groups do not count. For UNIX sockets.",
			},
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
			}), c.Rates.attrs()),
		blocks: []block{new(Rule).block("allow"), new(Rule).block("deny")},
		later:  []later{},
	}
}

func (c *Client) passwords() passwords {
	return passwords{&c.Password, &c.OldPassword, &c.PasswordFile}
}

func (l *loader) client(b *hclsyntax.Block) {
	c := new(placed[Client])
	spec := c.value.block()
	for i, to := range []*[]Rule{&c.value.Allow, &c.value.Deny} {
		spec.blocks[i] = spec.blocks[i].by(l.rule(spec.blocks[i].name, to))
	}
	c.at = l.block(spec, b, nil)
	c.value.Name = label(b)
	l.clients = append(l.clients, c)
	l.passwords(&c.at, c.value.passwords())
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
	for i, c := range l.clients {
		l.unique("client", c.value.Name, &c.at, seen)
		l.checkCredentials(c)
		l.checkIdentity(c)
		for _, before := range l.clients[:i] {
			if before.value.Name != c.value.Name && before.value.LoginName() == c.value.LoginName() && before.value.always() && !before.value.Password.Empty() {
				l.errorf(c.at.header, "Client that nobody is",
					"Every login as %q is that of the client at %s, which comes before this one. Say there by listeners, networks or tls_subject which sessions are its own, or move it behind this one.",
					c.value.LoginName(), position(before.at.header))
				break
			}
		}
	}
}

// checkCredentials reports a client that there is no way to be.
func (l *loader) checkCredentials(c *placed[Client]) {
	fixed := slices.ContainsFunc(l.listeners, func(n *placed[Listener]) bool { return n.value.Client == c.value.Name })
	if c.at.has("password") || c.at.has("password_file") || fixed || c.value.SelfEvident() {
		return
	}
	l.missingIn(c.at.whole, c.at.header, "No password", "Nobody can log in as this client. "+
		"Write what \"doveadm-proxy hash\" prints into a file, and: password_file = \"/path/to/the/file\"")
}

// checkIdentity looks at what a client is known by besides its login.
func (l *loader) checkIdentity(c *placed[Client]) {
	var names []string
	for _, n := range l.listeners {
		names = append(names, n.value.Name)
	}
	items, _ := c.at.attrs["listeners"].is.([]value)
	for i, name := range c.value.Listeners {
		l.known("listener", items[i], name, names)
	}
	can := func(ok func(*Listener) bool) bool {
		return l.unsure || slices.ContainsFunc(l.listeners, func(n *placed[Listener]) bool {
			return (len(c.value.Listeners) == 0 || slices.Contains(c.value.Listeners, n.value.Name)) && ok(&n.value)
		})
	}
	if c.value.HasCertificate() && !can(func(n *Listener) bool { return n.TLS.ClientCAFile != "" }) {
		l.missing(c.at.of("tls_subject", "tls_san"), "No listener for certificates",
			"None of the client's listeners asks for certificates. Write client_ca_file = \"/path/to/ca.crt\" into the tls block of one.")
	}
	if c.value.HasAccount() && !can(func(n *Listener) bool { return n.Network == "unix" && n.Client == "" }) {
		l.missing(c.at.of("unix_users", "unix_groups"), "No listener for local clients",
			"None of the client's listeners is a UNIX socket without the attribute client. Only on such a one a client is known by its account.")
	}
}

func (l *loader) clientNames() []string {
	var names []string
	for _, c := range l.clients {
		names = append(names, c.value.Name)
	}
	return names
}
