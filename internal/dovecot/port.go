package dovecot

import (
	"fmt"
	"os"
	"syscall"
)

// Port is a TCP port of 127.0.0.1 that nobody but its holder's servers gets.
type Port struct {
	Addr string // host:port
	fd   int
}

// ReservePort takes a free port until Close. It binds a socket that never
// listens, with SO_REUSEADDR: Linux then lets a server that sets SO_REUSEADDR
// (Dovecot and Go do) listen on the port as often as it likes, but hands it
// out neither to a program that asks for any free port nor to an outgoing
// connection. While no server listens, connections are refused.
func ReservePort() (*Port, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	p := &Port{fd: fd}
	if err := p.bind(); err != nil {
		p.Close()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

func (p *Port) bind() error {
	if err := syscall.SetsockoptInt(p.fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(p.fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	name, err := syscall.Getsockname(p.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	p.Addr = fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	return nil
}

// Close gives the port back to the system.
func (p *Port) Close() error {
	return os.NewSyscallError("close", syscall.Close(p.fd))
}
