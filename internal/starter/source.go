package starter

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Source collects what other software says about the cluster: the outputs and
// files of a Dovecot director or proxy, in any order and combination. Site makes
// a configuration of it.
type Source struct {
	// Resolve looks up a host name, as a director does of its mail servers.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)

	hosts   []Host          // in the order in which they were named
	weights map[string]bool // hosts from a dump, whose weights count
	users   []userHost      // from passwd-files and director maps
	pinned  bool            // users are from a passwd-file: there is no hash
	mapped  bool            // there is a director's map

	unnamed  int // users of a map without a name
	hostless int // users of a passwd-file without a host

	// From doveconf.
	Port         string // doveadm_port
	HashFormat   string // director_username_hash
	Username     string // doveadm_username
	TLS          string // off, implicit or starttls
	hasPassword  bool
	director     bool
	constantHost string // all users are there
	passdbs      []section
	from         []string
	notes        []string
}

// Host is a mail server of a director.
type Host struct {
	IP     string // as the director writes it, which is what it hashes
	Name   string // the host name it was named by, or empty
	Tag    string
	Weight int // its vhost count
}

type userHost struct{ user, host string }

func (s *Source) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// Hosts returns what was found so far.
func (s *Source) Hosts() []Host { return s.hosts }

// host returns the host of an address, which is new if it was not named before.
func (s *Source) host(ip string) *Host {
	i := slices.IndexFunc(s.hosts, func(h Host) bool { return h.IP == ip })
	if i < 0 {
		s.hosts = append(s.hosts, Host{IP: ip, Weight: 100})
		i = len(s.hosts) - 1
	}
	return &s.hosts[i]
}

const maxRange = 4096 // hosts of a range, each of which becomes a shard

// MailServers reads a value of director_mail_servers: addresses, ranges of
// addresses and host names, each with @tag behind it if it has a tag.
func (s *Source) MailServers(ctx context.Context, value string) error {
	s.director = true
	for _, word := range strings.Fields(value) {
		where, tag, _ := strings.Cut(word, "@")
		if ip, err := netip.ParseAddr(where); err == nil {
			s.add(ip, "", tag)
			continue
		}
		if low, high, ok := strings.Cut(where, "-"); ok {
			first, err1 := netip.ParseAddr(low)
			last, err2 := netip.ParseAddr(high)
			if err1 == nil && err2 == nil {
				if err := s.addRange(first, last, tag); err != nil {
					return fmt.Errorf("director_mail_servers: %s: %w", word, err)
				}
				continue
			}
		}
		// A director takes all addresses of a name, and hashes these.
		ips, err := s.Resolve(ctx, where)
		if err != nil {
			return fmt.Errorf("director_mail_servers: %s: %w: the director hashes the addresses of its hosts, so they are needed: "+
				"run this where the name is known, or write the addresses in its place", word, err)
		}
		for _, ip := range ips {
			s.add(ip.Unmap(), where, tag)
		}
	}
	if len(s.hosts) == 0 {
		return fmt.Errorf("director_mail_servers: no server in %q", value)
	}
	return nil
}

func (s *Source) add(ip netip.Addr, name, tag string) {
	h := s.host(ip.String())
	h.Name = cmp.Or(h.Name, name)
	if !s.weights[h.IP] { // a dump knows better
		h.Tag = tag
	}
}

func (s *Source) addRange(first, last netip.Addr, tag string) error {
	switch {
	case first.Is4() != last.Is4():
		return fmt.Errorf("one end of the range is IPv4, the other IPv6")
	case last.Less(first):
		return fmt.Errorf("the range is the wrong way round")
	}
	for n, ip := 0, first; ; n, ip = n+1, ip.Next() {
		if n == maxRange {
			return fmt.Errorf("more than %d addresses", maxRange)
		}
		s.add(ip, "", tag)
		if ip == last {
			return nil
		}
	}
}

// Dump reads the output of "doveadm director dump", as doveadm prints it for
// people, or with -f tab. Its weights and tags are those in force, so they win
// over director_mail_servers.
func (s *Source) Dump(text []byte) error {
	s.director = true
	if s.weights == nil {
		s.weights = map[string]bool{}
	}
	found := 0
	for number, line := range lines(text) {
		words := strings.Fields(line)
		if len(words) > 2 && words[0] == "doveadm" && words[1] == "director" {
			words = words[2:]
		}
		if len(words) > 3 && words[1] == "-a" {
			words = slices.Delete(words, 1, 3)
		} else if len(words) == 4 && strings.HasPrefix(words[1], "/") { // -f tab
			words = slices.Delete(words, 1, 2)
		}
		if len(words) == 0 || words[0] == "command" {
			continue
		}
		if words[0] != "add" || len(words) != 3 {
			return fmt.Errorf("line %d: %q is no line of doveadm director dump: they look like \"doveadm director add 10.0.0.1@tag 100\"", number, line)
		}
		where, tag, _ := strings.Cut(words[1], "@")
		ip, err := netip.ParseAddr(where)
		if err != nil {
			return fmt.Errorf("line %d: %q is no address", number, where)
		}
		weight, err := strconv.Atoi(words[2])
		if err != nil || weight < 0 {
			return fmt.Errorf("line %d: %q is no vhost count", number, words[2])
		}
		h := s.host(ip.String())
		h.Tag, h.Weight = tag, weight
		s.weights[h.IP] = true
		found++
	}
	if found == 0 {
		return fmt.Errorf("no host in it: it has to be the output of \"doveadm director dump\"")
	}
	// What is in the setting only has been removed by hand since.
	s.hosts = slices.DeleteFunc(s.hosts, func(h Host) bool {
		if !s.weights[h.IP] {
			s.note("%s is in director_mail_servers but not in the dump: it was left out", h.IP)
		}
		return !s.weights[h.IP]
	})
	return nil
}

// Map reads the output of "doveadm director map": where the director has its
// users now.
func (s *Source) Map(text []byte) error {
	s.director, s.mapped = true, true
	for number, line := range lines(text) {
		columns := strings.Split(line, "\t")
		if len(columns) != 4 {
			columns = tableRow(line)
		}
		if len(columns) == 4 && columns[0] == "user" && columns[1] == "hash" || strings.TrimSpace(line) == "" {
			continue
		}
		ip, err := netip.Addr{}, error(nil)
		if len(columns) == 4 {
			ip, err = netip.ParseAddr(columns[2])
		}
		if len(columns) != 4 || err != nil {
			return fmt.Errorf("line %d: %q is no line of doveadm director map: they have user, hash, mail server ip and expire time", number, line)
		}
		if columns[0] == "<unknown>" {
			s.unnamed++
			continue
		}
		s.users = append(s.users, userHost{columns[0], ip.String()})
	}
	return nil
}

// tableRow splits a line of doveadm's table from its end: a user may have
// spaces, and the time has one.
func tableRow(line string) []string {
	words := strings.Fields(line)
	if len(words) > 0 && words[0] == "user" && strings.HasSuffix(line, "expire time        ") || strings.HasPrefix(line, "user ") && strings.Contains(line, "mail server ip") {
		return []string{"user", "hash", "", ""}
	}
	if len(words) < 5 {
		return nil
	}
	n := len(words)
	// The name ends where the hash begins, and may have spaces of its own.
	rest := strings.TrimRight(line, " ")
	for _, word := range []string{words[n-1], words[n-2], words[n-3], words[n-4]} {
		rest = strings.TrimRight(strings.TrimSuffix(rest, word), " ")
	}
	return []string{rest, words[n-4], words[n-3], words[n-2] + " " + words[n-1]}
}

// PasswdFile reads a passwd-file of a Dovecot proxy, whose extra fields say
// where each user is: "user:password:::::: proxy=y host=10.0.0.1".
func (s *Source) PasswdFile(text []byte) error {
	s.pinned = true
	ports := map[string]bool{}
	for number, line := range lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		columns := strings.SplitN(line, ":", 8)
		user := columns[0]
		if user == "" {
			return fmt.Errorf("line %d: no user", number)
		}
		fields := map[string]string{}
		if len(columns) == 8 {
			for _, field := range strings.Fields(columns[7]) {
				key, value, _ := strings.Cut(field, "=")
				fields[key] = value
			}
		}
		host := cmp.Or(fields["hostip"], fields["host"])
		_, always := fields["proxy"]
		_, maybe := fields["proxy_maybe"]
		if host == "" || !always && !maybe {
			s.hostless++
			continue
		}
		if strings.Contains(host, "%") {
			return fmt.Errorf("line %d: host=%s has a variable: only Dovecot knows its value; a route \"dovecot-auth\" asks it", number, host)
		}
		if fields["port"] != "" {
			ports[fields["port"]] = true
		}
		if fields["destuser"] != "" && fields["destuser"] != user {
			s.note("%s has destuser=%s: the proxy would send it as %s", user, fields["destuser"], user)
		}
		if ip, err := netip.ParseAddr(host); err == nil {
			host = ip.String()
		}
		s.host(host)
		s.users = append(s.users, userHost{user, host})
	}
	if len(s.users) == 0 {
		return fmt.Errorf("no user of it has proxy and host= among its extra fields, as in \"ann:{PLAIN}secret:::::: proxy=y host=10.0.0.1\"")
	}
	if len(ports) > 0 {
		s.note("the passdb's port= is that of IMAP or another login service: the port of doveadm is taken from doveadm_port, or --backend-port")
	}
	return nil
}

// lines yields the lines of a text with their numbers.
func lines(text []byte) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		scanner := bufio.NewScanner(bytes.NewReader(text))
		scanner.Buffer(nil, len(text)+1)
		for n := 1; scanner.Scan(); n++ {
			if !yield(n, strings.TrimSuffix(scanner.Text(), "\r")) {
				return
			}
		}
	}
}
