package starter

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
)

// section is one of a configuration as doveconf prints it.
type section struct {
	name     string // with its label, as in "inet_listener doveadm"
	settings map[string]string
	sections []*section
}

// get returns the first section of a name in s, or an empty one.
func (s *section) get(name string) *section {
	for _, in := range s.sections {
		if in.name == name {
			return in
		}
	}
	return &section{}
}

// parseDoveconf reads what "doveconf -n" prints.
func parseDoveconf(text []byte) (*section, error) {
	top := &section{settings: map[string]string{}}
	open := []*section{top}
	for number, line := range lines(text) {
		line = strings.TrimSpace(line)
		current := open[len(open)-1]
		switch {
		case line == "" || line[0] == '#':
		case line == "}":
			if len(open) == 1 {
				return nil, fmt.Errorf("line %d: a } too many", number)
			}
			open = open[:len(open)-1]
		case strings.HasSuffix(line, "{"):
			in := &section{name: strings.TrimSpace(strings.TrimSuffix(line, "{")), settings: map[string]string{}}
			current.sections = append(current.sections, in)
			open = append(open, in)
		default:
			name, value, ok := strings.Cut(line, "=")
			if !ok {
				return nil, fmt.Errorf("line %d: %q is neither a setting nor a section: it has to be the output of \"doveconf -n\"", number, line)
			}
			current.settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	if len(open) > 1 {
		return nil, fmt.Errorf("the section %q has no end: is this all that doveconf printed?", open[len(open)-1].name)
	}
	if len(top.settings)+len(top.sections) == 0 {
		return nil, fmt.Errorf("no setting in it: it has to be the output of \"doveconf -n\"")
	}
	return top, nil
}

// Doveconf reads the output of "doveconf -n" of a director or of a proxy. No
// password is taken from it.
func (s *Source) Doveconf(ctx context.Context, text []byte) error {
	top, err := parseDoveconf(text)
	if err != nil {
		return err
	}
	set := top.settings
	if value := set["director_mail_servers"]; value != "" {
		if err := s.MailServers(ctx, value); err != nil {
			return err
		}
	}
	s.HashFormat = set["director_username_hash"]
	if port := set["doveadm_port"]; port != "" && port != "0" {
		s.Port = port
	}
	s.Username = set["doveadm_username"]
	switch set["doveadm_ssl"] {
	case "ssl":
		s.TLS = "implicit"
	case "starttls":
		s.TLS = "starttls"
	}
	_, s.hasPassword = set["doveadm_password"]
	if !s.hasPassword {
		s.note("there is no doveadm_password in this configuration: the backends' has to be known from elsewhere")
	}
	if value := set["auth_username_format"]; value != "" && value != "%Lu" {
		s.note("auth_username_format = %s: Dovecot changes user names before it looks them up; the proxy only takes upper case for lower case, unless its router says more", value)
	}
	if listener := top.get("service doveadm"); len(listener.sections) > 0 {
		for _, in := range listener.sections {
			if strings.HasPrefix(in.name, "inet_listener") && in.settings["port"] != "" && in.settings["port"] != "0" {
				address := in.settings["address"]
				if address == "" {
					address = set["listen"]
				}
				s.note("clients connect to this server's doveadm listener, %s port %s: when it has ended, the proxy's listener can take that address (--listen)",
					orText(address, "every address,"), in.settings["port"])
			}
		}
	}
	for _, in := range top.sections {
		if in.name == "passdb" || strings.HasPrefix(in.name, "passdb ") {
			s.passdb(in)
		}
	}
	return nil
}

// passdb reads where a passdb says that users are.
func (s *Source) passdb(p *section) {
	s.passdbs = append(s.passdbs, *p)
	driver := p.settings["driver"]
	fields := map[string]string{}
	for _, setting := range []string{"default_fields", "args", "override_fields"} {
		if setting == "args" && driver != "static" {
			continue
		}
		for _, field := range strings.Fields(p.settings[setting]) {
			key, value, _ := strings.Cut(field, "=")
			fields[key] = value
		}
	}
	if tag := fields["director_tag"]; tag != "" {
		s.note("passdb %s gives users the tag %s (director_tag)", driver, tag)
	}
	host := orText(fields["hostip"], fields["host"])
	_, always := fields["proxy"]
	_, maybe := fields["proxy_maybe"]
	switch {
	case !always && !maybe && driver == "static", s.director && host == "":
	case strings.Contains(host, "%"):
		s.note("passdb %s makes the host from the user's name (host=%s): write match routes, a map, or a route \"dovecot-auth\" that asks Dovecot", driver, host)
	case host != "":
		if ip, err := netip.ParseAddr(host); err == nil {
			host = ip.String()
		}
		s.constantHost = host
		s.host(host)
	case driver == "passwd-file":
		path := p.settings["args"]
		if i := strings.LastIndexByte(path, ' '); i >= 0 {
			path = path[i+1:]
		}
		s.note("its passdb is the passwd-file %s: import it with --passwd-file", path)
	case driver == "sql":
		s.note("its passdb is SQL (%s): if its password_query returns host, a route \"sql\" can ask the same database for the user's shard", p.settings["args"])
	case driver == "ldap":
		s.note("its passdb is LDAP (%s): if its pass_attrs name host, a route \"ldap\" or \"dovecot-auth\" can ask for it", p.settings["args"])
	case driver == "lua" || driver == "dict" || driver == "oauth2" || driver == "imap":
		s.note("its passdb is %s (%s): a route \"dovecot-auth\" can ask Dovecot where users are, if that passdb returns host", driver, p.settings["args"])
	}
}

func orText(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
