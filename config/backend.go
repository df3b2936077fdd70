package config

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Backend is one Dovecot server with backend_defaults merged in. Its name is
// unique in the whole configuration.
type Backend struct {
	Name     string
	Address  string // host:port, or ServicePrefix and a DNS service
	Standby  bool   // used only when the others of the shard cannot be
	Username string
	Password Secret
	// OldPassword is for a backend that does not know Password yet; empty:
	// there is none.
	OldPassword Secret
	// PasswordFile is where the passwords come from, to be read again when it
	// changes; empty: they stand in the configuration.
	PasswordFile string
	TLS          BackendTLS
	Pool         Pool
	Breaker      Breaker
	Timeouts     Timeouts
	HealthCheck  HealthCheck
}

func (b *Backend) block() block {
	return block{
		name: "backend", label: "name", many: true,
		doc: "A Dovecot server of a shard. Its name is unique in the whole configuration. " +
			"Besides its address it may have everything that `backend_defaults` has, and what it has counts instead of that.",
		example: `
shard "s1" {
  backend "mail1" {
    address = "10.0.1.1:24245"
    pool {
      max_open = 32
    }
  }
}`,
		attrs: append([]attr{
			{
				name: "address", field: backendAddress(&b.Address), required: true, example: `"10.0.1.1:24245"`,
				doc: "Host and port of the backend's doveadm listener (`service doveadm { inet_listener … }`). Port 24245 is the usual one. A host name is looked up for each connection, and all its addresses are tried. `srv:_doveadm._tcp.example.com`: the servers of a DNS service (SRV), by their priorities.",
			},
			{
				name: "standby", field: toggle(&b.Standby), def: `false`,
				doc: "`true`: used only when no other backend of the shard can be.",
			},
		}, b.login()...),
		blocks: b.settings(),
	}
}

func (b *Backend) defaultsBlock() block {
	return block{
		name: "backend_defaults",
		doc:  "What holds for all backends that do not say otherwise themselves. It stands once, before or after the shards.",
		example: `
backend_defaults {
  username      = "doveadm"
  password_file = "/etc/doveadm-proxy/secrets/backends"
}`,
		attrs:  b.login(),
		blocks: b.settings(),
	}
}

func (b *Backend) login() []attr {
	return append([]attr{
		{
			name: "username", field: text(&b.Username), def: `"doveadm"`,
			doc: "The proxy logs in to the backend under this name (Dovecot's `doveadm_username`).",
		},
	}, b.passwords().credentials("a password", `env("BACKEND_PASSWORD")`,
		"The password of the backend (Dovecot's `doveadm_password`), in clear text. Each backend needs one, here or in `backend_defaults`.",
		"It is for a backend that refuses the new one, which it does until its `doveadm_password` is changed.",
		"/etc/doveadm-proxy/secrets/backends")...)
}

func (b *Backend) passwords() passwords {
	return passwords{&b.Password, &b.OldPassword, &b.PasswordFile}
}

func (b *Backend) settings() []block {
	return []block{b.TLS.block(), b.Pool.block(), b.Breaker.block(), b.Timeouts.block(), b.HealthCheck.block()}
}

func (l *loader) backendDefaults(b *hclsyntax.Block) {
	d := &l.defaults
	d.at = l.block(d.value.defaultsBlock(), b, nil)
	l.passwords(&d.at, d.value.passwords())
	l.backendTLS(&d.value.TLS, &d.at)
	d.value.HealthCheck.settle(b, &d.at)
	pool := d.value.Pool // a copy: backends settle theirs, after their own limits
	pool.settle(&d.at)
	l.checkPool(pool, &d.at)
}

func (l *loader) backend(s *placed[Shard], b *hclsyntax.Block) {
	n := &placed[Backend]{value: l.defaults.value}
	n.at = l.block(n.value.block(), b, &l.defaults.at)
	n.value.Name = label(b)
	if !l.passwords(&n.at, n.value.passwords()) {
		l.missingIn(n.at.whole, n.at.header, "No password",
			"The proxy cannot log in to this backend. Write the backend's doveadm_password into a file, and in backend_defaults (or in this block): password_file = \"/path/to/the/file\"")
	}
	l.backendTLS(&n.value.TLS, &n.at)
	n.value.HealthCheck.settle(b, &n.at)
	n.value.Pool.settle(&n.at)
	n.value.Timeouts.settle(&n.at)
	l.checkPool(n.value.Pool, &n.at)
	s.value.Backends = append(s.value.Backends, n.value)
	l.backends = append(l.backends, inShard{n, s.value.Name})
}
