package config

import (
	"net/url"
	"slices"
	"strings"
)

// LDAP is what a route of the kind ldap asks.
type LDAP struct {
	URL          string
	StartTLS     bool
	CAFile       string // empty: the authorities of the system
	BindDN       string // empty: anonymous
	BindPassword Secret
	PasswordFile string // where it comes from; empty: the configuration
	Base         string
	Scope        string
	Filter       string
	Attribute    string
}

// The scopes of LDAP.Scope.
const (
	ScopeSub  = "sub"
	ScopeOne  = "one"
	ScopeBase = "base"
)

func (d *LDAP) attrs() []attr {
	unused := new(Secret)
	return []attr{
		{
			name: "url", field: urlOf(&d.URL, "ldap", "ldaps"), required: true, example: `"ldap://ldap.example.com"`,
			doc: "The server: `ldap://host:389`, `ldaps://host:636` or `ldapi:///path`, the ports being these if there are none.",
		},
		{
			name: "starttls", field: toggle(&d.StartTLS), def: `false`,
			doc: "TLS on a connection of `ldap://`, before the login. A server that cannot is not asked.",
		},
		{
			name: "ca_file", field: caFile(&d.CAFile), example: `"/etc/doveadm-proxy/tls/ca.crt"`,
			doc: "Authorities that sign the server's certificate, in PEM form. Without it: those of the system.",
		},
		{
			name: "bind_dn", field: text(&d.BindDN), example: `"cn=proxy,dc=example,dc=com"`,
			doc: "Who logs in. Without it: nobody, the search is anonymous.",
		},
		{
			name: "bind_password", secret: true, field: secretText(&d.BindPassword, &d.PasswordFile, "a password"), example: `env("LDAP_PASSWORD")`,
			doc: "Its password. Better in a file of its own.",
		},
		{
			name: "bind_password_file", field: passwords{&d.BindPassword, unused, &d.PasswordFile}.fromFile(), example: `"/etc/doveadm-proxy/secrets/ldap"`,
			doc: "A file with the password, instead of it. It is read when the configuration is loaded.",
		},
		{
			name: "base", field: text(&d.Base), required: true, example: `"ou=people,dc=example,dc=com"`,
			doc: "Where the search begins. `%u` stands for the user, `%n` and `%d` for what is before and after its first `@`, escaped so that they are nothing but a value.",
		},
		{
			name: "scope", field: choice(&d.Scope, ScopeSub, ScopeOne, ScopeBase), def: `"sub"`,
			doc: "What is searched: all below `base`, what is directly below it, or `base` itself.",
		},
		{
			name: "filter", field: text(&d.Filter), required: true, example: `"(&(objectClass=inetOrgPerson)(mail=%u))"`,
			doc: "Which entry is the user's, with `%u`, `%n` and `%d` as in `base`. More than one entry is an error.",
		},
		{
			name: "attribute", field: text(&d.Attribute), required: true, example: `"mailHost"`,
			doc: "The attribute with the name of the shard. An entry without it leaves the user to the next route; more than one value is an error.",
		},
	}
}

func (d *LDAP) block(l *Lookup) block {
	return block{
		name: "route", kind: "ldap", label: "kind", many: true,
		doc: "Users by a directory.",
		example: `
route "ldap" {
  url                = "ldap://ldap.example.com"
  starttls           = true
  bind_dn            = "cn=proxy,dc=example,dc=com"
  bind_password_file = "/etc/doveadm-proxy/secrets/ldap"
  base               = "ou=people,dc=example,dc=com"
  filter             = "(&(objectClass=inetOrgPerson)(mail=%u))"
  attribute          = "mailHost"
}`,
		attrs:  append(d.attrs(), l.attrs()...),
		blocks: l.blocks(),
	}
}

// checkLDAP finds what is wrong with the attributes taken together.
func (l *loader) checkLDAP(d *LDAP, at *place) {
	if at.has("bind_password") && at.has("bind_password_file") {
		l.errorf(at.of("bind_password_file"), "Two passwords", "The block has bind_password and bind_password_file. Remove one of the two.")
	}
	if d.BindPassword.Empty() && d.BindDN != "" && !at.has("bind_password") && !at.has("bind_password_file") {
		l.errorf(at.of("bind_dn"), "No bind_password", "A login without a password is an anonymous one. Write bind_password_file beside bind_dn, or remove both.")
	}
	if d.BindDN == "" && !d.BindPassword.Empty() {
		l.errorf(at.of("bind_password", "bind_password_file"), "No bind_dn", "Write whose password this is: bind_dn = \"cn=proxy,dc=example,dc=com\"")
	}
	if d.StartTLS && strings.HasPrefix(d.URL, "ldaps:") {
		l.errorf(at.of("starttls"), "TLS twice", "ldaps has TLS from the first byte on. Remove starttls, or write ldap:// in url.")
	}
	if d.Filter != "" && !hasUser(d.Filter) && !hasUser(d.Base) {
		l.errorf(at.of("filter"), "Filter without the user", "Each user would get the same answer. Write %%u where the user belongs, or %%n or %%d for a part of it.")
	}
}

// hasUser reports whether a template has a place for a user or a part of one.
func hasUser(template string) bool {
	return slices.ContainsFunc([]string{"%u", "%n", "%d"}, func(v string) bool { return strings.Contains(template, v) })
}

// urlOf is a URL of one of some schemes.
func urlOf(to *string, schemes ...string) field {
	f := text(to)
	f.takes = "a URL"
	f.set = func(v value) *problem {
		var s string
		if p := text(&s).set(v); p != nil {
			return p
		}
		// Templates are no URLs yet.
		u, err := url.Parse(strings.NewReplacer("%u", "u", "%n", "n", "%d", "d").Replace(s))
		switch {
		case err != nil || u.Host == "" && u.Scheme != "ldapi":
			return wrong("It begins with a scheme and a host: " + schemes[0] + "://host.example.com")
		case !slices.Contains(schemes, u.Scheme) && (u.Scheme != "ldapi" || schemes[0] != "ldap"):
			return wrong("Its scheme is " + strings.Join(schemes, " or ") + ".")
		case u.User != nil:
			return wrong("It has a user in it, which belongs into other attributes.")
		}
		*to = s
		return nil
	}
	return f
}
