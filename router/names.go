package router

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
	"github.com/doveadm-proxy/doveadm-proxy/internal/userformat"
)

// Names brings users into their normal form, in which routes, rights, the order
// of commands and the choice of a backend compare them: first an address
// extension is taken off, then the alias of a domain becomes the domain, then
// the format of the configuration is applied. Backends get users as clients
// write them.
//
// The zero value has the defaults: ASCII letters in lower case, nothing else.
// Names does not change; any number of goroutines may use it.
type Names struct {
	format     *userformat.Format // nil: %Lu
	delimiters string
	aliases    map[string]string // lower case alias to domain
}

// NewNames returns the normal form of a configuration. It reads the file of
// domain aliases.
func NewNames(c config.Router) (*Names, error) {
	n := &Names{delimiters: c.RecipientDelimiter, aliases: make(map[string]string)}
	var errs []error
	if c.UsernameFormat != "" && c.UsernameFormat != config.DefaultUsernameFormat {
		format, err := userformat.Parse(c.UsernameFormat)
		if err != nil {
			errs = append(errs, fmt.Errorf("username_format: %w", err))
		}
		n.format = format
	}
	for _, d := range c.DomainAliases {
		for _, alias := range d.Aliases {
			if err := n.alias(alias, d.Domain); err != nil {
				errs = append(errs, fmt.Errorf("domain_alias: %w", err))
			}
		}
	}
	if path := c.DomainAliasFile; path != "" {
		f, err := os.Open(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("domain_alias_file: %w", err))
		} else {
			for _, err := range n.readAliases(f) {
				errs = append(errs, fmt.Errorf("domain_alias_file %s:%w", path, err))
			}
			f.Close()
		}
	}
	for alias, domain := range n.aliases {
		if next, ok := n.aliases[domain]; ok {
			errs = append(errs, fmt.Errorf("domain alias %q stands for %q, which is an alias itself: write \"%s %s\"", alias, domain, alias, next))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	return n, nil
}

// alias adds one.
func (n *Names) alias(alias, domain string) error {
	alias, domain = lowerCase(alias), lowerCase(domain)
	was, known := n.aliases[alias]
	switch {
	case strings.Contains(alias, "@") || strings.Contains(domain, "@"):
		return fmt.Errorf("an @ in %q or %q: write domains without it", alias, domain)
	case alias == domain:
		return fmt.Errorf("%q stands for itself: remove it", alias)
	case known && was != domain:
		return fmt.Errorf("%q stands for %q and for %q: remove one of them", alias, was, domain)
	}
	n.aliases[alias] = domain
	return nil
}

// readAliases reads lines "alias domain"; # begins a comment. The errors begin
// with the number of the line.
func (n *Names) readAliases(r io.Reader) []error {
	var errs []error
	lines := bufio.NewScanner(r)
	number := 0
	for lines.Scan() {
		number++
		text, _, _ := bytes.Cut(lines.Bytes(), []byte("#"))
		words := bytes.Fields(text)
		switch len(words) {
		case 0:
		case 2:
			if err := n.alias(string(words[0]), string(words[1])); err != nil {
				errs = append(errs, fmt.Errorf("%d: %w", number, err))
			}
		default:
			errs = append(errs, fmt.Errorf("%d: %d words: write \"alias domain\"", number, len(words)))
		}
		if len(errs) == maxMapErrors {
			return append(errs, fmt.Errorf("%d: too many errors: nothing is read from here on", number))
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%d: %w", number+1, err))
	}
	return errs
}

// User returns the normal form of a user as a client or an operator writes it.
// A normal form is not to be brought into normal form once more: formats such
// as %d would change it. It is empty if the format makes nothing of the user.
// User does not allocate if that is how the user is written, or if another user
// format than %Lu does not.
func (n *Names) User(user string) string {
	plain := n.delimiters == "" && len(n.aliases) == 0
	if plain && n.format == nil {
		return lowerCase(user)
	}
	var stack, second [256]byte
	var normal []byte
	switch {
	case plain:
		normal = n.format.Append(stack[:0], user)
	case n.format == nil:
		normal = n.canonical(stack[:0], user)
		for i, c := range normal {
			normal[i] = userformat.Lower(c)
		}
	default:
		normal = n.format.Append(second[:0], string(n.canonical(stack[:0], user)))
	}
	if string(normal) == user {
		return user
	}
	return string(normal)
}

// canonical appends the user without an extension and in its true domain.
func (n *Names) canonical(dst []byte, user string) []byte {
	at := strings.IndexByte(user, '@')
	local, domain := user, ""
	if at >= 0 {
		local, domain = user[:at], user[at+1:]
	}
	if i := strings.IndexAny(local, n.delimiters); i > 0 {
		local = local[:i]
	}
	dst = append(dst, local...)
	if at >= 0 {
		dst = append(append(dst, '@'), n.Domain(domain)...)
	}
	return dst
}

// Domain returns the domain for which an alias stands, and each other domain as
// it is written.
func (n *Names) Domain(domain string) string {
	if len(n.aliases) == 0 {
		return domain
	}
	if main, ok := n.aliases[lowerCase(domain)]; ok {
		return main
	}
	return domain
}

// Pattern returns the pattern to match users in normal form with. One without
// wildcards is a user. In one with, the domain and the case of letters become
// what they are in a normal form; it fails if users keep no @ there, so that the
// pattern can never match.
func (n *Names) Pattern(pattern string) (string, error) {
	if !glob.HasWildcard(pattern) {
		return n.User(pattern), nil
	}
	if local, domain, ok := strings.Cut(pattern, "@"); ok {
		if n.format != nil && !bytes.Contains(n.format.Append(nil, "local@domain"), []byte("@")) {
			return "", fmt.Errorf("pattern %q can match no user: username_format = %q leaves no @ in them", pattern, n.format)
		}
		if !glob.HasWildcard(domain) {
			pattern = local + "@" + n.Domain(domain)
		}
	}
	return n.fold(pattern), nil
}

// fold changes the case of letters as the format does.
func (n *Names) fold(s string) string {
	if n.format == nil {
		return lowerCase(s)
	}
	switch sample := string(n.format.Append(nil, "aA@aA")); sample {
	case strings.ToLower(sample):
		return lowerCase(s)
	case strings.ToUpper(sample):
		return string(upper.Append(nil, s))
	}
	return s
}

var upper = func() *userformat.Format {
	f, err := userformat.Parse("%Uu")
	if err != nil {
		panic(err)
	}
	return f
}()

// appendKey appends a key of a map: a user or "@domain", in the form in which
// they are looked up.
func (n *Names) appendKey(dst, key []byte) ([]byte, error) {
	var normal string
	var err error
	switch {
	case n.format == nil && n.delimiters == "" && len(n.aliases) == 0:
		for _, c := range key {
			dst = append(dst, userformat.Lower(c))
		}
		return dst, nil
	case string(key) == defaultUser:
		normal = defaultUser
	case key[0] == '@':
		normal, err = n.Pattern("*" + string(key))
		normal = strings.TrimPrefix(normal, "*")
	default:
		normal = n.User(string(key))
	}
	if err == nil && normal == "" {
		err = fmt.Errorf("username_format = %q makes nothing of %q: remove the line", n.format, key)
	}
	return append(dst, normal...), err
}

// lowerCase returns s with its ASCII letters in lower case. This is what %Lu
// means to Dovecot, whose default auth_username_format it is: its lower-casing
// looks at bytes in the C locale (t_str_lcase in src/lib/strfuncs.c; it never
// calls setlocale), so ü and Ü stay two users.
func lowerCase(s string) string {
	for i := range len(s) {
		if userformat.Lower(s[i]) == s[i] {
			continue
		}
		lower := []byte(s)
		for ; i < len(lower); i++ {
			lower[i] = userformat.Lower(lower[i])
		}
		return string(lower)
	}
	return s
}
