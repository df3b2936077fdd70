package pool

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// nameServer starts dnsmasq with options, and returns what asks it alone.
func nameServer(t *testing.T, options ...string) (r *net.Resolver, stop func()) {
	t.Helper()
	reserved, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(reserved.LocalAddr().String())
	reserved.Close()
	cmd := exec.Command("dnsmasq", append([]string{
		"--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--listen-address=127.0.0.1", "--bind-interfaces",
		"--port=" + port, "--local=/test/", "--user=root", "--pid-file=" + filepath.Join(t.TempDir(), "pid"),
	}, options...)...)
	cmd.Path = lookUpProgram(t, "dnsmasq")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(stop)
	r = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, "127.0.0.1:"+port)
	}}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := r.LookupNetIP(t.Context(), "ip", "ready.test"); err == nil {
			return r, stop
		} else if time.Now().After(end) {
			t.Fatalf("dnsmasq does not answer: %v", err)
		}
	}
}

func lookUpProgram(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing (Debian package dnsmasq-base, see scripts/deps)", name)
	return ""
}

// TestNames: a real name server: several addresses, of which the first does not
// answer, a service, a name that is not there, and a server that is gone.
func TestNames(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	resolver, stop := nameServer(t,
		"--host-record=ready.test,127.0.0.1", "--host-record=mail.test,127.0.0.2", "--host-record=mail.test,127.0.0.3",
		"--srv-host=_doveadm._tcp.test,two.test,"+port+",20", "--srv-host=_doveadm._tcp.test,one.test,"+port+",10",
		"--host-record=one.test,127.0.0.2", "--host-record=two.test,127.0.0.3")
	host := &places{address: "mail.test:" + port, resolver: resolver}
	service := &places{address: "srv:_doveadm._tcp.test", resolver: resolver}
	want := []string{"127.0.0.2:" + port, "127.0.0.3:" + port}
	sorted := func(p *places) []string {
		found, err := p.find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(slices.Values(found))
	}
	if got := sorted(host); !slices.Equal(got, want) {
		t.Errorf("mail.test is at %v; want %v", got, want)
	}
	if got, err := service.find(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("the service is at %v, %v; want %v", got, err, want)
	}
	connects := func(p *places) {
		t.Helper()
		nc, err := p.connect(t.Context(), 5*time.Second) // 127.0.0.2 refuses
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if got := nc.RemoteAddr().String(); got != want[1] {
			t.Errorf("connected to %s", got)
		}
	}
	connects(host)
	connects(service)
	missing := &places{address: "missing.test:1", resolver: resolver}
	if _, err := missing.connect(t.Context(), 5*time.Second); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("missing.test: %v", err)
	}
	stop()
	connects(host) // as it was known before
	connects(service)
	host.at = host.at.Add(-2 * staleNames)
	if _, err := host.connect(t.Context(), 5*time.Second); err == nil {
		t.Error("an answer of hours ago is used")
	}
}

func TestHostOf(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"mail.example:1": "mail.example", "[::1]:1": "::1", "srv:_doveadm._tcp.example.com": "example.com",
	} {
		if got := hostOf(address); got != want {
			t.Errorf("%s: %q; want %q", address, got, want)
		}
	}
}
