package doveadm

import (
	"context"
	"errors"
	"net"
	"strings"
)

// Dial connects to a doveadm listener, "host:port" or the path of a UNIX
// socket, and logs in. ctx bounds both and has no meaning afterwards. An error
// of the login is a *HandshakeError, also when it is that of ctx.
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
		var herr *HandshakeError
		switch {
		case interrupted && errors.As(err, &herr):
			herr.Err = context.Cause(ctx)
		case interrupted:
			err = context.Cause(ctx) // as the login succeeded
		}
		return nil, err
	}
	return c, nil
}
