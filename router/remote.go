package router

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/authmaster"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup/httpsource"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup/ldapsource"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup/sqlsource"
)

// remote asks a source.
type remote struct {
	label   string
	config  config.Route
	shards  []string
	lookups *lookups
	// By shard, made in advance so that a decision from the cache does not
	// allocate.
	decisions, stale map[string]Decision
}

// newSource makes the source of a route that asks outside the process; nil if
// it is of another kind. It opens nothing: what is wrong is wrong with the
// configuration.
func newSource(r config.Route) (Source, []error) {
	var source Source
	var err error
	switch r.Kind {
	case "sql":
		source, err = sqlsource.New(r.SQL, r.Lookup)
	case "ldap":
		source, err = ldapsource.New(r.LDAP, r.Lookup)
	case "http":
		source, err = httpsource.New(r.HTTP, r.Lookup)
	case "dovecot-auth":
		source = authmaster.NewSource(r.Auth)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, []error{err}
	}
	return source, nil
}

// kinds are the kinds of routes.
const kinds = "match, file, sql, ldap, http, dovecot-auth or ring"

// remoteName names a route that asks elsewhere by its kind, and by its number
// from the second one on.
func remoteName(r config.Route, before []config.Route) string {
	n := 1
	for _, b := range before {
		if b.Kind == r.Kind {
			n++
		}
	}
	if n > 1 {
		return fmt.Sprintf("%s #%d", r.Kind, n)
	}
	return r.Kind
}

// newRemote makes the route that asks source, with the lookups of before if
// there is one that asks the same.
func newRemote(name string, r config.Route, shards []string, source Source, before *Table) *remote {
	n := &remote{
		label: name, config: r, shards: shards,
		decisions: make(map[string]Decision, len(shards)), stale: make(map[string]Decision, len(shards)),
	}
	for _, shard := range shards {
		n.decisions[shard] = Decision{Shard: shard, Route: name, Reason: "the lookup names " + shard}
		n.stale[shard] = Decision{Shard: shard, Route: name, Reason: "the last lookup that worked named " + shard + "; lookups fail"}
	}
	if n.lookups = before.lookups(r); n.lookups != nil {
		source.Close()
	} else {
		n.lookups = newLookups(source, r.Lookup)
	}
	n.lookups.share()
	return n
}

// lookups returns those of a route like r, nil if there are none.
func (t *Table) lookups(r config.Route) *lookups {
	if t == nil {
		return nil
	}
	for _, route := range t.routes {
		if n, ok := route.(*remote); ok && reflect.DeepEqual(n.config, r) {
			return n.lookups
		}
	}
	return nil
}

func (r *remote) name() string { return r.label }

func (r *remote) decide(ctx context.Context, user string) (Decision, bool, error) {
	a, err := r.lookups.get(ctx, user)
	if err != nil || !a.found {
		return Decision{}, false, err
	}
	decisions := r.decisions
	if a.stale {
		decisions = r.stale
	}
	d, ok := decisions[a.place.Shard]
	if !ok && a.place.Target != nil {
		d, err = r.aim(a.place.Target, decisions)
		ok = err == nil
		if !ok && a.age > r.config.Lookup.Cache.NegativeTTL {
			r.lookups.forget(user)
		}
		return d, ok, err
	}
	if !ok {
		if a.age > r.config.Lookup.Cache.NegativeTTL {
			r.lookups.forget(user) // it may have been put right
		}
		return Decision{}, false, fmt.Errorf("the lookup names what is not there: %w", checkShard(a.place.Shard, r.shards))
	}
	return d, true, nil
}

// aim decides for a server that an answer names by its address: the shard that
// has it, or itself.
func (r *remote) aim(t *lookup.Target, decisions map[string]Decision) (Decision, error) {
	for _, address := range t.Addresses {
		if shard, ok := r.config.Lookup.Backends[address]; ok {
			d := decisions[shard]
			if t.User != "" {
				d.Target = t
			}
			return d, nil
		}
	}
	if !t.IP.IsValid() {
		return Decision{}, fmt.Errorf("the lookup names %q, and no backend has this address: only IP addresses in networks may be named that no backend has", t.Address())
	}
	for _, network := range r.config.Lookup.Networks {
		if network.Contains(t.IP) {
			return Decision{Route: r.label, Reason: "the lookup names a server that no shard has, in networks of the route", Target: t}, nil
		}
	}
	return Decision{}, fmt.Errorf("the lookup names %q, and no backend has this address, nor do networks of the route have it", t.Address())
}

func (r *remote) explain(ctx context.Context, user string) (string, error) {
	a, err := r.lookups.get(ctx, user)
	if err != nil {
		return "", err
	}
	text := "the lookup does not know the user"
	if a.found {
		text = "the lookup names " + a.place.Shard
		if t := a.place.Target; t != nil && a.place.Shard == "" {
			text += t.Address()
			if t.User != "" {
				text += fmt.Sprintf(", as user %q", t.User)
			}
		}
	}
	if a.age > 0 {
		text += fmt.Sprintf(", as of %s ago", a.age.Round(time.Millisecond))
	}
	if a.stale {
		text += fmt.Sprintf("; that is too old, but the lookup fails: %v", a.err)
	}
	return text, nil
}

func (r *remote) close() { r.lookups.release() }

// Forget drops what routes keep of their sources about a user, in normal form,
// or about all users if it is empty. Decisions that follow are newly asked for.
func (t *Table) Forget(user string) {
	t.changes.Add(1)
	for _, route := range t.routes {
		if r, ok := route.(*remote); ok {
			r.lookups.forget(user)
		}
	}
}

// Changes grows when an answer may have become another before its time: with
// each Forget, and each change that a source tells of.
func (t *Table) Changes() uint64 {
	n := t.changes.Load()
	for _, l := range t.remotes {
		n += l.changes.Load()
	}
	return n
}

// ErrClosed says that the table was closed: another one has taken its place.
var ErrClosed = errors.New("the routing table is closed")
