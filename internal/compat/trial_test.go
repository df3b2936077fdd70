package main

import (
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// Any difference is found, and an explanation explains what it says and no
// more.
func TestJudge(t *testing.T) {
	direct := observation{Output: "a\tb\t", Status: "+", Logs: []string{"info: one"}, State: "state\n"}
	upper := &explanation{
		id:      "upper",
		applies: func(t *trial, _ observation) bool { return t.cmd.name == "upper" },
		change:  func(_ *trial, o *observation) { o.Output = strings.ToUpper(o.Output) },
	}
	for _, tt := range []struct {
		name    string
		command string
		change  func(*observation)
		want    verdict
	}{
		{"same", "fetch", func(*observation) {}, equal},
		{"output", "fetch", func(o *observation) { o.Output = "a\tb" }, unexplained},
		{"status", "fetch", func(o *observation) { o.Status = "-" }, unexplained},
		{"log", "fetch", func(o *observation) { o.Logs = []string{"info: two"} }, unexplained},
		{"log missing", "fetch", func(o *observation) { o.Logs = nil }, unexplained},
		{"log added", "fetch", func(o *observation) { o.Logs = append(o.Logs, "info: two") }, unexplained},
		{"state", "fetch", func(o *observation) { o.State = "other\n" }, unexplained},
		{"what is explained", "upper", func(o *observation) { o.Output = "A\tB\t" }, explained},
		{"not where it applies", "fetch", func(o *observation) { o.Output = "A\tB\t" }, unexplained},
		{"not done where it has to be", "upper", func(*observation) {}, unexplained},
		{"a third thing", "upper", func(o *observation) { o.Output = "A\tb\t" }, unexplained},
		{"something else besides", "upper", func(o *observation) { o.Output, o.Status = "A\tB\t", "-" }, unexplained},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxied := direct
			proxied.Logs = append([]string(nil), direct.Logs...)
			tt.change(&proxied)
			tr := &trial{client: client{raw: true}, backend: dovecot.V23, cmd: &command{name: tt.command}}
			f := tr.judge([]*explanation{upper}, direct, proxied)
			if f.verdict != tt.want || (f.report == "") == (tt.want == unexplained) {
				t.Errorf("verdict %d, report %q, want verdict %d", f.verdict, f.report, tt.want)
			}
		})
	}
}

// What is replaced before the comparison is what its rule says: the rest of the
// text stays.
func TestNormalize(t *testing.T) {
	n := &normalizer{addr: "127.0.0.1:1234", dir: "/tmp/direct-1", known: map[string]bool{"0123456789abcdef0123456789abcdef": true}}
	for _, tt := range []struct{ text, want string }{
		{"Error: remote(127.0.0.1:1234): x", "Error: remote(ADDR): x"},
		{"/tmp/direct-1/mail/user1", "DIR/mail/user1"},
		{"doveadm(alice)<123><abc>: x", "doveadm(alice)<PID><SESSION>: x"},
		{"0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"},
		{"0123456789abcdef0123456789abcdee", "RANDOM"},
		{"2023-11-14 22:13:20 1700000000", "2023-11-14 22:13:20 1700000000"},
		{"temp.host.12.x", "temp.HOST.PID.x"},
		{"User doesn't exist", "User doesn't exist"},
	} {
		o := n.normalize(client{raw: true}, &command{name: "fetch"}, observation{Output: tt.text, Logs: []string{tt.text}})
		if o.Output != tt.want || o.Logs[0] != tt.want {
			t.Errorf("%q became %q and %q, want %q", tt.text, o.Output, o.Logs[0], tt.want)
		}
	}
}

// The rows of several users come in any order, in JSON too.
func TestRows(t *testing.T) {
	for _, pair := range [][2]string{
		{"alice 1\nbob 2\n", "bob 2\nalice 1\n"},
		{`[{"username":"alice"},{"username":"bob"}]` + "\n", `[{"username":"bob"},{"username":"alice"}]` + "\n"},
	} {
		a, b := observation{Output: pair[0], Status: "exit 0"}, observation{Output: pair[1], Status: "exit 0"}
		if !a.rows().equal(b.rows()) {
			t.Errorf("%q is not %q", a.rows(), b.rows())
		}
		b.Output = strings.Replace(b.Output, "alice", "carol", 1)
		if a.rows().equal(b.rows()) {
			t.Errorf("%q is %q", a.rows(), b.rows())
		}
	}
}

func TestDescribeUIDList(t *testing.T) {
	const settled = "/x \"3 V17 N4 Gab\\n1 :MAIL\\n3 Gff :MAIL\\n\""
	for text, want := range map[string]string{
		"3 V17 N4 Gab\n1 :12.M34P5.host\n3 Gff :13.M34P5.host,S=9\n":              settled,
		"3 V17 N1 Gab\n1 S241 W250 :12.M34P5.host\n3 S9 Gff :13.M34P5.host,S=9\n": settled,
		"3 V17 N9 Gab\n1 :12.M34P5.host\n":                                        "/x \"3 V17 N9 Gab\\n1 :MAIL\\n\"",
		"3 V17 N9 Gab\n":                                                          "/x \"3 V17 N9 Gab\\n\"",
	} {
		if got := describeUIDList("/x", text); got != want {
			t.Errorf("%q became %s, want %s", text, got, want)
		}
	}
}
