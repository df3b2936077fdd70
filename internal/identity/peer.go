package identity

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of returns what the socket of a session tells of it.
func Of(listener string, nc net.Conn) (Peer, error) {
	p := Peer{Listener: listener}
	switch c := nc.(type) {
	case *net.UnixConn:
		account, err := accountOf(c)
		if err != nil {
			return p, err
		}
		p.Account = account
	default:
		if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
			p.From = addrOf(a)
		}
	}
	return p, nil
}

// addrOf is the address as networks are compared with it.
func addrOf(a *net.TCPAddr) netip.Addr { return a.AddrPort().Addr().Unmap().WithZone("") }

// accountOf asks the kernel.
func accountOf(c *net.UnixConn) (*Account, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return nil, err
	}
	return &Account{UID: cred.Uid, GID: cred.Gid}, nil
}
