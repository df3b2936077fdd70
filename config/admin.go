package config

import (
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Admin is the admin block: where the running proxy can be asked and told
// things, and by whom.
type Admin struct {
	Network   string // "unix" or "tcp"; empty: there is no admin endpoint
	Address   string
	Mode      fs.FileMode // of a UNIX socket
	TLS       AdminTLS
	StateFile string // keeps what operators want of backends

	Profiling bool     // /debug/pprof is served
	Hosts     []string // names by which a browser may reach it without TLS
	Further   []AdminEndpoint
	Users     []AdminUser
}

// AdminEndpoint is one address of the admin endpoint.
type AdminEndpoint struct {
	Name    string // empty: the one of the admin block itself
	Network string
	Address string
	Mode    fs.FileMode
	TLS     AdminTLS
}

// AdminTLS is the tls block of an admin endpoint.
type AdminTLS struct {
	CertFile     string // empty: no TLS
	KeyFile      string
	ClientCAFile string // empty: certificates of clients are not looked at
}

// The roles of admin users.
const (
	RoleViewer   = "viewer"
	RoleOperator = "operator"
	RoleAdmin    = "admin"
)

// AdminUser is a user of the admin endpoint. Each way to know it that is
// not empty is enough.
type AdminUser struct {
	Name         string
	Role         string
	Password     Secret // in Dovecot's form
	OldPassword  Secret
	PasswordFile string
	Token        Secret // of a bearer, in Dovecot's form, without salt
	TLSSubject   string
	TLSNames     []string
	UnixUsers    []Account
	UnixGroups   []Account
}

// AdminSocket is where the admin endpoint is if nothing else is said.
const AdminSocket = "/run/doveadm-proxy/admin.sock"

// Endpoints returns all addresses of the endpoint, none if there is no block.
func (a *Admin) Endpoints() []AdminEndpoint {
	if a.Network == "" {
		return nil
	}
	return append([]AdminEndpoint{{Network: a.Network, Address: a.Address, Mode: a.Mode, TLS: a.TLS}}, a.Further...)
}

// Loopback reports whether only this machine reaches the endpoint.
func (e *AdminEndpoint) Loopback() bool {
	if e.Network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(e.Address)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (a *Admin) block() block {
	return block{
		name: "admin",
		doc: "The control of the running proxy, for `doveadm-proxy status` and all other commands that look at it or change what it does, for Prometheus (`GET /metrics`), and over HTTP for scripts (see `docs/admin-api.md`). Without the block there is none. " +
			"By default it is a UNIX socket, and who may write to that has the role `admin`. On a TCP port of this machine whoever is not known has the role `viewer`; a port that other hosts reach needs a `tls` block and users.",
		example: `
admin {}`,
		attrs: []attr{
			{
				name: "address", field: endpoint(&a.Network, &a.Address), def: `"unix:` + AdminSocket + `"`,
				doc: "The path of a UNIX socket, whose permissions say who may use it; or host and port. Further addresses have blocks of their own: `endpoint`.",
			},
			{
				name: "mode", field: socketMode(&a.Mode), def: `"0600"`,
				doc: "Permissions of the UNIX socket. Who may write to it has the role `admin`, unless there is a `user` with `unix_users` or `unix_groups`: then only root and the proxy's own user have it without being named.",
			},
			{
				name: "state_file", field: path(&a.StateFile, func(string) error { return nil }), def: `"/var/lib/doveadm-proxy/operator.json"`,
				doc: "What operators want of backends (`drain`, `down`) is kept here, so that it outlives a restart. The directory has to exist (`StateDirectory=` of the systemd unit makes it), and each proxy needs a file of its own. A change of the attribute counts from the next start.",
			},
			{
				name: "profiling", field: toggle(&a.Profiling), def: `false`,
				doc: "`true`: Go's profiles are at `/debug/pprof/`, for the role `admin`.",
			},
			{
				name: "hosts", field: texts(&a.Hosts), example: `["proxy1.example.com"]`,
				doc: "Names that may stand in the `Host` of a request without TLS, besides `localhost` and addresses. Any other is refused: a web page elsewhere could have made its name point here, or at a port that is forwarded to the UNIX socket (DNS rebinding).",
			},
		},
		blocks: []block{a.TLS.block("admin"), new(AdminEndpoint).block(), new(AdminUser).block()},
	}
}

func (t *AdminTLS) block(in string) block {
	return block{
		name: "tls", in: in,
		doc: "HTTPS on a port of the admin endpoint, for TLS 1.2 and 1.3. The files are read again when they have changed.",
		example: `
admin {
  address = "0.0.0.0:9124"
  tls {
    cert_file = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file  = "/etc/doveadm-proxy/tls/proxy.key"
  }
  user "prometheus" {
    role  = "viewer"
    token = "{SHA256}n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
  }
}`,
		attrs: []attr{
			{
				name: "cert_file", field: certFile(&t.CertFile), required: true, example: `"/etc/doveadm-proxy/tls/proxy.crt"`,
				doc: "The certificate in PEM form, followed by those between it and its authority.",
			},
			{
				name: "key_file", field: keyFile(&t.KeyFile), required: true, example: `"/etc/doveadm-proxy/tls/proxy.key"`,
				doc: "Its private key in PEM form, without a passphrase. There is a warning if all users can read it.",
			},
			{
				name: "client_ca_file", field: caFile(&t.ClientCAFile), example: `"/etc/doveadm-proxy/tls/ca.crt"`,
				doc: "Authorities of client certificates, in PEM form, for users with `tls_subject` or `tls_san`. Who has no certificate may show a password or a token instead.",
			},
		},
	}
}

func (e *AdminEndpoint) block() block {
	return block{
		name: "endpoint", label: "name", many: true,
		doc: "A further address of the admin endpoint: a port for Prometheus beside the UNIX socket for people.",
		example: `
admin {
  endpoint "metrics" {
    address = "127.0.0.1:9124"
  }
}`,
		attrs: []attr{
			{
				name: "address", field: endpoint(&e.Network, &e.Address), required: true, example: `"127.0.0.1:9124"`,
				doc: "As that of `admin`.",
			},
			{
				name: "mode", field: socketMode(&e.Mode), def: `"0600"`,
				doc: "As that of `admin`.",
			},
		},
		blocks: []block{e.TLS.block("endpoint")},
	}
}

func (u *AdminUser) block() block {
	return block{
		name: "user", label: "name", many: true,
		doc: "A user of the admin endpoint, who is known by a password (HTTP Basic), a bearer token or a certificate on TCP, and by the account of the process on a UNIX socket. One of them is enough; of several users who are known by the same, the first counts.",
		example: `
admin {
  mode = "0660"
  endpoint "page" {
    address = "127.0.0.1:9124"
  }
  user "alice" {
    role          = "operator"
    unix_users    = ["root"]
    password_file = "/etc/doveadm-proxy/secrets/panel"
  }
}`,
		attrs: slices.Concat([]attr{{
			name: "role", field: choice(&u.Role, RoleViewer, RoleOperator, RoleAdmin), required: true, example: `"operator"`,
			doc: "`viewer` sees states, counts, and who runs what for whom. `operator` also takes backends out of service, pauses, and ends commands and sessions. `admin` also reloads, and sees wires (`trace`) and profiles.",
		}}, u.passwords().credentials("a hash in Dovecot's form, `{SCHEME}data`", `"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$…"`,
			"The hashed password, as `doveadm-proxy hash` prints it. The name of the block is the user name. It may only go over TLS or the loopback interface. Where everybody may look, on a port of this machine, a browser is asked for it at `/login`.", "Both are valid.",
			"/etc/doveadm-proxy/secrets/panel"), []attr{
			{
				name: "token", secret: true, field: secretText(&u.Token, new(string), "a hash in Dovecot's form, `{SHA256}data`"), example: `"{SHA256}n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="`,
				doc: "The hash of a token for `Authorization: Bearer`, as `doveadm-proxy hash --scheme SHA256` prints it. Make a token of chance, as by `openssl rand -hex 32`: the hash is a quick one. `file(\"path\")` and `env(\"NAME\")` work here, too.",
			},
			{
				name: "tls_subject", field: text(&u.TLSSubject), example: `"CN=alice,O=Example"`,
				doc: "The subject of the user's certificate, as `openssl x509 -noout -subject -nameopt RFC2253` prints it. The endpoint needs `client_ca_file`.",
			},
			{
				name: "tls_san", field: certNames(&u.TLSNames), example: `["email:alice@example.com"]`,
				doc: "Names (`dns:`, `uri:`, `email:` or `ip:`), one of which the user's certificate is for.",
			},
			{
				name: "unix_users", field: accounts(&u.UnixUsers, lookupUser), example: `["root", "1000"]`,
				doc: "Users of this system, by name or number. The `mode` of the socket has to let them in.",
			},
			{
				name: "unix_groups", field: accounts(&u.UnixGroups, lookupGroup), example: `["root"]`,
				doc: "Groups of this system, by name or number, one of which is that of the process. Its supplementary groups do not count.",
			},
		}),
	}
}

func (u *AdminUser) passwords() passwords {
	return passwords{&u.Password, &u.OldPassword, &u.PasswordFile}
}

// HasAccount reports whether the user is known by the account of a process.
func (u *AdminUser) HasAccount() bool { return len(u.UnixUsers) > 0 || len(u.UnixGroups) > 0 }

// HasCertificate reports whether the user is known by a certificate.
func (u *AdminUser) HasCertificate() bool { return u.TLSSubject != "" || len(u.TLSNames) > 0 }

func (l *loader) adminBlock(b *hclsyntax.Block) {
	spec := l.admin.block()
	var further []*placed[AdminEndpoint]
	var users []*placed[AdminUser]
	for i := range spec.blocks {
		switch spec.blocks[i].name {
		case "endpoint":
			spec.blocks[i] = spec.blocks[i].by(func(b *hclsyntax.Block) {
				e := new(placed[AdminEndpoint])
				e.at = l.block(e.value.block(), b, nil)
				e.value.Name = label(b)
				further = append(further, e)
			})
		case "user":
			spec.blocks[i] = spec.blocks[i].by(func(b *hclsyntax.Block) { users = append(users, l.adminUser(b)) })
		}
	}
	at := l.block(spec, b, nil)
	first := placed[AdminEndpoint]{value: l.admin.Endpoints()[0], at: at}
	if len(users) > 0 {
		l.admin.Users = values(users)
	}
	l.adminEndpoint(&first, l.admin.Users)
	l.admin.Mode = first.value.Mode
	for _, e := range further {
		l.adminEndpoint(e, l.admin.Users)
		l.admin.Further = append(l.admin.Further, e.value)
	}
	seen := map[string]hcl.Range{}
	for _, e := range further {
		l.unique("endpoint", e.value.Name, &e.at, seen)
	}
	seen = map[string]hcl.Range{}
	for _, u := range users {
		l.unique("user", u.value.Name, &u.at, seen)
		l.checkAdminUser(u)
	}
}

func (l *loader) adminUser(b *hclsyntax.Block) *placed[AdminUser] {
	u := new(placed[AdminUser])
	u.at = l.block(u.value.block(), b, nil)
	u.value.Name = label(b)
	l.passwords(&u.at, u.value.passwords())
	for _, s := range []struct {
		secret Secret
		at     []string
	}{{u.value.Password, []string{"password", "password_file"}}, {u.value.OldPassword, []string{"old_password", "password_file"}}} {
		if s.secret.Empty() {
			continue
		}
		if p := checkScheme(s.secret.Reveal()); p != nil {
			l.errorf(u.at.of(s.at...), p.summary, "%s", p.detail)
		}
	}
	return u
}

// adminEndpoint looks at who reaches an address of the endpoint, and how.
func (l *loader) adminEndpoint(e *placed[AdminEndpoint], users []AdminUser) {
	v := &e.value
	hasTLS := e.at.has("tls.cert_file")
	if v.Network != "tcp" {
		if hasTLS {
			l.errorf(e.at.of("tls.cert_file"), "tls on a UNIX socket", "What goes through a UNIX socket does not leave the machine. Remove the block, or write address = \"host:port\".")
		}
		return
	}
	v.Mode = 0
	if e.at.has("mode") {
		l.errorf(e.at.of("mode"), "mode without a UNIX socket", "Only a UNIX socket has permissions. Remove the attribute, or write address = \"unix:/path\".")
	}
	if hasTLS {
		l.keyPair(v.TLS.CertFile, v.TLS.KeyFile, &e.at)
	}
	known := slices.ContainsFunc(users, func(u AdminUser) bool {
		return !u.Password.Empty() || !u.Token.Empty() || u.HasCertificate() && v.TLS.ClientCAFile != ""
	})
	switch {
	case v.Loopback():
	case !hasTLS:
		l.errorf(e.at.of("address"), "Admin endpoint open to other hosts",
			"Without TLS it may only be on this machine. Write address = \"127.0.0.1:9124\", leave it out for a UNIX socket, or write a tls block and a user block.")
	case !known:
		l.errorf(e.at.of("address"), "Admin endpoint that nobody may use",
			"Other hosts reach it, and no user is known there. Write a block user \"name\" { … } with a password, a token, or, with client_ca_file in the tls block, the name of a certificate.")
	}
}

// checkAdminUser reports a user whom nobody can be.
func (l *loader) checkAdminUser(u *placed[AdminUser]) {
	v := &u.value
	has := func(names ...string) bool { return slices.ContainsFunc(names, u.at.has) }
	switch can := func(ok func(AdminEndpoint) bool) bool { return slices.ContainsFunc(l.admin.Endpoints(), ok) }; {
	case !has("password", "password_file", "token", "tls_subject", "tls_san", "unix_users", "unix_groups"):
		l.missingIn(u.at.whole, u.at.header, "No way to know the user", "Write what \"doveadm-proxy hash\" prints into a file, and: password_file = \"/path/to/the/file\"; or unix_users = [\"%s\"] for a UNIX socket.", v.Name)
	case v.HasAccount() && !can(func(e AdminEndpoint) bool { return e.Network == "unix" }):
		l.errorf(u.at.of("unix_users", "unix_groups"), "No UNIX socket", "Only on a UNIX socket a user is known by the account. Write address = \"unix:/path\", or remove the attribute.")
	case v.HasCertificate() && !can(func(e AdminEndpoint) bool { return e.TLS.ClientCAFile != "" }):
		l.errorf(u.at.of("tls_subject", "tls_san"), "No endpoint for certificates", "Write client_ca_file = \"/path/to/ca.crt\" into the tls block of the endpoint.")
	case has("password", "password_file", "token") && !can(func(e AdminEndpoint) bool { return e.Network == "tcp" }):
		l.warnf(u.at.of("password", "password_file", "token"), "Password that nobody asks for", "On a UNIX socket users are known by their account. Write unix_users = [\"%s\"], or a block endpoint \"name\" { address = \"127.0.0.1:9124\" }.", v.Name)
	}
	if text := v.Token.Reveal(); text != "" {
		if name := schemeOf(text); name != "SHA256" && name != "SHA512" {
			l.errorf(u.at.of("token"), "Wrong scheme of a token", "A token is looked up by its hash: use what \"doveadm-proxy hash --scheme SHA256\" prints.")
		}
	}
}

// repeated calls each with the blocks of an admin block that are repeated.
func (a *Admin) repeated(each func(b block, name string)) {
	for i := range a.Further {
		each(a.Further[i].block(), a.Further[i].Name)
	}
	for i := range a.Users {
		each(a.Users[i].block(), a.Users[i].Name)
	}
}
