package starter

import (
	"fmt"
	"slices"
	"strings"
)

// directorRoutes adds the rings of a director. Who has which tag its passdb
// knows (director_tag): only the ring of those without a tag is complete.
func (s *Source) directorRoutes(site *Site) {
	site.Users = ByDirector
	var tags []string
	for _, h := range s.hosts {
		if !slices.Contains(tags, h.Tag) {
			tags = append(tags, h.Tag)
		}
	}
	slices.Sort(tags)
	last := tags[0] // no tag, if there are hosts without one
	for _, tag := range tags[1:] {
		site.Routes = append(site.Routes, Route{
			Comment: fmt.Sprintf("Users to whom the director's passdb gave director_tag=%s: say who they are, and remove the #.", tag),
			Text:    "# " + strings.ReplaceAll(strings.ReplaceAll(s.ring(site, tag, "  users         = [\"*@example.com\"]\n"), "\n", "\n# "), "# \n", "#\n"),
		})
		site.Notes = append(site.Notes, fmt.Sprintf("there are hosts with the tag %s: their ring is commented out until it says which users have that tag (director_tag of the passdb)", tag))
	}
	site.Routes = append(site.Routes, Route{
		Comment: "Everybody else where the Dovecot director has them, by the same hash. A server stays in the ring with the address and vhosts that the director knows: change them, and users move.",
		Text:    s.ring(site, last, ""),
	})
}

// ring returns the ring of the hosts with a tag. The director hashes the text
// of their addresses.
func (s *Source) ring(site *Site, tag, whom string) string {
	var w writer
	w.line("route \"ring\" {")
	w.line("  algorithm     = \"director\"")
	w.line("  username_hash = %s", quote(orText(s.HashFormat, "%Lu")))
	if tag != "" {
		w.line("  tag           = %s", quote(tag))
	}
	w.WriteString(whom)
	for i, h := range s.hosts {
		if h.Tag != tag {
			continue
		}
		w.line("")
		w.line("  server %s {", quote(h.IP))
		w.line("    shard  = %s", quote(site.Shards[i].Name))
		w.line("    vhosts = %d", h.Weight)
		if tag != "" {
			w.line("    tag    = %s", quote(tag))
		}
		w.line("  }")
	}
	w.WriteString("}")
	return w.String()
}
