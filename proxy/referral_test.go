package proxy_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// refersTo is a handler that sends everybody to another server.
func refersTo(address string) handler {
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if info, _ := doveadm.LookupCommand(cmd.Name); info.Input {
			c.Input()
		}
		c.Status("-REFERRAL " + cmd.User + "@" + address)
	}
}

// TestReferral: the proxy follows, with the input, to backends of the
// configuration and to networks it allows.
func TestReferral(t *testing.T) {
	var got []string
	target := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "save" {
			text, err := c.Input()
			if err != nil {
				t.Error(err)
			}
			got = append(got, text)
		}
		c.Fields("here", strings.Join(cmd.Extra, " "))
		c.Status("+")
	}
	last := newBackend(t, 3, target)
	second := newBackend(t, 3, refersTo(last.Addr()))
	first := newBackend(t, 3, refersTo(second.Addr()))
	long := "." + strings.Repeat("x", 200_000)

	for _, tt := range []struct {
		name     string
		backends []string
		networks string
		cause    string // of the failure
	}{
		{"backends", []string{first.Addr(), second.Addr(), last.Addr()}, "", ""},
		{"networks", []string{first.Addr()}, "127.0.0.0/8", ""},
		{"not allowed", []string{first.Addr()}, "192.0.2.0/24", "referrals.networks"},
		{"one hop too far", []string{first.Addr(), second.Addr()}, "", "referrals.networks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, configure(t, func(c *config.Config) {
				if tt.networks != "" {
					c.Referrals.Networks = []netip.Prefix{netip.MustParsePrefix(tt.networks)}
				}
			}, tt.backends...))
			c := s.login(t, client13)
			if tt.cause != "" {
				c.refused(t, "\talice\tmailbox list\n", "-TEMPFAIL", tt.cause)
				c.refused(t, "\talice\tmailbox list\n", "-TEMPFAIL", tt.cause)
				return
			}
			r := c.run(t, "x\tproxy-ttl=5\talice\tmailbox list\n")
			if r.output != "here\tproxy-ttl=2\t" || r.status != "+" {
				t.Errorf("reply %q %s", r.output, r.status)
			}
			got = nil
			r = c.run(t, "\talice\tsave\n"+long+"\r\n.\r\n")
			if r.status != "+" || len(got) != 1 || got[0] != long+"\r\n.\r\n" {
				t.Errorf("save: status %s, stored %d mails", r.status, len(got))
			}
			s.log.wait(t, "outcome=answered", "referrals=2")
			// proxy-ttl is used up on the way.
			c.refused(t, "x\tproxy-ttl=2\talice\tmailbox list\n", "-TEMPFAIL", "TTL reached zero")
		})
	}
}

// TestReferralLoop: servers that send each other the user.
func TestReferralLoop(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	l.Close()
	one := newBackend(t, 3, refersTo(address))
	two := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 3, Password: backendPassword, Address: address, Handler: refersTo(one.Addr())})
	s := start(t, configure(t, nil, one.Addr(), two.Addr()))
	c := s.login(t, client13)
	c.refused(t, "\talice\tmailbox list\n", "-TEMPFAIL", "loop")
	c.refused(t, "\ta@s2\tmailbox list\n", "-TEMPFAIL", "loop")
}

// TestReferralOfManyHops ends at referrals.max_hops.
func TestReferralOfManyHops(t *testing.T) {
	next := newBackend(t, 3, answer)
	addrs := []string{next.Addr()}
	for range 3 {
		next = newBackend(t, 3, refersTo(next.Addr()))
		addrs = append([]string{next.Addr()}, addrs...)
	}
	s := start(t, configure(t, func(c *config.Config) { c.Referrals.MaxHops = 2 }, addrs...))
	c := s.login(t, client13)
	c.refused(t, "\ta@s1\tmailbox list\n", "-TEMPFAIL", "referrals.max_hops")
	if r := c.run(t, "\ta@s2\tmailbox list\n"); r.status != "+" {
		t.Errorf("two hops: status %s", r.status)
	}
}
