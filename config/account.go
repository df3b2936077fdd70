package config

import (
	"net/netip"
	"net/url"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// Account is a user or a group of this system.
type Account struct {
	Name string // as it is written
	ID   uint32
}

func lookupUser(name string) (id string, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}

func lookupGroup(name string) (id string, err error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", err
	}
	return g.Gid, nil
}

// accounts is a list of users or groups by name or number.
func accounts(to *[]Account, lookup func(name string) (id string, err error)) field {
	var list []string
	f := texts(&list)
	f.takes = "a list of names or numbers"
	read := f.set
	f.set = func(v value) *problem {
		list = nil
		if p := read(v); p != nil {
			return p
		}
		var all []Account
		for i, name := range list {
			id, err := strconv.ParseUint(name, 10, 32)
			if err != nil {
				var text string
				if text, err = lookup(name); err == nil {
					id, err = strconv.ParseUint(text, 10, 32)
				}
			}
			if err != nil {
				p := &problem{summary: "Not known on this system", detail: "There is no user or group of this name here. Write one that is there, or its number."}
				p.at = &v.is.([]value)[i].rng
				return p
			}
			all = append(all, Account{name, uint32(id)})
		}
		*to = all
		return nil
	}
	get := f.get
	f.get = func() cty.Value {
		list = nil
		for _, a := range *to {
			list = append(list, a.Name)
		}
		return get()
	}
	return f
}

// certNames is a list of names that a certificate can be for.
func certNames(to *[]string) field {
	f := texts(to)
	f.takes = "a list of names, each with its kind"
	read := f.set
	f.set = func(v value) *problem {
		if p := read(v); p != nil {
			return p
		}
		i := slices.IndexFunc(*to, func(name string) bool { return checkCertName(name) != "" })
		if i < 0 {
			return nil
		}
		p := wrong(checkCertName((*to)[i]))
		p.at = &v.is.([]value)[i].rng
		return p
	}
	return f
}

// checkCertName returns what is wrong with a name.
func checkCertName(name string) string {
	kind, text, _ := strings.Cut(name, ":")
	ok := text != ""
	switch kind {
	case "dns":
		ok = ok && !strings.ContainsAny(text, ":/@ ")
	case "email":
		ok = strings.Contains(text, "@")
	case "ip":
		_, err := netip.ParseAddr(text)
		ok = err == nil
	case "uri":
		u, err := url.Parse(text)
		ok = err == nil && u.Scheme != ""
	default:
		return `Write the kind before the name: "dns:", "uri:", "email:" or "ip:".`
	}
	if !ok {
		return "This is no name of the kind " + kind + "."
	}
	return ""
}
