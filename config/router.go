package config

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/doveadm-proxy/doveadm-proxy/internal/userformat"
)

// DefaultUsernameFormat is Dovecot's.
const DefaultUsernameFormat = "%Lu"

// Router is the router block: the normal form of users.
type Router struct {
	UsernameFormat     string // empty: DefaultUsernameFormat
	RecipientDelimiter string // characters; empty: none
	DomainAliases      []DomainAlias
	DomainAliasFile    string
}

// DomainAlias is one domain_alias block.
type DomainAlias struct {
	Domain  string
	Aliases []string
}

func (r *Router) block() block {
	return block{
		name: "router",
		doc: "How users are compared: routes, rights, the order of the commands of one user and the choice among the backends of a shard know them in a normal form. " +
			"Backends get each user as the client wrote it. First the extension of an address is taken off, then the alias of a domain becomes the domain, then the format is applied. " +
			"In a format Dovecot 2.4's spelling is understood too, with a second percent sign because HCL has another meaning for one before a brace: `%%{user | lower}`, `%%{user | username | lower}`.",
		example: `
router {
  username_format     = "%Lu"
  recipient_delimiter = "+"
  domain_alias "example.com" {
    aliases = ["example.org", "example.net"]
  }
}`,
		attrs: []attr{
			{
				name: "username_format", field: userFormat(&r.UsernameFormat), def: `"` + DefaultUsernameFormat + `"`,
				doc: "What of a user counts, as in Dovecot's `auth_username_format`: `%u` is the user, `%n` what stands before the first `@`, `%d` the domain behind it. " +
					"`L` and `U` make lower and upper case (of ASCII letters, as Dovecot does): `%Lu`, `%Ln@%Ld`. " +
					"It should be what the backends have.",
			},
			{
				name: "recipient_delimiter", field: text(&r.RecipientDelimiter), example: `"+"`,
				doc: "The extension of an address is no part of the user: what stands before the `@` ends at the first of these characters, so that `alice+lists@example.com` is `alice@example.com`. Without the attribute: users have no extensions.",
			},
			{
				name: "domain_alias_file", field: existingFile(&r.DomainAliasFile), example: `"/etc/doveadm-proxy/domains"`,
				doc: "More aliases of domains: each line has an alias and its domain with a space between them, `#` begins a comment.",
			},
		},
		blocks: []block{new(DomainAlias).block()},
	}
}

func (d *DomainAlias) block() block {
	return block{
		name: "domain_alias", label: "domain", many: true,
		doc: "Other names of a domain: `alice@example.org` is the user `alice@example.com`.",
		example: `
router {
  domain_alias "example.com" {
    aliases = ["example.org", "example.net"]
  }
}`,
		attrs: []attr{
			{
				name: "aliases", field: texts(&d.Aliases), required: true, example: `["example.org", "example.net"]`,
				doc: "Domains that stand for the one that is the block's label.",
			},
		},
	}
}

// userFormat is a template with Dovecot's variables.
func userFormat(to *string) field {
	f := text(to)
	f.takes = "a text with Dovecot's variables"
	set := f.set
	f.set = func(v value) *problem {
		was := *to
		if p := set(v); p != nil {
			return p
		}
		format, err := userformat.Parse(*to)
		switch {
		case err != nil:
			*to = was
			return wrong(strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + ".")
		case !format.HasVariable():
			*to = was
			return wrong("Without a variable all users would be the same.")
		}
		return nil
	}
	return f
}

func (l *loader) routerBlock(b *hclsyntax.Block) {
	spec := l.router.block()
	spec.blocks[0] = spec.blocks[0].by(func(b *hclsyntax.Block) {
		d := DomainAlias{Domain: label(b)}
		at := l.block(d.block(), b, nil)
		if slices.ContainsFunc(append(d.Aliases, d.Domain), func(s string) bool { return strings.ContainsAny(s, "@ ") }) {
			l.errorf(at.header, "Not a domain", "Domains stand without an @: domain_alias \"example.com\" { aliases = [\"example.org\"] }")
		}
		l.router.DomainAliases = append(l.router.DomainAliases, d)
	})
	l.block(spec, b, nil)
}
