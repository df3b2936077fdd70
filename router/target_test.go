package router

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

// TestTarget: an answer names a server by its address: one of a backend, one in
// networks, or one where nobody is sent. From the cache it does not allocate.
func TestTarget(t *testing.T) {
	t.Parallel()
	c := usual()
	c.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	c.Backends = map[string]string{"mail1.example:24245": "s1", "10.0.0.2:24245": "s2"}
	d := &addresses{
		"a": lookup.ParseTarget("Mail1.Example:24245"), "b": lookup.ParseTarget("10.0.0.2:24245"), "c": lookup.ParseTarget("10.0.1.7:1"),
		"d": lookup.ParseTarget("10.0.2.7:1"), "e": lookup.ParseTarget("mail9.example:24245"), "f": lookup.ParseTarget("[2001:db8::1]:1"),
		"g": lookup.ParseTarget("[::ffff:10.0.1.7]:1"), "h": lookup.ParseTarget("10.0.0.2:24246"),
	}
	table := &Table{names: new(Names), routes: []route{newRemote("dovecot-auth", config.Route{Kind: "dovecot-auth", Lookup: c}, shards, d, nil)}}
	defer table.Close()
	for user, want := range map[string]string{
		"a": "s1", "b": "s2", "c": "10.0.1.7:1", "d": "no backend has this address", "e": "only IP addresses", "f": "[2001:db8::1]:1",
		"g": "10.0.1.7:1", "h": "no backend has this address",
	} {
		got, err := table.Route(t.Context(), user)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && got.Place() != want {
			t.Errorf("%s: %q, %v; want %s", user, got.Place(), err, want)
		}
		if answers := table.Explain(t.Context(), user); err == nil && answers[0].Shard != want {
			t.Errorf("%s: explained as %+v", user, answers)
		}
	}
}

// addresses is a source of targets.
type addresses map[string]*lookup.Target

func (a *addresses) Lookup(_ context.Context, user string) (lookup.Place, bool, error) {
	target, ok := (*a)[user]
	return lookup.Place{Target: target}, ok, nil
}

func (a *addresses) Close() {}

func TestTargetDoesNotAllocate(t *testing.T) {
	c := usual()
	c.Networks = []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}
	d := &addresses{"c": lookup.ParseTarget("10.0.1.7:1")}
	table := &Table{names: new(Names), routes: []route{newRemote("dovecot-auth", config.Route{Kind: "dovecot-auth", Lookup: c}, shards, d, nil)}}
	defer table.Close()
	if got := testing.AllocsPerRun(100, func() {
		if _, err := table.Route(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
	}); got > 0 {
		t.Errorf("a decision from the cache allocates %v times", got)
	}
}
