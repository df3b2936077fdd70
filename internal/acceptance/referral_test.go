package acceptance

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// ownNetwork is the first three numbers of addresses of this machine that no other
// test uses: what listens there has its ports for itself.
func ownNetwork() string { return fmt.Sprintf("127.%d.%d", 64+rand.IntN(128), 1+rand.IntN(250)) }

// TestReferral: a real Dovecot 2.4 that sends its users to another server; the
// clients of the proxy notice nothing, with input neither.
func TestReferral(t *testing.T) {
	t.Parallel()
	target := dovecottest.Start(t, dovecot.Options{Name: "target", Version: dovecot.V24, Users: []string{"u1-1"}})
	if err := target.Seed(2); err != nil {
		t.Fatal(err)
	}
	host := ownNetwork() + ".2"
	// doveadm_port makes a server ask its passdb where a user is.
	refers := dovecottest.Start(t, dovecot.Options{Name: "refers", Version: dovecot.V24, Users: []string{"u1-1"}, Password: target.Password, Config: fmt.Sprintf(`
doveadm_port = 1
passdb passwd-file {
  fields {
    nologin = yes
    host = %s
  }
}
`, host)})
	// The referral names no port, so the target has to be at the same one.
	_, port, err := net.SplitHostPort(refers.Addr)
	if err != nil {
		t.Fatal(err)
	}
	forward(t, net.JoinHostPort(host, port), target.Addr)

	c := &cluster{t: t, servers: []*dovecot.Server{refers}}
	p := startProxy(t, racy, func(addr string) string {
		return c.config(addr, "", "referrals {\n  networks = [\"127.0.0.0/8\"]\n}\n")
	})
	for _, version := range []dovecot.Version{dovecot.V23, dovecot.V24} {
		client := dovecot.Client{Version: version, Addr: p.Addr, Password: clientPassword}
		direct := dovecottest.Run(t, dovecot.Client{Version: version, Addr: target.Addr, Password: target.Password}, "fetch", "-u", "u1-1", "hdr.subject", "all")
		r := dovecottest.Run(t, client, "fetch", "-u", "u1-1", "hdr.subject", "all")
		if r.ExitCode != 0 || r.Stdout != direct.Stdout || !strings.Contains(r.Stdout, "message 1 for u1-1") {
			t.Errorf("doveadm %s: %+v, directly at the target %+v", version, r, direct)
		}
	}
	if r := withInput(t, p.Addr, clientPassword, "Subject: saved by referral\n\n", "save", "-u", "u1-1", "-m", "Archive"); r.ExitCode != 0 {
		t.Errorf("save: %+v", r)
	}
	if r := cli(t, target.Addr, target.Password, "fetch", "-u", "u1-1", "hdr.subject", "mailbox", "Archive", "all"); !strings.Contains(r.Stdout, "saved by referral") {
		t.Errorf("saved: %+v", r)
	}
	p.waitLog("referrals=1")
}

// forward copies connections between two addresses, until the test ends.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	keep := func(nc net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, nc)
	}
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			keep(a)
			b, err := net.Dial("tcp", to)
			if err != nil {
				t.Error(fmt.Errorf("forward: %w", err))
				return
			}
			keep(b)
			for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
				wg.Go(func() {
					io.Copy(pair[0], pair[1])
					pair[0].(*net.TCPConn).CloseWrite()
				})
			}
		}
	})
}
