package service_test

import (
	"net"
	"os"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/slapd"
)

// TestService: it starts, ends, starts again with its data, and leaves nothing.
// Those that take longer to start do so in the tests of who asks them.
func TestService(t *testing.T) {
	t.Parallel()
	s, err := slapd.Start(t.Context(), slapd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Modify(slapd.Base, "o", "Changed"); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", s.Addr); err == nil {
		c.Close()
		t.Error("it accepts connections after Stop")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Modify(slapd.Base, "o", "Again"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", s.Dir, err)
	}
}
