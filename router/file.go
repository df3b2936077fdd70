package router

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// file looks a user up in a map: first the user, then @domain, then the
// default.
type file struct {
	label string
	users *userMap
	// Indexed by shard, made in advance so that a decision does not allocate.
	byUser, byDomain, byDefault []Decision
}

func newFile(name string, r config.Route, names *Names, shards []string) (*file, []error) {
	opened, err := os.Open(r.Path)
	if err != nil {
		return nil, []error{fmt.Errorf("cannot read the map: %w", err)}
	}
	defer opened.Close()
	users, errs := readUserMap(opened, names, shards)
	f := &file{label: name, users: users}
	for _, shard := range shards {
		f.byUser = append(f.byUser, Decision{shard, name, "the map has a line for the user"})
		f.byDomain = append(f.byDomain, Decision{shard, name, "the map has a line for the user's domain"})
		f.byDefault = append(f.byDefault, Decision{shard, name, "the map has a default line (*)"})
	}
	return f, errs
}

func (f *file) name() string { return f.label }

func (f *file) decide(_ context.Context, user string) (Decision, bool, error) {
	e, decisions := f.find(user)
	if decisions == nil {
		return Decision{}, false, nil
	}
	return decisions[e.shard], true, nil
}

func (f *file) explain(_ context.Context, user string) (string, error) {
	e, decisions := f.find(user)
	if decisions == nil {
		return "the map has no line for the user or its domain, and no default line (*)", nil
	}
	return fmt.Sprintf("%s: line %d", decisions[e.shard].Reason, e.line), nil
}

func (f *file) close() {}

// find returns the entry for a user and the decisions it chooses from; nil if
// there is none.
func (f *file) find(user string) (mapEntry, []Decision) {
	if e, ok := f.users.lookup(user); ok {
		return e, f.byUser
	}
	if at := strings.IndexByte(user, '@'); at >= 0 {
		if e, ok := f.users.lookup(user[at:]); ok {
			return e, f.byDomain
		}
	}
	if e, ok := f.users.lookup(defaultUser); ok {
		return e, f.byDefault
	}
	return mapEntry{}, nil
}
