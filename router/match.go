package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/glob"
)

// match gives the users of some patterns to one shard.
type match struct {
	label     string
	patterns  []string
	decisions []Decision // one a pattern
}

func newMatch(name string, r config.Route, names *Names, shards []string) (*match, []error) {
	m := &match{label: name}
	var errs []error
	if len(r.Users) == 0 {
		errs = append(errs, errors.New(`no pattern in users: write one like "*@example.com"`))
	}
	for _, pattern := range r.Users {
		normal, err := names.Pattern(pattern)
		if err := cmp.Or(checkPattern(pattern), err); err != nil {
			errs = append(errs, err)
		}
		m.patterns = append(m.patterns, normal)
		m.decisions = append(m.decisions, Decision{r.Shard, name, fmt.Sprintf("%q matches the user", pattern)})
	}
	if err := checkShard(r.Shard, shards); err != nil {
		errs = append(errs, err)
	}
	return m, errs
}

func checkPattern(pattern string) error {
	switch {
	case pattern == "":
		return errors.New(`an empty pattern matches nobody: write "*" for everybody, or remove it`)
	case strings.ContainsFunc(pattern, isControl):
		return fmt.Errorf("pattern %q contains a control character, no user name does: remove it", pattern)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func (m *match) name() string { return m.label }

func (m *match) decide(_ context.Context, user string) (Decision, bool, error) {
	for i, pattern := range m.patterns {
		if glob.Match(pattern, user) {
			return m.decisions[i], true, nil
		}
	}
	return Decision{}, false, nil
}

func (m *match) explain(ctx context.Context, user string) (string, error) {
	if d, ok, _ := m.decide(ctx, user); ok {
		return d.Reason, nil
	}
	return "no pattern matches the user", nil
}

func (m *match) close() {}
