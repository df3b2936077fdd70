package access

import (
	"slices"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// FuzzDecide compares a decision with what docs/rights.md says, word by word and
// without any index. The lists are separated by commas, rules by semicolons:
// commands / users / dangers.
func FuzzDecide(f *testing.F) {
	f.Add("read,who/@b/;*//files", "expunge//", "a@b", "import maildir:x D all")
	f.Add("admin//;no-such//unknown", "/boss*/", "boss@b", "kick x")
	f.Add("*/a*,*c,@B/users", "", "A@b", "copy D user c all")
	f.Add("", "//settings;mail?*//", "x", "import -p a=b maildir:x D all")
	f.Add("copy,sync/?@b/hosts,programs", "", "é@b", "sync host")
	f.Fuzz(func(t *testing.T, allow, deny, user, line string) {
		if strings.TrimSpace(line) == "" || len(allow)+len(deny) > 200 {
			return
		}
		c := config.Client{Name: "c", Allow: parseRules(allow), Deny: parseRules(deny)}
		rules, err := New(new(router.Names), []config.Client{c}, nil)
		if err != nil {
			t.Fatal(err)
		}
		q := request("10.0.0.1", new(router.Names).User(user), line)
		if got, want := rules.Decide(q).Allowed, allowed(c, q); got != want {
			t.Errorf("allow %q, deny %q, %q for %q: %v, want %v", allow, deny, line, user, got, want)
		}
	})
}

func parseRules(text string) (all []config.Rule) {
	if text == "" {
		return nil
	}
	for one := range strings.SplitSeq(text, ";") {
		parts := strings.SplitN(one, "/", 3)
		list := func(i int) []string {
			if i >= len(parts) || parts[i] == "" {
				return nil
			}
			return strings.Split(parts[i], ",")
		}
		all = append(all, config.Rule{Commands: list(0), Users: list(1), Dangerous: list(2)})
	}
	return all
}

// allowed is the meaning of the rules of a client.
func allowed(c config.Client, q *Request) bool {
	for _, r := range c.Deny {
		named, matched := mentions(r, q)
		concerned := len(r.Users) == 0 || q.Effects.Everyone || among(r.Users, q.User) || q.Effects.OtherUser != "" && among(r.Users, q.Effects.OtherUser)
		if (named || matched) && concerned && (grants(r) == 0 || grants(r)&q.Effects.Danger != 0) {
			return false
		}
	}
	allow := c.Allow
	if len(allow) == 0 {
		allow = []config.Rule{{}}
	}
	return slices.ContainsFunc(allow, func(r config.Rule) bool {
		named, matched := mentions(r, q)
		if q.Command.Right == doveadm.RightAdmin && !isUnknown(q.Command) {
			matched = false
		}
		needed := q.Effects.Danger
		if isUnknown(q.Command) {
			matched = matched && grants(r)&doveadm.Unforeseen != 0
			if named {
				needed &^= doveadm.Unforeseen
			}
		}
		if !named && !matched || needed&^grants(r) != 0 {
			return false
		}
		return len(r.Users) == 0 || among(r.Users, q.User) && !q.Effects.Everyone && (q.Effects.OtherUser == "" || among(r.Users, q.Effects.OtherUser))
	})
}

// mentions says whether a rule has the command by its name or right, or by a
// pattern or because it has none.
func mentions(r config.Rule, q *Request) (named, matched bool) {
	for _, entry := range r.Commands {
		switch {
		case glob.HasWildcard(entry):
			matched = matched || glob.Match(entry, q.Name)
		case entry == q.Name, entry == q.Command.Right.String() && !isUnknown(q.Command):
			named = true
		}
	}
	return named, matched || len(r.Commands) == 0
}

func among(users []string, user string) bool {
	return slices.ContainsFunc(users, func(pattern string) bool {
		if strings.HasPrefix(pattern, "@") {
			pattern = "*" + pattern
		}
		return glob.Match(new(router.Names).User(pattern), user)
	})
}

// grants are the dangers of a rule. Other words the configuration refuses.
func grants(r config.Rule) (d doveadm.Danger) {
	for _, one := range doveadm.Dangers() {
		if slices.Contains(r.Dangerous, one.String()) {
			d |= one
		}
	}
	return d
}
