package proxy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// Change is one thing that a reload would change.
type Change struct {
	What   string `json:"what"` // backend, shard, listener, client, route, or the name of another block
	Name   string `json:"name,omitempty"`
	How    string `json:"how"`              // added, removed, changed
	Detail string `json:"detail,omitempty"` // what of it, and what follows from that
}

// Plan returns what a Reload with cfg would change, and how many backends would
// keep their pool. It changes nothing. The error is one for which Reload would
// refuse cfg.
func (p *Proxy) Plan(cfg *config.Config) (changes []Change, kept int, err error) {
	if err := Validate(cfg); err != nil {
		return nil, 0, err
	}
	snap := p.snapshot.Load()
	now := snap.config
	pl := new(plan)
	compare(pl, "listener", now.Listeners, cfg.Listeners, func(l config.Listener) string { return l.Name }, func(a, b config.Listener) string {
		if listenerKey(a) != listenerKey(b) {
			return "opened at the new address; sessions of the old one go on"
		}
		return "for new sessions"
	})
	compare(pl, "client", now.Clients, cfg.Clients, func(c config.Client) string { return c.Name }, func(_, _ config.Client) string { return "for the next commands, of open sessions too" })
	compare(pl, "shard", bare(now.Shards), bare(cfg.Shards), func(s config.Shard) string { return s.Name }, nil)
	before, after := members(now.Shards), members(cfg.Shards)
	compare(pl, "backend", before, after, func(m planned) string { return m.Backend.Name }, func(a, b planned) string {
		if sameBackend(a.Backend, b.Backend) {
			return "the pool is kept"
		}
		return "a new pool; the connections of the old one close as their commands end"
	})
	for _, b := range after {
		was, ok := snap.backends()[b.Backend.Name]
		if ok && sameBackend(was.config, b.Backend) {
			kept++
		}
	}
	pl.routes(now.Routes, cfg.Routes)
	a, b := reflect.ValueOf(*now), reflect.ValueOf(*cfg)
	for i := range a.NumField() {
		if a.Field(i).Kind() != reflect.Struct {
			continue
		}
		if d := differences(a.Field(i), b.Field(i), ""); len(d) > 0 {
			pl.add(snake(a.Type().Field(i).Name), "", "changed", strings.Join(d, ", "))
		}
	}
	return pl.changes, kept, nil
}

type plan struct{ changes []Change }

func (p *plan) add(what, name, how, detail string) {
	p.changes = append(p.changes, Change{what, name, how, detail})
}

// routes says which of the routes, by their place, are others.
func (p *plan) routes(now, then []config.Route) {
	for i := range max(len(now), len(then)) {
		name := fmt.Sprint(i + 1)
		switch {
		case i >= len(now):
			p.add("route", name, "added", then[i].Kind)
		case i >= len(then):
			p.add("route", name, "removed", now[i].Kind)
		case !reflect.DeepEqual(now[i], then[i]):
			p.add("route", name, "changed", strings.Join(differences(reflect.ValueOf(now[i]), reflect.ValueOf(then[i]), ""), ", "))
		}
	}
}

// compare adds what is different between two lists of blocks with names.
func compare[T any](p *plan, what string, now, then []T, name func(T) string, follows func(a, b T) string) {
	find := func(all []T, n string) (T, bool) {
		i := slices.IndexFunc(all, func(one T) bool { return name(one) == n })
		if i < 0 {
			var none T
			return none, false
		}
		return all[i], true
	}
	for _, a := range now {
		b, ok := find(then, name(a))
		if !ok {
			p.add(what, name(a), "removed", "")
			continue
		}
		d := differences(reflect.ValueOf(a), reflect.ValueOf(b), "")
		if len(d) == 0 {
			continue
		}
		detail := strings.Join(d, ", ")
		if follows != nil {
			detail += ": " + follows(a, b)
		}
		p.add(what, name(a), "changed", detail)
	}
	for _, b := range then {
		if _, ok := find(now, name(b)); !ok {
			p.add(what, name(b), "added", "")
		}
	}
}

// planned is a backend with its shard.
type planned struct {
	Shard   string
	Backend config.Backend
}

func members(shards []config.Shard) []planned {
	var all []planned
	for _, s := range shards {
		for _, b := range s.Backends {
			all = append(all, planned{s.Name, b})
		}
	}
	return all
}

// bare returns the shards without their backends.
func bare(shards []config.Shard) []config.Shard {
	all := slices.Clone(shards)
	for i := range all {
		all[i].Backends = nil
	}
	return all
}

// differences names what of two values is different, as the attributes are
// called, with both values where they are short and no secret.
func differences(a, b reflect.Value, name string) []string {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return nil
	}
	short := func(v reflect.Value) (string, bool) {
		switch x := v.Interface().(type) {
		case config.Secret:
			return "", false
		case time.Duration:
			return x.String(), true
		}
		switch v.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64, reflect.Uint32:
			return fmt.Sprint(v.Interface()), true
		}
		return "", false
	}
	if _, secret := a.Interface().(config.Secret); a.Kind() == reflect.Struct && !secret {
		var all []string
		for i := range a.NumField() {
			if field := a.Type().Field(i); field.IsExported() {
				inner := snake(field.Name)
				if name != "" {
					inner = name + "." + inner
				}
				all = append(all, differences(a.Field(i), b.Field(i), inner)...)
			}
		}
		if len(all) > 0 {
			return all
		}
	}
	x, ok := short(a)
	y, _ := short(b)
	switch {
	case !ok:
		return []string{name}
	case x == "":
		return []string{fmt.Sprintf("%s = %s", name, y)}
	case y == "":
		return []string{name + " removed"}
	}
	return []string{fmt.Sprintf("%s %s -> %s", name, x, y)}
}

// snake is the name of a field as the configuration writes it.
func snake(name string) string {
	var b strings.Builder
	last := rune(0)
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 && (unicode.IsLower(last) || i+1 < len(name) && unicode.IsLower(rune(name[i+1]))) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
		last = r
	}
	return b.String()
}
