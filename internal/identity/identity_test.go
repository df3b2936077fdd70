package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func TestTable(t *testing.T) {
	password := config.NewSecret("{PLAIN}x")
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	table := New([]config.Client{
		{Name: "fixed"}, // of a listener
		{Name: "near", Username: "doveadm", Password: password, Networks: ten},
		{Name: "inside", Username: "doveadm", Password: password, Listeners: []string{"in"}},
		{Name: "certain", Username: "doveadm", Password: password, TLSSubject: "CN=certain,O=Example"},
		{Name: "doveadm", Password: password},
		{Name: "robot", TLSNames: []string{"dns:robot.example", "uri:spiffe://example/robot", "email:r@example", "ip:10.0.0.1"}, Networks: ten},
		{Name: "ops", UnixUsers: []config.Account{{ID: 7}, {ID: 8}}, UnixGroups: []config.Account{{ID: 9}}},
		{Name: "group", UnixGroups: []config.Account{{ID: 9}}},
		{Name: "both", Password: password, UnixUsers: []config.Account{{ID: 7}}},
	})
	near, far := netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("11.1.1.1")
	uri, _ := url.Parse("spiffe://example/robot")
	other, _ := url.Parse("spiffe://example/other")
	certain := &x509.Certificate{Subject: pkix.Name{CommonName: "certain", Organization: []string{"Example"}}}
	for _, test := range []struct {
		name, username string
		peer           Peer
		trusted, login string
	}{
		{"network", "doveadm", Peer{From: near}, "", "near"},
		{"listener", "doveadm", Peer{From: far, Listener: "in"}, "", "inside"},
		{"first of two", "doveadm", Peer{From: near, Listener: "in"}, "", "near"},
		{"certificate", "doveadm", Peer{From: far, Cert: certain}, "", "certain"},
		{"another subject", "doveadm", Peer{From: far, Cert: &x509.Certificate{Subject: pkix.Name{CommonName: "certain"}}}, "", "doveadm"},
		{"the rest", "doveadm", Peer{From: far}, "", "doveadm"},
		{"name of a block is no name of a login", "near", Peer{From: near}, "", ""},
		{"without a password", "fixed", Peer{From: near}, "", ""},
		{"by certificate only", "robot", Peer{From: near}, "", ""},
		{"dns", "", Peer{From: near, Cert: &x509.Certificate{DNSNames: []string{"x", "ROBOT.example"}}}, "robot", ""},
		{"uri", "", Peer{From: near, Cert: &x509.Certificate{URIs: []*url.URL{other, uri}}}, "robot", ""},
		{"other uri", "", Peer{From: near, Cert: &x509.Certificate{URIs: []*url.URL{other}}}, "", ""},
		{"email", "", Peer{From: near, Cert: &x509.Certificate{EmailAddresses: []string{"r@example"}}}, "robot", ""},
		{"ip", "", Peer{From: near, Cert: &x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}}, "robot", ""},
		{"from elsewhere", "", Peer{From: far, Cert: &x509.Certificate{DNSNames: []string{"robot.example"}}}, "", ""},
		{"common name is no SAN", "", Peer{From: near, Cert: &x509.Certificate{Subject: pkix.Name{CommonName: "robot.example"}}}, "", ""},
		{"account", "", Peer{Account: &Account{UID: 8, GID: 9}}, "ops", ""},
		{"group", "", Peer{Account: &Account{UID: 1, GID: 9}}, "group", ""},
		{"other group", "", Peer{Account: &Account{UID: 7, GID: 1}}, "", ""},
		{"account and password", "both", Peer{Account: &Account{UID: 7, GID: 1}}, "", "both"},
		{"password and other account", "both", Peer{Account: &Account{UID: 1, GID: 1}}, "", ""},
		{"password and no account", "both", Peer{From: near}, "", ""},
	} {
		trusted, ok := table.Trusted(&test.peer)
		if trusted != test.trusted || ok != (trusted != "") {
			t.Errorf("%s: without a login %q, %v, want %q", test.name, trusted, ok, test.trusted)
		}
		login, ok := table.Login(test.username, &test.peer)
		if login != test.login || ok != (login != "") {
			t.Errorf("%s: as %s %q, %v, want %q", test.name, test.username, login, ok, test.login)
		}
	}
}

func TestOf(t *testing.T) {
	for network, address := range map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p, err := Of("main", server)
		if err != nil || p.Listener != "main" || p.Cert != nil {
			t.Errorf("%s: %+v, %v", network, p, err)
		}
		switch network {
		case "unix":
			if p.Account == nil || p.Account.UID != uint32(os.Getuid()) || p.Account.GID != uint32(os.Getgid()) || p.From.IsValid() {
				t.Errorf("%s: %+v", network, p)
			}
		case "tcp":
			if p.Account != nil || p.From != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("%s: %+v", network, p)
			}
		}
		client.Close()
		server.Close()
		l.Close()
	}
	if got := addrOf(&net.TCPAddr{IP: net.ParseIP("::ffff:10.0.0.1")}); got != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("mapped address: %s", got)
	}
}
