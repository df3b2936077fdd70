package authmaster

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/lookup"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	for greeting, want := range map[string]string{
		"VERSION\t1\t2\nSPID\t99\n":         "",
		"VERSION\t1\t9\textra\nSPID\t99\nx": "",
		"VERSION\t2\t0\nSPID\t99\n":         `version "2"`,
		"SPID\t99\n":                        "no VERSION",
		"VERSION\t1\t2\nMECH\tPLAIN\n":      "socket for logins",
		"* OK IMAP\r\n":                     "a greeting that begins with",
		"VERSION\t1\t2\n":                   "EOF",
		"":                                  "EOF",
		strings.Repeat("x", maxReply+1):     "a line of more than",
		strings.Repeat("VERSION\t1\t2\n", 200) + "SPID\t1\n": "without an end",
	} {
		err := handshake(bufio.NewReaderSize(strings.NewReader(greeting), maxReply))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v; want %q", greeting, err, want)
		}
	}
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]result{
		"NOTFOUND\t7": {},
		"PASS\t7\tuser=a\x01tb\tproxy\tpass=\x01\x01x=y\t": {found: true, reply: Reply{[]Field{{"user", "a\tb"}, {"proxy", ""}, {"pass", "\x01x=y"}}}},
		"PASS\t7": {found: true},
	} {
		want.reply.Fields = want.reply.Fields[:len(want.reply.Fields):len(want.reply.Fields)]
		id, got, err := parseReply([]byte(line))
		if err != nil || id != 7 || got.found != want.found || got.err != nil {
			t.Errorf("%q: %d, %+v, %v", line, id, got, err)
		}
		if diff := cmp.Diff(want.reply, got.reply); diff != "" && strings.Contains(line, "user=") {
			// \x01\x01 stands for \x01 as Dovecot reads it.
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
	if _, got, err := parseReply([]byte("FAIL\t7\treason=no\x01tgood")); err != nil || got.err == nil || !strings.Contains(got.err.Error(), `no\tgood`) {
		t.Errorf("FAIL: %+v, %v", got, err)
	}
	if _, got, err := parseReply([]byte("FAIL\t7")); err != nil || got.err == nil {
		t.Errorf("FAIL: %+v, %v", got, err)
	}
	for _, line := range []string{"", "PASS", "PASS\tx", "PASS\t-1", "PASS\t4294967296", "OK\t7", "USER\t7\tbob"} {
		if _, _, err := parseReply([]byte(line)); !errors.Is(err, errProtocol) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestRequestOfLongUser(t *testing.T) {
	t.Parallel()
	if b, err := appendRequest([]byte("x"), 1, strings.Repeat("\t", maxRequest/2)); err == nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
}

func fields(s string) Reply {
	var r Reply
	for f := range strings.FieldsSeq(s) {
		key, value, _ := strings.Cut(f, "=")
		r.Fields = append(r.Fields, Field{key, value})
	}
	return r
}

func TestProxyTo(t *testing.T) {
	t.Parallel()
	target := func(t lookup.Target, host, ip string, port uint16) *lookup.Target {
		if err := t.SetHost(host, ip, port); err != nil {
			panic(err)
		}
		return &t
	}
	for reply, want := range map[string]*lookup.Target{
		"":                                   nil,
		"user=bob":                           nil,
		"user=bob host=10.0.0.1":             nil, // host is a field of others, too
		"user=bob nologin":                   nil,
		"user=bob proxy_maybe host=10.0.0.1": nil, // the auth process took proxy away: it is the server
		"user=bob proxy host=10.0.0.1":       target(lookup.Target{}, "", "10.0.0.1", 24245),
		"user=bob proxy=y host=10.0.0.1 nologin port=999":                             target(lookup.Target{}, "", "10.0.0.1", 999),
		"user=bob nologin host=10.0.0.1":                                              target(lookup.Target{}, "", "10.0.0.1", 24245),
		"user=bob proxy host=Mail1.Example hostip=10.0.0.1":                           target(lookup.Target{}, "mail1.example", "10.0.0.1", 24245),
		"user=bob proxy host=mail1":                                                   target(lookup.Target{}, "mail1", "", 24245),
		"user=bob proxy host=::1":                                                     target(lookup.Target{}, "", "::1", 24245),
		"user=eve proxy host=10.0.0.1":                                                target(lookup.Target{User: "eve"}, "", "10.0.0.1", 24245),
		"destuser=eve@x user=bob proxy host=10.0.0.1":                                 target(lookup.Target{User: "eve@x"}, "", "10.0.0.1", 24245),
		"user=bob proxy host=10.0.0.1 ssl=yes":                                        target(lookup.Target{TLS: config.TLSImplicit}, "", "10.0.0.1", 24245),
		"user=bob proxy host=10.0.0.1 starttls=any-cert ssl=yes":                      target(lookup.Target{TLS: config.TLSStartTLS, AnyCert: true}, "", "10.0.0.1", 24245),
		"user=bob proxy host=10.0.0.1 pass=x master=y director_tag=z proxy_timeout=5": target(lookup.Target{Timeout: 5 * time.Second}, "", "10.0.0.1", 24245),
		"user=bob proxy host=10.0.0.1 proxy_timeout=250ms":                            target(lookup.Target{Timeout: 250 * time.Millisecond}, "", "10.0.0.1", 24245),
	} {
		got, err := proxyTo(fields(reply), "bob", 24245)
		if err != nil {
			t.Errorf("%s: %v", reply, err)
		} else if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b lookup.Target) bool { return equal(a, b) })); diff != "" {
			t.Errorf("%s: %+v; want %+v", reply, got, want)
		}
	}
	for reply, want := range map[string]string{
		"proxy":                             "proxy without host",
		"proxy host=":                       "proxy without host",
		"proxy host=10.0.0.1 port=0":        `port="0"`,
		"proxy host=10.0.0.1 port=imap":     `port="imap"`,
		"proxy host=a hostip=b":             `hostip="b"`,
		"proxy host=a proxy_timeout=soon":   `proxy_timeout="soon"`,
		"proxy host=a proxy_timeout=3years": `proxy_timeout="3years"`,
		"proxy host=a destuser=\x01":        "control characters",
		"proxy host=10.0.0.1\x02":           "control characters",
	} {
		if got, err := proxyTo(fields(reply), "bob", 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want %s", reply, got, err, want)
		}
	}
}

func equal(a, b lookup.Target) bool {
	return strings.Join(a.Addresses, " ") == strings.Join(b.Addresses, " ") && a.IP == b.IP && a.Port == b.Port &&
		a.User == b.User && a.TLS == b.TLS && a.AnyCert == b.AnyCert && a.Timeout == b.Timeout
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("VERSION\t1\t2\nSPID\t1\nPASS\t1\tuser=a\tproxy\thost=10.0.0.1\nNOTFOUND\t2\nFAIL\t3\treason=x\n"))
	f.Add([]byte("VERSION\t1\t2\nMECH\tPLAIN\n"))
	f.Add([]byte("VERSION\t1\t2\nSPID\t1\nPASS\t1\tproxy\thost=a\x01tb\tport=\x01\tproxy_timeout=1m\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(stream), maxReply)
		if handshake(r) != nil {
			r.Reset(bytes.NewReader(stream))
		}
		for {
			line, err := readLine(r)
			if err != nil {
				if err == io.EOF && r.Buffered() > 0 {
					t.Fatal("an end with bytes left")
				}
				return
			}
			_, answer, err := parseReply(line)
			if err != nil {
				continue
			}
			target, err := proxyTo(answer.reply, "bob", 1)
			if err == nil && target != nil {
				if len(target.Addresses) == 0 || target.Port == 0 || strings.ContainsAny(target.User, "\x00\t\n\r") {
					t.Fatalf("%q leads to %+v", line, target)
				}
			}
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("bob@example.com")
	f.Add("a\tb\nc\x01\x00\r")
	f.Fuzz(func(t *testing.T, user string) {
		b, err := appendRequest(nil, 7, user)
		if err != nil {
			return
		}
		if bytes.Count(b, []byte("\n")) != 1 || bytes.Count(b, []byte("\t")) != 4 {
			t.Fatalf("%q: more than one request of four fields: %q", user, b)
		}
		if got := string(doveadm.Unescape(bytes.Split(b, []byte("\t"))[2])); got != user {
			t.Fatalf("%q became %q", user, got)
		}
	})
}
