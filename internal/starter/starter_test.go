package starter

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBackends(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []Backend
		err  string
	}{
		{text: "10.0.1.1", want: []Backend{{"mail3", "10.0.1.1:24245"}}},
		{text: "10.0.1.1:99,10.0.1.2", want: []Backend{{"mail3", "10.0.1.1:99"}, {"mail3b", "10.0.1.2:24245"}}},
		{text: "imap-a.example.com, imap-b.example.com:24246", want: []Backend{{"imap-a", "imap-a.example.com:24245"}, {"imap-b", "imap-b.example.com:24246"}}},
		{text: "x=[2001:db8::1]:24246", want: []Backend{{"x", "[2001:db8::1]:24246"}}},
		{text: "2001:db8::1", want: []Backend{{"mail3", "[2001:db8::1]:24245"}}},
		{text: "10.0.1.1:0", err: "no port"},
		{text: "10.0.1.1:imap", err: "no port"},
		{text: "a b=10.0.1.1", err: "no name"},
		{text: "10.0.1.1,", err: "no host"},
		{text: "=10.0.1.1", err: "no name"},
	} {
		got, err := ParseBackends(tt.text, 3)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got.Backends); diff != "" || err != nil || got.Name != "s3" {
			t.Errorf("%q: %v, shard %q (-want +got):\n%s", tt.text, err, got.Name, diff)
		}
	}
}

// names stands for a name service.
func names(_ context.Context, name string) ([]netip.Addr, error) {
	if name == "imap.example.com" {
		return []netip.Addr{netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("10.0.2.2")}, nil
	}
	return nil, errors.New("no such host")
}

func TestMailServers(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  []Host
		err   string
	}{
		{value: "10.0.0.1", want: []Host{{"10.0.0.1", "", "", 100}}},
		{value: " 10.0.0.254-10.0.1.0@eu  ::1 ", want: []Host{{"10.0.0.254", "", "eu", 100}, {"10.0.0.255", "", "eu", 100}, {"10.0.1.0", "", "eu", 100}, {"::1", "", "", 100}}},
		{value: "imap.example.com@a", want: []Host{{"10.0.2.1", "imap.example.com", "a", 100}, {"10.0.2.2", "imap.example.com", "a", 100}}},
		{value: "other.example.com", err: "write the addresses in its place"},
		{value: "10.0.0.2-10.0.0.1", err: "wrong way round"},
		{value: "10.0.0.1-::1", err: "IPv6"},
		{value: "::1-2::1", err: "more than"},
		{value: " ", err: "no server"},
	} {
		s := Source{Resolve: names}
		err := s.MailServers(t.Context(), tt.value)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: error %v, want %q", tt.value, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, s.Hosts()); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", tt.value, err, diff)
		}
	}
}

func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The outputs of a real director, in both formats, say the same.
func TestDirector(t *testing.T) {
	var sites []Site
	for _, suffix := range []string{"", ".tab"} {
		s := Source{Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}}
		err := errors.Join(
			s.Doveconf(t.Context(), recorded(t, "director.doveconf")),
			s.Dump(recorded(t, "director.dump"+suffix)),
			s.Map(recorded(t, "director.map"+suffix)),
		)
		if err != nil {
			t.Fatal(err)
		}
		want := []Host{
			{"127.0.9.1", "", "", 100},
			{"127.0.9.2", "", "", 50},
			{"127.0.9.3", "", "", 0},
			{"127.0.9.4", "", "archive", 100},
			{"127.0.0.1", "localhost", "", 100},
		}
		if diff := cmp.Diff(want, s.Hosts()); diff != "" || s.HashFormat != "%Ln" || s.Port != "24399" || !s.hasPassword {
			t.Errorf("%s: hash %q, port %q, password %t; hosts (-want +got):\n%s", suffix, s.HashFormat, s.Port, s.hasPassword, diff)
		}
		site, err := s.Site()
		if err != nil {
			t.Fatal(err)
		}
		sites = append(sites, site)
	}
	if diff := cmp.Diff(sites[0], sites[1]); diff != "" {
		t.Errorf("the two formats differ:\n%s", diff)
	}
	if got := sites[0]; len(got.Map) != 12 || !slices.Contains(got.Map, MapRow{"u2", "s1"}) || !slices.Contains(got.Map, MapRow{"u10", "s5"}) {
		t.Errorf("map: %v", got.Map)
	}
	if config := sites[0].Config(); strings.Contains(config, "hidden") || strings.Contains(config, "backendpw") {
		t.Errorf("a password or its place:\n%s", config)
	}
}

func TestDumpAndMapErrors(t *testing.T) {
	var s Source
	for text, want := range map[string]string{
		"":                                      "no host in it",
		"doveadm director add 10.0.0.1\n":       "line 1",
		"doveadm director remove 10.0.0.1 1\n":  "line 1",
		"doveadm director add host 100\n":       "no address",
		"doveadm director add 10.0.0.1 -1\n":    "no vhost count",
		"doveadm director add 10.0.0.1 x\n":     "no vhost count",
		"add /run/director-admin 10.0.0.1 100 ": "",
	} {
		err := s.Dump([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("dump %q: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"nonsense\n", "u 1 2 3 4\n", "a\tb\tc\td\n"} {
		if err := s.Map([]byte(text)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("map %q: %v", text, err)
		}
	}
	if err := s.Map([]byte("user   hash   mail server ip expire time \na user with spaces  12 10.0.0.1 2026-01-01 00:00:00\n<unknown> 13 10.0.0.1 2026-01-01 00:00:00\n")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]userHost{{"a user with spaces", "10.0.0.1"}}, s.users, cmp.AllowUnexported(userHost{})); diff != "" || s.unnamed != 1 {
		t.Errorf("%d unnamed, users (-want +got):\n%s", s.unnamed, diff)
	}
}

func TestPasswdFile(t *testing.T) {
	const text = `# comment
ann:{PLAIN}secret:::::: proxy=y host=10.0.0.1 nopassword=y
ben@example.com:{SHA512-CRYPT}$6$x:5000:5000::/home/b::proxy_maybe=yes host=10.0.0.2 port=143
cem:{PLAIN}secret::::::userdb_quota=1
dan:{PLAIN}x:::::: proxy host=mail.example.com hostip=10.0.0.1
`
	s := Source{}
	if err := s.PasswdFile([]byte(text)); err != nil {
		t.Fatal(err)
	}
	site, err := s.Site()
	if err != nil {
		t.Fatal(err)
	}
	want := []MapRow{{"ann", "s1"}, {"ben@example.com", "s2"}, {"dan", "s1"}}
	if diff := cmp.Diff(want, site.Map); diff != "" || len(site.Shards) != 2 || s.hostless != 1 {
		t.Errorf("%d shards, %d without a host, map (-want +got):\n%s", len(site.Shards), s.hostless, diff)
	}
	if all := site.Config() + site.UserMap() + strings.Join(site.Notes, ""); strings.Contains(all, "secret:") || strings.Contains(all, "{PLAIN}") {
		t.Errorf("a password was taken over:\n%s", all)
	}
	for text, want := range map[string]string{
		"ann:x\n":                         "no user of it",
		":x:::::: proxy=y host=1\n":       "no user",
		"a:x:::::: proxy=y host=%d.imap ": "route \"dovecot-auth\"",
	} {
		if err := new(Source).PasswdFile([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestDoveconf(t *testing.T) {
	for _, tt := range []struct{ name, text, note, route, err string }{
		{name: "sql", text: "passdb {\n  args = /etc/dovecot/dovecot-sql.conf.ext\n  driver = sql\n}\n", err: "a route \"sql\""},
		{name: "ldap", text: "passdb {\n  args = /etc/dovecot/ldap.conf\n  driver = ldap\n}\n", err: "\"dovecot-auth\""},
		{name: "passwd-file", text: "passdb {\n  args = scheme=CRYPT /etc/dovecot/users\n  driver = passwd-file\n}\n", err: "--passwd-file"},
		{name: "static", text: "passdb {\n  args = proxy=y host=10.0.0.7 nopassword=y\n  driver = static\n}\n", route: "* s1"},
		{name: "static with a variable", text: "passdb {\n  args = proxy=y host=%d.example.com\n  driver = static\n}\n", err: "match routes"},
		{name: "nothing", text: "mail_location = maildir:~/Maildir\n", err: "neither director_mail_servers nor a passdb"},
		{name: "not doveconf", text: "what is this\n", err: "doveconf -n"},
		{name: "cut", text: "passdb {\n", err: "no end"},
		{name: "braces", text: "}\n", err: "line 1"},
		{name: "empty", text: "# 2.3.19\n", err: "no setting"},
		{name: "tls", text: "director_mail_servers = 10.0.0.1\ndoveadm_ssl = starttls\ndoveadm_username = boss\n", note: "no doveadm_password"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Source{Resolve: names}
			err := s.Doveconf(t.Context(), []byte(tt.text))
			var site Site
			if err == nil {
				site, err = s.Site()
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(site.Notes, "\n"); !strings.Contains(notes, tt.note) {
				t.Errorf("notes %q, want %q", notes, tt.note)
			}
			if !strings.Contains(site.UserMap(), tt.route) {
				t.Errorf("map:\n%s", site.UserMap())
			}
			if tt.name == "tls" && (site.TLS != "starttls" || site.Username != "boss") {
				t.Errorf("TLS %q, user name %q", site.TLS, site.Username)
			}
		})
	}
}

// Nobody's files are overwritten, and secrets are for the owner's eyes.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	site := Site{Shards: []Shard{{Name: "s1", Backends: []Backend{{"mail1", "10.0.0.1:24245"}}}}}
	files := site.Files(filepath.Join(dir, "etc"), "{PLAIN}x", "y", "packaged")
	if err := Write(files, false); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{"": 0o755, ConfigFile: 0o644, "secrets/backends": 0, "secrets/doveadm": 0, "secrets": 0} {
		info, err := os.Stat(filepath.Join(dir, "etc", path))
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); want != 0 && mode != want || want == 0 && mode&0o007 != 0 {
			t.Errorf("%s: mode %o", path, mode)
		}
	}
	config := filepath.Join(dir, "etc", ConfigFile)
	if err := Write(files, false); err != nil {
		t.Errorf("the same once more: %v", err)
	}
	if err := os.WriteFile(config, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(files, false); err == nil || !strings.Contains(err.Error(), config) {
		t.Errorf("over a changed file: %v", err)
	}
	if b, _ := os.ReadFile(config); string(b) != "mine" {
		t.Errorf("it was overwritten: %q", b)
	}
	if err := os.WriteFile(config, []byte("packaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Write(files, false); err != nil {
		t.Errorf("over the package's file: %v", err)
	}
	if err := Write(site.Files(filepath.Join(dir, "etc"), "{PLAIN}z", "y", ""), false); err == nil {
		t.Error("another secret was written over the first")
	}
	if err := Write(site.Files(filepath.Join(dir, "etc"), "{PLAIN}z", "y", ""), true); err != nil {
		t.Errorf("by force: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "etc", ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func FuzzDoveconf(f *testing.F) {
	f.Add([]byte("passdb {\n  args = proxy=y host=10.0.0.7\n  driver = static\n}\ndirector_mail_servers = 10.0.0.1-10.0.0.3@x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := Source{Resolve: names}
		if s.Doveconf(t.Context(), text) == nil {
			s.Site()
		}
	})
}

func FuzzDirector(f *testing.F) {
	f.Add([]byte("doveadm director add 10.0.0.1@a 100\n"), []byte("u1\t1\t10.0.0.1\t2026-01-01 00:00:00\n"))
	f.Fuzz(func(t *testing.T, dump, users []byte) {
		var s Source
		if s.Dump(dump) == nil && s.Map(users) == nil {
			s.Site()
		}
	})
}
