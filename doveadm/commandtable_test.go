package doveadm

import (
	"slices"
	"strings"
	"testing"
)

// allCommands returns the entries in the order of their names.
func TestLookupCommand(t *testing.T) {
	for name, kind := range map[string]CommandKind{
		"mailbox list":        MailCommand,
		"mailbox cache purge": MailCommand,
		"who":                 GlobalCommand,
		"auth cache flush":    GlobalCommand,
		"pw":                  ClientCommand,
	} {
		c, ok := LookupCommand(name)
		if !ok || c.Name != name || c.Kind != kind {
			t.Errorf("LookupCommand(%q) = %q of kind %d, %v", name, c.Name, c.Kind, ok)
		}
	}
	for _, name := range []string{"", "mailbox", "mailbox  list", "mailbox list ", "Mailbox list", "mailbox\tlist", "no such"} {
		c, ok := LookupCommand(name)
		if ok || c.Kind != MailCommand || c.Input || c.Tunnel || c.Repeat != RepeatNever || c.MaxArgs() != -1 {
			t.Errorf("LookupCommand(%q) = %+v, %v, want the entry of unknown commands", name, c, ok)
		}
		if n, ok := c.Columns([]string{"uid"}); ok {
			t.Errorf("LookupCommand(%q) has %d columns, want unknown", name, n)
		}
	}
}

func TestLookupWords(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string // of the table; empty: unknown
		rest int
	}{
		{"mailbox list", []string{"-s"}, "mailbox list", 1},
		{"mailbox", []string{"list", "-s"}, "mailbox list", 1},
		{"mailbox", []string{"cache", "purge"}, "mailbox cache purge", 0},
		{"mailbox cache", []string{"purge", "x"}, "mailbox cache purge", 1},
		{"service", []string{"stop", "imap"}, "service stop", 1},
		{"sieve", []string{"put", "x"}, "sieve put", 1},
		{"mailbox", []string{"cache purge"}, "mailbox cache purge", 0},
		{"mailbox", nil, "", 0},
		{"mailbox", []string{"-s", "list"}, "", 2},
		{"mailbox", []string{"", "list"}, "", 2},
		{"purge", []string{"list"}, "purge", 1},
		{"no", []string{"such", "command", "here"}, "", 3},
	} {
		c, rest, ok := LookupWords(test.name, test.args)
		if ok != (test.want != "") || c.Name != test.want || len(rest) != test.rest {
			t.Errorf("LookupWords(%q, %q) = %q, %q, %v, want %q and %d arguments", test.name, test.args, c.Name, rest, ok, test.want, test.rest)
		}
	}
}

// What the lookup and the parser take for granted.
func TestCommandTable(t *testing.T) {
	total := len(mailCommands) + len(globalCommands) + len(clientCommands)
	if total != len(commandIndex) {
		t.Errorf("%d entries with %d names", total, len(commandIndex))
	}
	var input, tunnel []string
	for _, c := range Commands() {
		if c.Series == 0 || c.Series&^bothSeries != 0 {
			t.Errorf("%s: series %b", c.Name, c.Series)
		}
		if words := strings.Fields(c.Name); strings.Join(words, " ") != c.Name || len(words) > 3 {
			t.Errorf("%q: more than three words, or odd spaces", c.Name)
		}
		for _, other := range Commands() {
			if strings.HasPrefix(other.Name, c.Name+" ") {
				t.Errorf("%q is the beginning of %q: LookupWords cannot tell them apart", c.Name, other.Name)
			}
		}
		if c.Input {
			input = append(input, c.Name)
		}
		if c.Tunnel {
			tunnel = append(tunnel, c.Name)
		}
		if limit := c.MaxArgs(); limit >= 0 && c.MinArgs > limit {
			t.Errorf("%s: at least %d arguments, at most %d", c.Name, c.MinArgs, limit)
		}
		common := 0
		for i, p := range c.Params {
			if p.Series&c.Series == 0 && p.common == notCommon {
				t.Errorf("%s: no release has --%s", c.Name, p.Long)
			}
			if p.common != notCommon {
				common++
			}
			if p.Short == '-' || p.Short == ':' || p.Short == ';' || p.Positional && p.Short != 0 {
				t.Errorf("%s: option letter %q", c.Name, p.Short)
			}
			for _, q := range c.Params[i+1:] {
				if p.Long == q.Long && p.Series&q.Series != 0 {
					t.Errorf("%s: --%s twice in one series", c.Name, p.Long)
				}
				if p.Short != 0 && p.Short == q.Short && p.Series&q.Series != 0 {
					t.Errorf("%s: -%c twice in one series", c.Name, p.Short)
				}
				// Without this every such option would leave it open what
				// the next argument is.
				if c.Kind == MailCommand && p.Short != 0 && p.Short == q.Short && (p.Kind == ParamFlag) != (q.Kind == ParamFlag) {
					t.Errorf("%s: -%c has a value in one series only", c.Name, p.Short)
				}
			}
		}
		want := 0
		if c.Kind == MailCommand {
			want = len(commonParams)
			if !slices.Equal(c.Params[:want], commonParams) {
				t.Errorf("%s does not begin with the common parameters", c.Name)
			}
		}
		if common != want {
			t.Errorf("%s: %d common options, want %d", c.Name, common, want)
		}
		if c.Kind == ClientCommand && len(c.Params) > 0 {
			t.Errorf("%s: parameters of a command that servers do not know", c.Name)
		}
	}
	if want := []string{"save", "sieve put"}; !slices.Equal(input, want) {
		t.Errorf("commands with input: %q, want %q", input, want)
	}
	if want := []string{"dsync-server"}; !slices.Equal(tunnel, want) {
		t.Errorf("tunnels: %q, want %q", tunnel, want)
	}
}

func TestMaxArgs(t *testing.T) {
	for name, want := range map[string]int{
		"purge": 0, "mailbox list": -1, "mailbox rename": 2, "save": 1, "sieve put": 2, "fs get": 3, "copy": -1, "pw": -1,
	} {
		c, _ := LookupCommand(name)
		if got := c.MaxArgs(); got != want {
			t.Errorf("%s: at most %d arguments, want %d", name, got, want)
		}
	}
}

func TestSpellOut(t *testing.T) {
	const all = "messages recent uidnext uidvalidity unseen highestmodseq vsize guid firstsaved"
	for _, test := range []struct{ command, args, want string }{
		{"mailbox status", "all,*", all + ",*"},
		{"mailbox status", "-u,alice,--,all,all", "-u,alice,--," + all + ",all"},
		{"mailbox status", "-ualice,vsize all  guid,INBOX", "-ualice," + all + ",INBOX"},
		// The same in every release, or nothing that could be known.
		{"mailbox status", "messages,all", ""},
		{"mailbox status", "all deleted,*", ""},
		{"mailbox status", "-t,all,*", ""},
		{"mailbox status", "all,*,--total-sum", ""},
		{"mailbox status", "all x,*", ""},
		{"mailbox status", "--field=all,*", ""},
		{"mailbox status", "-Z,all,*", ""},
		{"fetch", "all,all", ""},
	} {
		c, ok := LookupCommand(test.command)
		if !ok {
			t.Fatalf("%s is not in the table", test.command)
		}
		args := strings.Split(test.args, ",")
		if got, want := c.ColumnsVary(args), test.want != ""; got != want {
			t.Errorf("%s %q: columns vary: %v, want %v", test.command, args, got, want)
		}
		if test.want == "" {
			test.want = test.args
		}
		got := c.SpellOut(args)
		if strings.Join(got, ",") != test.want || strings.Join(args, ",") != test.args {
			t.Errorf("%s %q: spelled out %q, want %q", test.command, args, got, test.want)
		}
		n, ok := c.Columns(args)
		if m, again := c.Columns(got); m != n || ok != again || c.ColumnsVary(got) {
			t.Errorf("%s %q: %d columns (%v), spelled out %d (%v)", test.command, args, n, ok, m, again)
		}
	}
}

func TestColumns(t *testing.T) {
	const unknown = -1
	for _, test := range []struct {
		command string
		args    string // separated by commas
		want    int
	}{
		{"quota get", "-u,alice", 5},
		{"mailbox list", "", 1},
		{"mailbox create", "x", 0},
		{"search", "all", 2},
		{"fts lookup", "all", 0},
		{"batch", ";,purge", unknown},
		{"user", "alice", unknown},
		{"pw", "", unknown},

		{"fetch", "uid,all", 1},
		{"fetch", "uid hdr.subject text,all", 3},
		{"fetch", "-u,alice,--,uid guid,mailbox,INBOX", 2},
		{"fetch", "-A,  uid  uid ,all", 2},
		{"fetch", "uid\thdr.x,all", 1}, // only spaces separate
		{"fetch", "uid,-u,alice,all", 1},
		{"fetch", "-ualice,uid guid,all", 2},
		{"fetch", "", unknown},
		{"fetch", ",uid,all", unknown},
		{"fetch", "-u", unknown},
		{"fetch", "-Z,uid,all", unknown},
		{"fetch", "--field,uid,all", unknown},
		{"fetch", "--fieldstr=uid guid,all", unknown},

		{"mailbox status", "messages,INBOX", 2},
		{"mailbox status", "-u,alice,--,messages vsize,INBOX,*", 3},
		{"mailbox status", "all,*", 10},
		{"mailbox status", "all messages vsize,*", 10},
		{"mailbox status", "all deleted,*", 11},
		{"mailbox status", "vsize messages vsize,*", 3},
		{"mailbox status", "-t,messages vsize,*", 2},
		{"mailbox status", "messages vsize,*,-t", 2},
		{"mailbox status", "-At,all,*", 4},
		{"mailbox status", "--total,all,*", 4},
		{"mailbox status", "-t,guid,*", unknown},
		{"mailbox status", "messages,all", 2},
		{"mailbox status", "Messages,*", unknown},
		{"mailbox status", ",*", unknown},
		{"mailbox status", "-f,messages,*", unknown},
		{"mailbox status", "-Z,messages,*", unknown},
		{"mailbox status", "", unknown},
		{"mailbox status", "--,-t,*", unknown},
		{"mailbox status", "messages,--,-t", 2},

		{"who", "", 5},
		{"who", "-a,-1,alice", 5},
		{"who", "-1", unknown},
		{"who", "alice,--sep", unknown},
	} {
		c, ok := LookupCommand(test.command)
		if !ok {
			t.Fatalf("%s is not in the table", test.command)
		}
		var args []string
		if test.args != "" {
			args = strings.Split(test.args, ",")
		}
		n, ok := c.Columns(args)
		if ok != (test.want != unknown) || ok && n != test.want {
			t.Errorf("%s %q has %d columns (known: %v), want %d", test.command, args, n, ok, test.want)
		}
	}
}

// The lookups are made for every command that passes through a proxy.
func TestLookupsDoNotAllocate(t *testing.T) {
	args := []string{"-ualice", "-t", "--", "messages vsize", "INBOX", "*"}
	if n := testing.AllocsPerRun(100, func() {
		c, _ := LookupCommand("mailbox status")
		c.Columns(args)
		LookupCommand("no such command")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookupCommand(b *testing.B) {
	for b.Loop() {
		LookupCommand("mailbox status")
	}
}
