package proxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// TestKeepAlive: a connection asks for a peer that vanished, although nobody has
// told it so but the socket that it came to.
func TestKeepAlive(t *testing.T) {
	l, err := new(Proxy).open(config.Listener{Name: "main", Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct{ level, name, want int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	} {
		var got int
		raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.name) })
		if err != nil || got != o.want {
			t.Errorf("option %d of level %d is %d, %v; want %d", o.name, o.level, got, err, o.want)
		}
	}
}
