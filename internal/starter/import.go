package starter

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Site makes a configuration of all that was read. Shards are named s1, s2, ...
// in the order in which the hosts were named.
func (s *Source) Site() (Site, error) {
	switch {
	case len(s.hosts) == 0 && len(s.passdbs) > 0:
		return Site{}, errors.Join(append([]error{errors.New("nothing in it names a backend")}, textErrors(s.notes)...)...)
	case len(s.hosts) == 0:
		return Site{}, errors.New("nothing in it names a backend: it has neither director_mail_servers nor a passdb with proxy and host")
	case s.pinned && s.director:
		return Site{}, errors.New("a passwd-file that says the host of each user, and a director that hashes them: import one of the two")
	}
	site := Site{Username: s.Username, TLS: s.TLS, From: s.from, Notes: slices.Clone(s.notes)}
	port := s.Port
	if port == "" {
		port = DefaultPort
		site.Notes = append(site.Notes, "the port of the backends' doveadm listeners is not known: "+port+" is a guess; --backend-port says it")
	}
	shardOf := map[string]string{}
	for i, h := range s.hosts {
		shard := Shard{Name: fmt.Sprintf("s%d", i+1), Weight: h.Weight}
		name := backendName(orText(h.Name, h.IP), i+1)
		if h.Name != "" && slices.ContainsFunc(site.Shards, func(o Shard) bool { return o.Backends[0].Name == name }) {
			name = fmt.Sprintf("%s-%d", name, i+1) // a name with several addresses
		}
		var comments []string
		if h.Name != "" && h.Name != h.IP {
			comments = append(comments, h.Name)
		}
		if h.Tag != "" {
			comments = append(comments, "tag "+h.Tag)
		}
		if h.Weight != 100 {
			comments = append(comments, fmt.Sprintf("%d vhosts", h.Weight))
		}
		shard.Comment = strings.Join(comments, ", ")
		shard.Backends = []Backend{{name, net.JoinHostPort(h.IP, port)}}
		shardOf[h.IP] = shard.Name
		site.Shards = append(site.Shards, shard)
	}
	if s.pinned {
		site.Users = ByMap
	}
	for _, u := range s.users {
		shard, ok := shardOf[u.host]
		if !ok {
			return Site{}, fmt.Errorf("user %s is on %s, which the director no longer has: move the user, or wait until the director forgets it", u.user, u.host)
		}
		if problem := mapUser(u.user); problem != "" {
			site.Notes = append(site.Notes, fmt.Sprintf("user %q is left out of the map: %s", u.user, problem))
			continue
		}
		site.Map = append(site.Map, MapRow{u.user, shard})
	}
	if s.hostless > 0 {
		site.Notes = append(site.Notes, fmt.Sprintf("%d users of the passwd-file have no proxy and host: they are not in the map, so the proxy does not know them", s.hostless))
	}
	if s.unnamed > 0 {
		site.Notes = append(site.Notes, fmt.Sprintf("the director's map has %d users without names: if one of them was moved by hand, it would go back. "+
			"\"doveadm director map -f FILE\" with all users' names in FILE names them", s.unnamed))
	}
	if s.constantHost != "" && !s.pinned && !s.director {
		site.Users = ByMap
		site.Map = append(site.Map, MapRow{"*", shardOf[s.constantHost]})
	}
	if s.director {
		s.directorRoutes(&site)
	}
	return site, nil
}

// mapUser says why a user cannot stand in a map of users, or nothing.
func mapUser(user string) string {
	switch {
	case strings.ContainsAny(user, " \t"):
		return "a map has no names with spaces; write a match route"
	case strings.ContainsRune(user, '*') || user[0] == '@' || user[0] == '#':
		return "it would mean something else there; write a match route"
	}
	return ""
}

func textErrors(texts []string) []error {
	var errs []error
	for _, text := range texts {
		errs = append(errs, errors.New(text))
	}
	return errs
}

// Read notes where something was read from, for the comment at the top.
func (s *Source) Read(what string) { s.from = append(s.from, what) }
