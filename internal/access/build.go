package access

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// New returns the rights of clients, for users in the normal form of names. It reads their files of users; all that
// is wrong with them is reported at once, joined.
func New(names *router.Names, clients []config.Client, shards []config.Shard) (*Rules, error) {
	b := builder{names: names, shards: shards, files: make(map[string][]string)}
	rules := &Rules{clients: make(map[string]*client, len(clients))}
	for _, c := range clients {
		built := new(client)
		built.deny = b.rules(c.Name, "deny", c.Deny)
		built.allow = b.rules(c.Name, "allow", c.Allow)
		if len(c.Allow) == 0 {
			built.allow = []rule{{name: "the default"}}
		}
		built.asksShard = slices.ContainsFunc(slices.Concat(built.allow, built.deny), func(r rule) bool { return r.shards != nil })
		rules.clients[c.Name] = built
	}
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	return rules, nil
}

type builder struct {
	names  *router.Names
	shards []config.Shard
	files  map[string][]string // patterns by path
	errs   []error
}

func (b *builder) rules(client, kind string, all []config.Rule) []rule {
	var built []rule
	for i, c := range all {
		r := rule{
			name:     fmt.Sprintf("%s #%d", kind, i+1),
			commands: newCommands(c.Commands),
			networks: c.Networks,
			shards:   b.shardNames(c, kind == "allow"),
		}
		for _, d := range doveadm.Dangers() {
			if slices.Contains(c.Dangerous, d.String()) {
				r.dangers |= d
			}
		}
		patterns := c.Users
		if c.UsersFile != "" {
			more, err := b.file(c.UsersFile)
			if err != nil {
				b.errs = append(b.errs, fmt.Errorf("client %q: %s: %w", client, r.name, err))
			}
			patterns = slices.Concat(patterns, more)
		}
		if c.UsersFile != "" || len(patterns) > 0 {
			set, err := b.users(patterns)
			if err != nil {
				b.errs = append(b.errs, fmt.Errorf("client %q: %s: %w", client, r.name, err))
			}
			r.users = &set
		}
		built = append(built, r)
	}
	return built
}

// users makes a set of what users and files of users hold.
func (b *builder) users(patterns []string) (glob.Set, error) {
	normal := make([]string, len(patterns))
	for i, p := range patterns {
		if strings.HasPrefix(p, "@") {
			p = "*" + p
		}
		var err error
		if normal[i], err = b.names.Pattern(p); err != nil {
			return glob.Set{}, err
		}
	}
	return glob.NewSet(normal), nil
}

// shardNames returns the shards that a rule is about, nil if it is about no
// particular one. Which backend of its shard a command will get is not known, so
// that an allow block has to name all of them.
func (b *builder) shardNames(c config.Rule, all bool) []string {
	if len(c.Shards) == 0 && len(c.Backends) == 0 {
		return nil
	}
	names := []string{}
	for _, s := range b.shards {
		if len(c.Shards) > 0 && !slices.Contains(c.Shards, s.Name) {
			continue
		}
		isNamed := func(backend config.Backend) bool { return slices.Contains(c.Backends, backend.Name) }
		named := slices.ContainsFunc(s.Backends, isNamed)
		if all {
			named = !slices.ContainsFunc(s.Backends, func(backend config.Backend) bool { return !isNamed(backend) })
		}
		if len(c.Backends) == 0 || named {
			names = append(names, s.Name)
		}
	}
	return names
}

func newCommands(list []string) *commands {
	if len(list) == 0 {
		return nil
	}
	c := &commands{known: make(map[*doveadm.CommandInfo]bool), unknown: make(map[string]bool)}
	for _, entry := range list {
		if glob.HasWildcard(entry) {
			c.patterns = append(c.patterns, entry)
		} else if _, ok := doveadm.LookupCommand(entry); !ok {
			c.unknown[entry] = true
		}
	}
	for _, info := range doveadm.Commands() {
		switch {
		case slices.Contains(list, info.Name) && isUnknown(info):
			c.unknown[info.Name] = true
		case slices.Contains(list, info.Name), slices.Contains(list, info.Right.String()):
			c.known[info] = true
		case slices.ContainsFunc(c.patterns, func(p string) bool { return glob.Match(p, info.Name) }):
			c.known[info] = false
		}
	}
	return c
}

// The longest user name or pattern in a file.
const maxUser = 1024 // bytes

// file returns the patterns of a file of users.
func (b *builder) file(path string) ([]string, error) {
	if patterns, ok := b.files[path]; ok {
		return patterns, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var patterns []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxUser)
	for number := 1; lines.Scan(); number++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		text = strings.TrimSpace(text)
		switch {
		case text == "":
		case text == "@":
			return nil, fmt.Errorf("%s:%d: no domain behind the @: write \"@example.com\", or \"*\" for everybody", path, number)
		case strings.ContainsAny(text, " \t"):
			return nil, fmt.Errorf("%s:%d: more than one word: write one user, pattern or @domain a line", path, number)
		default:
			patterns = append(patterns, text)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b.files[path] = patterns
	return patterns, nil
}
