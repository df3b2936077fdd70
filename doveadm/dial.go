package doveadm

import (
	"context"
	"net"
	"strings"
)

// Dial connects to a doveadm listener, "host:port" or the path of a UNIX
// socket, and logs in. ctx bounds both and has no meaning afterwards.
func Dial(ctx context.Context, address string, o ClientOptions) (*ClientConn, error) {
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	stop := interruptOn(ctx, nc)
	c, err := NewClientConn(nc, o)
	if interrupted := stop(); err != nil || interrupted {
		nc.Close()
		if interrupted {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return c, nil
}
