package lookup

import "strings"

// Expand puts a user into a template: %u is the user, %n and %d are what is
// before and after its first @. escape makes each of them a value of the
// language that the template is of.
func Expand(template, user string, escape func(string) string) string {
	name, domain, _ := strings.Cut(user, "@")
	return strings.NewReplacer("%u", escape(user), "%n", escape(name), "%d", escape(domain)).Replace(template)
}
