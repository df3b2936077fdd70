package router

import (
	"context"
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// file looks a user up in a map: first the user, then @domain, then the
// default.
type file struct {
	label string
	from  *liveMap
	// Indexed by shard, made in advance so that a decision does not allocate.
	byUser, byDomain, byDefault []Decision
}

// newFile reads a map, unless the table before has it already.
func newFile(name string, r config.Route, names *Names, shards []string, before *Table) (*file, []error) {
	from := before.sharedMap(r, names, shards)
	if from == nil {
		var errs []error
		if from, errs = openLiveMap(r, names, shards); errs != nil {
			return nil, errs
		}
	}
	f := &file{label: name, from: from}
	for _, shard := range shards {
		f.byUser = append(f.byUser, Decision{Shard: shard, Route: name, Reason: "the map has a line for the user"})
		f.byDomain = append(f.byDomain, Decision{Shard: shard, Route: name, Reason: "the map has a line for the user's domain"})
		f.byDefault = append(f.byDefault, Decision{Shard: shard, Route: name, Reason: "the map has a default line (*)"})
	}
	return f, nil
}

// sharedMap returns the map of a table if it is still the same, with one more
// owner.
func (t *Table) sharedMap(r config.Route, names *Names, shards []string) *liveMap {
	if t == nil {
		return nil
	}
	for _, route := range t.routes {
		if f, ok := route.(*file); ok && f.from.share(r, names, shards) {
			return f.from
		}
	}
	return nil
}

func (f *file) name() string { return f.label }

func (f *file) decide(_ context.Context, user string) (Decision, bool, error) {
	_, decisions, shard, err := f.find(f.from.now.Load(), user)
	if err != nil || decisions == nil {
		return Decision{}, false, err
	}
	return decisions[shard], true, nil
}

func (f *file) explain(_ context.Context, user string) (string, error) {
	m := f.from.now.Load()
	key, decisions, shard, err := f.find(m, user)
	switch {
	case err != nil:
		return "", err
	case decisions == nil:
		return "the map has no line for the user or its domain, and no default line (*)", nil
	}
	if line := m.line(key); line > 0 {
		return fmt.Sprintf("%s: line %d", decisions[shard].Reason, line), nil
	}
	return decisions[shard].Reason, nil
}

func (f *file) close() { f.from.leave() }

// find returns what of the user is in the map, the decisions for that and the
// shard, which is the index of one; no decisions if nothing is.
func (f *file) find(m users, user string) (key string, decisions []Decision, shard uint32, err error) {
	if shard, ok, err := m.find(user); ok || err != nil {
		return user, f.byUser, shard, err
	}
	if at := strings.IndexByte(user, '@'); at >= 0 {
		if shard, ok, err := m.find(user[at:]); ok || err != nil {
			return user[at:], f.byDomain, shard, err
		}
	}
	if shard, ok, err := m.find(defaultUser); ok || err != nil {
		return defaultUser, f.byDefault, shard, err
	}
	return "", nil, 0, nil
}
