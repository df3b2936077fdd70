package config

// DovecotAuth is what a route of the kind dovecot-auth asks.
type DovecotAuth struct {
	Network string // unix or tcp
	Address string
	Port    int // of servers that the passdb names without one
}

func (d *DovecotAuth) block(l *Lookup) block {
	return block{
		name: "route", kind: "dovecot-auth", label: "kind", many: true,
		doc: "Users by the passdb of a Dovecot, as Dovecot's own proxying has them: `proxy`, `host`, `hostip`, `port`, `destuser`, `ssl`, `starttls` and `proxy_timeout`. " +
			"The server is the backend that has this address, or another one in `networks`. Users whom the passdb does not know, or names no server for, go on to the next route.",
		example: `
route "dovecot-auth" {
  socket   = "unix:/run/dovecot/auth-userdb"
  networks = ["10.0.1.0/24"]
}`,
		attrs: append([]attr{
			{
				name: "socket", field: authSocket(&d.Network, &d.Address), required: true, example: `"/run/dovecot/auth-userdb"`,
				doc: "A socket of the service auth, of the type `userdb` or `master` (`auth-userdb` and `auth-master` are). The proxy's user needs to be its owner, or its mode to be 0600, 0660 or 0777: with 0666 Dovecot refuses passdb lookups to others. " +
					"Over TCP it is an `inet_listener` whose name ends in `-master` (Dovecot 2.3) or with `type = master` (2.4); it has no encryption and no login, so it belongs on a network of its own.",
			},
			{
				name: "port", field: port(&d.Port), def: `24245`,
				doc: "The port of servers for which the passdb has no `port`.",
			},
		}, l.attrs()...),
		blocks: l.blocks(),
	}
}

// authSocket is a UNIX socket, with or without unix: before its path, or a host
// and a port.
func authSocket(network, address *string) field {
	f := endpoint(network, address)
	f.takes = "`/path`, `unix:/path` or `host:port`"
	set := f.set
	f.set = func(v value) *problem {
		if s, ok := v.is.(string); ok && len(s) > 0 && s[0] == '/' {
			v.is = "unix:" + s
		}
		return set(v)
	}
	return f
}

// port is a number of a port.
func port(to *int) field {
	f := count(to, 1)
	f.takes = "a port"
	set := f.set
	f.set = func(v value) *problem {
		n := 0
		g := count(&n, 1)
		if p := g.set(v); p != nil {
			return p
		}
		if n > 65535 {
			return wrong("Ports end at 65535.")
		}
		return set(v)
	}
	return f
}

// checkTargets gives routes that may name servers by their addresses what they
// need for it.
func (l *loader) checkTargets() {
	shards := make(map[string]string)
	for _, b := range l.backends {
		shards[b.value.Address] = b.shard
	}
	for _, r := range l.routes {
		switch r.value.Kind {
		case "match", "file", "ring":
			continue
		}
		r.value.Lookup.Backends = shards
		if len(r.value.Lookup.Networks) == 0 {
			continue
		}
		d := l.defaults.value
		if d.Password.Empty() && d.PasswordFile == "" {
			l.missingIn(r.at.whole, r.at.of("networks"), "No password in backend_defaults",
				"Servers in these networks get the name and the password of backend_defaults. Write the password into a file, and there: password_file = \"/path/to/the/file\"")
			continue
		}
		d.Pool.settle(&l.defaults.at)
		d.Timeouts.settle(&l.defaults.at)
		l.elsewhere = &d
	}
}
