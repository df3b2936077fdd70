package router

import (
	"context"
	"errors"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// match gives users to one shard by their names.
type match struct {
	label     string
	users     *selector
	decisions []Decision // one a clause of the selector
}

func newMatch(name string, r config.Route, names *Names, shards []string) (*match, []error) {
	m := &match{label: name}
	var errs []error
	if m.users, errs = newSelector(r.Match, names); m.users == nil {
		errs = append(errs, errors.New(`no pattern in users: write one like "*@example.com"`))
	} else {
		for _, clause := range m.users.clauses {
			m.decisions = append(m.decisions, Decision{Shard: r.Shard, Route: name, Reason: clause})
		}
	}
	if err := checkShard(r.Shard, shards); err != nil {
		errs = append(errs, err)
	}
	return m, errs
}

func (m *match) name() string { return m.label }

func (m *match) decide(_ context.Context, user string) (Decision, bool, error) {
	if i := m.users.selects(user); i >= 0 {
		return m.decisions[i], true, nil
	}
	return Decision{}, false, nil
}

func (m *match) explain(ctx context.Context, user string) (string, error) {
	if d, ok, _ := m.decide(ctx, user); ok {
		return d.Reason, nil
	}
	return "it does not match the user", nil
}

func (m *match) close() {}
