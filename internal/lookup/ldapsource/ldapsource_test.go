package ldapsource_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup/ldapsource"
	"github.com/doveadm-proxy/doveadm-proxy/internal/slapd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the timeout of lookups that have to work.
const patience = 20 * time.Second

func person(name string, lines ...string) string {
	return fmt.Sprintf("dn: cn=%s,%s\nobjectClass: inetOrgPerson\ncn: %[1]s\nsn: %[1]s\n%[3]s\n\n", name, slapd.Base, strings.Join(lines, "\n"))
}

func ask(t *testing.T, s *ldapsource.Source, user string, timeout time.Duration) string {
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	place, found, err := s.Lookup(ctx, user)
	switch {
	case err != nil:
		if strings.Contains(err.Error(), slapd.Password) {
			t.Errorf("the error holds the password: %v", err)
		}
		return "error: " + err.Error()
	case !found:
		return "none"
	}
	return place.Shard
}

func expect(t *testing.T, s *ldapsource.Source, user, want string) {
	t.Helper()
	if got := ask(t, s, user, patience); got != want && !(strings.HasPrefix(want, "error: ") && strings.Contains(got, strings.TrimPrefix(want, "error: "))) {
		t.Errorf("%q: %s; want %s", user, got, want)
	}
}

func TestLDAP(t *testing.T) {
	ca := certtest.NewCA(t, "ca")
	dir := t.TempDir()
	ca.Write(t, dir, "ca")
	ca.Issue(t, "127.0.0.1").Write(t, dir, "ldap")
	certtest.NewCA(t, "other").Write(t, dir, "other")
	srv, err := slapd.Start(t.Context(), slapd.Options{
		CertFile: filepath.Join(dir, "ldap.crt"), KeyFile: filepath.Join(dir, "ldap.key"),
		LDIF: person("alice", "mail: alice@example.com", "employeeType: s1") +
			person("bob", "mail: bob@example.com") +
			person("carol", "mail: carol@example.com", "employeeType: s1", "employeeType: s2") +
			person("odd", "mail: o*d(d)\\\\@example.com", "employeeType: s3") +
			person("twin1", "mail: twin@example.com", "employeeType: s1") + person("twin2", "mail: twin@example.com", "employeeType: s1"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	link, err := fault.Listen("127.0.0.1:0", srv.Addr, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	usual := config.LDAP{
		URL: "ldap://" + link.Addr, BindDN: slapd.BindDN, BindPassword: config.NewSecret(slapd.Password),
		Base: slapd.Base, Scope: config.ScopeSub, Filter: "(mail=%u)", Attribute: "EmployeeType",
	}
	source := func(t *testing.T, change func(c *config.LDAP)) *ldapsource.Source {
		c := usual
		if change != nil {
			change(&c)
		}
		s, err := ldapsource.New(c, config.Lookup{MaxLookups: 4})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}

	t.Run("answers", func(t *testing.T) {
		s := source(t, nil)
		expect(t, s, "alice@example.com", "s1")
		expect(t, s, "eve@example.com", "none")
		expect(t, s, "bob@example.com", "none")
		expect(t, s, "carol@example.com", "error: 2 values of EmployeeType")
		expect(t, s, "twin@example.com", "error: more than one entry")
		expect(t, s, `o*d(d)\\@example.com`, "s3")
		for _, user := range []string{"*", "*@example.com", "a)(mail=*", "alice@example.com)(|(mail=*)", "\x00", "ü"} {
			expect(t, s, user, "none")
		}
		if n := link.Len(); n != 1 {
			t.Errorf("%d connections for lookups one after the other", n)
		}
		expect(t, source(t, func(c *config.LDAP) {
			c.Base, c.Filter, c.Scope = "cn=%n,"+slapd.Base, "(objectClass=*)", config.ScopeBase
		}), "alice@example.com", "s1")
		expect(t, source(t, func(c *config.LDAP) {
			c.Base, c.Filter, c.Scope = "cn=%n,"+slapd.Base, "(objectClass=*)", config.ScopeBase
		}), "x,cn=alice@example.com", "none")
		expect(t, source(t, func(c *config.LDAP) { c.BindPassword = config.NewSecret("wrong") }), "alice@example.com", "error: bind as cn=admin,dc=example,dc=com")
		expect(t, source(t, func(c *config.LDAP) { c.Base = "dc=example,dc=org" }), "alice@example.com", "none")
	})

	t.Run("starttls", func(t *testing.T) {
		secure := func(c *config.LDAP) { c.StartTLS, c.CAFile = true, filepath.Join(dir, "ca.crt") }
		expect(t, source(t, secure), "alice@example.com", "s1")
		expect(t, source(t, func(c *config.LDAP) { secure(c); c.CAFile = filepath.Join(dir, "other.crt") }), "alice@example.com", "error: StartTLS")
		expect(t, source(t, func(c *config.LDAP) { secure(c); c.URL = "ldap://localhost:" + srv.Port }), "alice@example.com", "error: StartTLS")
	})

	t.Run("slow", func(t *testing.T) {
		for _, warm := range []bool{true, false} {
			s := source(t, nil)
			if warm {
				expect(t, s, "alice@example.com", "s1")
			}
			link.Set(fault.Fault{End: fault.Silence})
			start := time.Now()
			if got := ask(t, s, "alice@example.com", 200*time.Millisecond); !strings.HasPrefix(got, "error: ") {
				t.Errorf("slow: %s", got)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("gave up after %s", took)
			}
			link.Set(fault.Fault{})
			expect(t, s, "alice@example.com", "s1")
		}
	})

	t.Run("side by side", func(t *testing.T) {
		s := source(t, nil)
		var asking sync.WaitGroup
		for range 20 {
			asking.Go(func() { expect(t, s, "alice@example.com", "s1") })
		}
		asking.Wait()
	})

	t.Run("down", func(t *testing.T) {
		s := source(t, nil)
		expect(t, s, "alice@example.com", "s1")
		link.Drop() // the next lookup finds that out, and connects again
		expect(t, s, "alice@example.com", "s1")
		if err := srv.Stop(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got := ask(t, s, "alice@example.com", patience); !strings.HasPrefix(got, "error: ldap: ") {
				t.Errorf("down: %s", got)
			}
		}
		if err := srv.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := srv.Modify("cn=alice,"+slapd.Base, "employeeType", "s2"); err != nil {
			t.Fatal(err)
		}
		expect(t, s, "alice@example.com", "s2")
	})
}

func TestNewErrors(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]config.LDAP{
		"filter (mail=": {URL: "ldap://h", Base: "dc=x", Filter: "(mail=%u"},
		"base x":        {URL: "ldap://h", Base: "x", Filter: "(mail=%u)"},
		"url http://h":  {URL: "http://h", Base: "dc=x", Filter: "(mail=%u)"},
	} {
		if _, err := ldapsource.New(c, config.Lookup{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", c, err, want)
		}
	}
}
