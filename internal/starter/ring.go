package starter

import (
	"fmt"
	"slices"
	"strings"
)

// directorRoutes adds the rings of a director, one for each tag.
func (s *Source) directorRoutes(site *Site) {
	site.Users = ByDirector
	var tags []string
	for _, h := range s.hosts {
		if !slices.Contains(tags, h.Tag) {
			tags = append(tags, h.Tag)
		}
	}
	var shards []string
	for i := range s.hosts {
		shards = append(shards, quote(site.Shards[i].Name))
	}
	site.Routes = append(site.Routes, Route{
		Comment: "Everybody else where the Dovecot director has them, by the same hash.",
		Text:    fmt.Sprintf("route \"ring\" {\n  shards = [%s]\n}", strings.Join(shards, ", ")),
	})
}
