package access

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// request is that of a command line: words separated by spaces.
func request(from, user, line string) *Request {
	words := strings.Fields(line)
	info, args, known := doveadm.LookupWords(words[0], words[1:])
	name := words[0]
	if known {
		name = info.Name
	}
	q := &Request{Client: "c", Command: info, Name: name, User: user, Effects: info.Effects(args)}
	q.From, _ = netip.ParseAddr(from)
	return q
}

func TestDecide(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# comment\nCarol@file.example\n@whole.example # all\n\n*-x@part.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	type ask struct{ from, user, line, want string } // want: the rule; - before it: denied
	for _, test := range []struct {
		name        string
		allow, deny []config.Rule
		asks        []ask
	}{
		{"default", nil, nil, []ask{
			{"", "a@b", "quota get", "the default"},
			{"", "a@b", "fetch text all", "the default"},
			{"", "a@b", "expunge all", "the default"},
			{"", "a@b", "dsync-server", "the default"},
			{"", "a@b", "who", "-"},
			{"", "a@b", "mail dict get x y", "-"},
			{"", "a@b", "import maildir:/x D all", "-"},
			{"", "a@b", "sync tcp:x", "-"},
			{"", "a@b", "copy D user b all", "-"},
			{"", "a@b", "fetch -Z text all", "-"},
			{"", "a@b", "no-such", "-"},
			{"", "a@b", "exec sh", "-"},
		}},
		{"rights and names", []config.Rule{{Commands: []string{"read", "sieve *", "who"}}}, nil, []ask{
			{"", "a@b", "quota get", "allow #1"},
			{"", "a@b", "sieve put x", "allow #1"},
			{"", "a@b", "who", "allow #1"},
			{"", "a@b", "who -a /x", "-"},
			{"", "a@b", "kick x", "-"},
			{"", "a@b", "fetch text all", "-"},
		}},
		{"patterns do not cover admin", []config.Rule{{Commands: []string{"*"}}, {Commands: []string{"no-such", "kick"}}}, nil, []ask{
			{"", "a", "expunge all", "allow #1"},
			{"", "a", "who", "-"},
			{"", "a", "kick a", "allow #2"},
			{"", "a", "no-such -x", "allow #2"},
			{"", "a", "no-such-other", "-"},
		}},
		{"the word admin", []config.Rule{{Commands: []string{"admin"}}}, nil, []ask{
			{"", "a", "who", "allow #1"},
			{"", "a", "fs get posix x /etc/passwd", "-"},
			{"", "a", "no-such", "-"},
			{"", "a", "quota get", "-"},
		}},
		{"dangerous", []config.Rule{{Commands: []string{"import", "fs get"}, Dangerous: []string{"files", "users"}}}, nil, []ask{
			{"", "a", "import maildir:/x D all", "allow #1"},
			{"", "a", "import -U b maildir:/x D all", "allow #1"},
			{"", "a", "import imapc: D all", "-"},
			{"", "a", "import -p x=y maildir:/x D all", "-"},
			{"", "a", "fs get posix x /etc/passwd", "-"},
		}},
		{"unknown by the danger", []config.Rule{{Dangerous: []string{"unknown"}}}, nil, []ask{
			{"", "a", "no-such", "allow #1"},
			{"", "a", "fetch -Z text all", "allow #1"},
			{"", "a", "exec sh", "-"}, // it runs a program
		}},
		{"users", []config.Rule{{Users: []string{"@B", "x?@c"}, UsersFile: file, Dangerous: []string{"users"}}, {Commands: []string{"who"}, Users: []string{"*@b"}}}, nil, []ask{
			{"", "a@b", "quota get", "allow #1"},
			{"", "a@bb", "quota get", "-"},
			{"", "a@a.b", "quota get", "-"},
			{"", "xy@c", "quota get", "allow #1"},
			{"", "x@c", "quota get", "-"},
			{"", "carol@file.example", "quota get", "allow #1"},
			{"", "any@whole.example", "quota get", "allow #1"},
			{"", "any@part.example", "quota get", "-"},
			{"", "any-x@part.example", "quota get", "allow #1"},
			{"", "", "quota get", "-"},
			{"", "a@b", "copy D user x1@c all", "allow #1"},
			{"", "a@b", "copy D user other@c all", "-"},
			{"", "a@b", "copy D user *@b all", "-"},
			{"", "other@c", "copy D user a@b all", "-"},
			{"", "a@b", "who", "-"}, // it concerns everybody
		}},
		{"networks", []config.Rule{{Networks: ten}}, nil, []ask{
			{"10.1.2.3", "a", "quota get", "allow #1"},
			{"::ffff:10.1.2.3", "a", "quota get", "allow #1"},
			{"2001:db8::1%eth0", "a", "quota get", "allow #1"},
			{"11.0.0.1", "a", "quota get", "-"},
			{"", "a", "quota get", "-"},
		}},
		{"deny wins", []config.Rule{{}, {Commands: []string{"admin"}}}, []config.Rule{
			{Commands: []string{"expunge", "who*"}},
			{Users: []string{"boss@*"}},
			{Networks: ten, Commands: []string{"mail-content"}},
			{Dangerous: []string{"files"}},
		}, []ask{
			{"", "a", "quota get", "allow #1"},
			{"", "a", "expunge all", "-deny #1"},
			{"", "a", "who", "-deny #1"},
			{"", "boss@b", "quota get", "-deny #2"},
			{"", "a", "copy D user boss@b all", "-deny #2"},
			{"", "a", "kick x", "-deny #2"}, // it concerns everybody
			{"10.0.0.1", "a", "fetch text all", "-deny #3"},
			{"", "a", "fetch text all", "allow #1"},
			{"", "a", "import maildir:/x D all", "-deny #4"},
		}},
		{"deny everything", nil, []config.Rule{{}}, []ask{
			{"", "a", "quota get", "-deny #1"},
			{"", "a", "no-such", "-deny #1"},
		}},
	} {
		rules, err := New(new(router.Names), []config.Client{{Name: "c", Allow: test.allow, Deny: test.deny}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range test.asks {
			q := request(a.from, a.user, a.line)
			d, findings := rules.Explain(q)
			got := d.Rule
			if !d.Allowed {
				got = "-" + got
			}
			if got != a.want {
				t.Errorf("%s: %s %s: %q, want %q; %+v", test.name, a.user, a.line, got, a.want, findings)
			}
			decided := ""
			for _, f := range findings {
				if f.Decides {
					decided += f.Rule
				}
			}
			if decided != d.Rule {
				t.Errorf("%s: %s %s: decided by %q, explained as %+v", test.name, a.user, a.line, d.Rule, findings)
			}
			if text := rules.Refusal(q, d); !d.Allowed && (text == "" || strings.Contains(text, "covers the command")) {
				t.Errorf("%s: %s %s is refused with %q", test.name, a.user, a.line, text)
			}
		}
	}
}

func TestShards(t *testing.T) {
	shards := []config.Shard{
		{Name: "s1", Backends: []config.Backend{{Name: "b1"}, {Name: "b2"}}},
		{Name: "s2", Backends: []config.Backend{{Name: "b3"}}},
	}
	for _, test := range []struct {
		allow, deny config.Rule
		want        string // the shards whose users may be worked on
	}{
		{config.Rule{}, config.Rule{Commands: []string{"who"}}, "|s1|s2"},
		{config.Rule{Shards: []string{"s1"}}, config.Rule{Commands: []string{"who"}}, "s1"},
		{config.Rule{Backends: []string{"b1", "b3"}}, config.Rule{Commands: []string{"who"}}, "s2"},
		{config.Rule{Backends: []string{"b1", "b2"}}, config.Rule{Commands: []string{"who"}}, "s1"},
		{config.Rule{}, config.Rule{Backends: []string{"b1"}}, "|s2"},
		{config.Rule{}, config.Rule{Shards: []string{"s2"}}, "|s1"},
	} {
		rules, err := New(new(router.Names), []config.Client{{Name: "c", Allow: []config.Rule{test.allow}, Deny: []config.Rule{test.deny}}}, shards)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, shard := range []string{"", "s1", "s2"} {
			q := request("", "a", "quota get")
			q.Shard = shard
			if rules.Decide(q).Allowed {
				got = append(got, shard)
			}
		}
		if strings.Join(got, "|") != test.want {
			t.Errorf("allow %+v, deny %+v: %q, want %q", test.allow, test.deny, got, test.want)
		}
		if asks := test.want != "|s1|s2"; rules.AsksShard("c") != asks {
			t.Errorf("allow %+v, deny %+v: AsksShard is %v", test.allow, test.deny, !asks)
		}
	}
}

func TestUnknownClient(t *testing.T) {
	rules, err := New(new(router.Names), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := rules.Decide(request("", "a", "quota get")); d.Allowed || rules.AsksShard("c") {
		t.Errorf("%+v", d)
	}
}

func TestUsersFileErrors(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		"a@b\nc d\n":              ":2: more than one word",
		"@\n":                     ":1: no domain",
		strings.Repeat("x", 2000): "token too long",
	} {
		path := filepath.Join(dir, "users")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(new(router.Names), []config.Client{{Name: "c", Allow: []config.Rule{{UsersFile: path}}}}, nil)
		if err == nil || !strings.Contains(err.Error(), path+want) && !strings.Contains(err.Error(), path+": bufio.Scanner: "+want) || !strings.Contains(err.Error(), `client "c": allow #1`) {
			t.Errorf("%.20q: %v", content, err)
		}
	}
}

// Messages that operators search for.
func TestRefusal(t *testing.T) {
	rules, err := New(new(router.Names), []config.Client{{Name: "c", Allow: []config.Rule{{Commands: []string{"write"}}, {Users: []string{"@b"}, Commands: []string{"quota get"}}}, Deny: []config.Rule{{Commands: []string{"purge"}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"import -U b maildir:/x D all": `not allowed: client c may not use import to open files of the backend and to work on other users (argument source-user); it needs dangerous = ["files", "users"] in an allow block for the command`,
		"who":                          "not allowed: no allow block of client c covers who here: allow #1 is about other commands",
		"quota get":                    "not allowed: no allow block of client c covers quota get here: allow #2 is about other users",
		"purge":                        "not allowed: deny #1 of client c denies it",
		"nonesuch":                     `Client sent unknown command: nonesuch (if a plugin of the backends has it, client c needs commands = ["nonesuch"] in an allow block)`,
	} {
		q := request("", "a", line)
		if got := rules.Refusal(q, rules.Decide(q)); got != want {
			t.Errorf("%s:\n%s, want\n%s", line, got, want)
		}
	}
	rules, _ = New(new(router.Names), []config.Client{{Name: "c"}}, nil)
	q := request("", "a", "who")
	if got, want := rules.Refusal(q, rules.Decide(q)), `not allowed: who needs the right admin; client c needs commands = ["who"] in an allow block`; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// many are 1,000 clients with 10 rules each, one of whom has 10,000 patterns of
// users, and every one of whom has 10.
func many(tb testing.TB) *Rules {
	var clients []config.Client
	for i := range 1000 {
		c := config.Client{Name: fmt.Sprintf("client%d", i)}
		for j := range 10 {
			c.Allow = append(c.Allow, config.Rule{
				Commands: []string{"read", "mailbox *", "sieve get"},
				Users:    []string{fmt.Sprintf("*@domain%d.example", 10*i+j)},
				Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			})
		}
		clients = append(clients, c)
	}
	big := config.Rule{Commands: []string{"*"}}
	for i := range 10_000 {
		switch i % 4 {
		case 0:
			big.Users = append(big.Users, fmt.Sprintf("@tenant%d.example", i))
		case 1:
			big.Users = append(big.Users, fmt.Sprintf("user%d@*.example", i))
		case 2:
			big.Users = append(big.Users, fmt.Sprintf("user%d@mixed.example", i))
		case 3:
			big.Users = append(big.Users, fmt.Sprintf("u?%d*@shared.example", i))
		}
	}
	clients[500].Allow = []config.Rule{{Commands: []string{"admin"}}, big}
	clients[500].Deny = []config.Rule{big}
	clients[500].Deny[0].Commands = []string{"expunge"}
	rules, err := New(new(router.Names), clients, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return rules
}

// cases are what a decision costs most for: the last rule of many, no rule,
// and the most patterns.
func cases(tb testing.TB, rules *Rules) map[string]*Request {
	all := map[string]*Request{
		"last of ten rules": request("10.0.0.1", "any@domain9999.example", "mailbox status messages INBOX"),
		"no rule":           request("10.0.0.1", "any@domain1.example", "mailbox status messages INBOX"),
		"10,000 patterns":   request("10.0.0.1", "someone@tenant9996.example", "mailbox status messages INBOX"),
		"none of 10,000":    request("10.0.0.1", "nobody@nowhere.test", "mailbox status messages INBOX"),
		"two users":         request("10.0.0.1", "someone@tenant9996.example", "copy Dest user someone@tenant8.example all"),
	}
	all["last of ten rules"].Client, all["no rule"].Client = "client999", "client999"
	for _, name := range []string{"10,000 patterns", "none of 10,000", "two users"} {
		all[name].Client = "client500"
	}
	for name, want := range map[string]bool{"last of ten rules": true, "no rule": false, "10,000 patterns": true, "none of 10,000": false, "two users": false} {
		if d := rules.Decide(all[name]); d.Allowed != want {
			tb.Fatalf("%s: %+v", name, d)
		}
	}
	return all
}

func TestDecideDoesNotAllocate(t *testing.T) {
	rules := many(t)
	for name, q := range cases(t, rules) {
		if n := testing.AllocsPerRun(1000, func() { rules.Decide(q) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
