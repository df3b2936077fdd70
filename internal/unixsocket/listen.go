// Package unixsocket makes UNIX sockets that only those can use who may.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// Listen listens at path, where a socket that nobody listens on, which an
// earlier process left behind, is replaced. The socket has its mode from the
// first moment on, and is removed when the listener is closed.
func Listen(path string, mode fs.FileMode) (*Listener, error) {
	info, err := os.Lstat(path)
	if err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s exists and is not a socket: remove it or choose another path", path)
		}
		nc, err := net.Dial("unix", path)
		if err == nil {
			nc.Close()
			return nil, fmt.Errorf("%s: another process listens on it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Between bind and chmod the socket has the mode that the umask leaves,
	// so it is made under a name that nobody knows.
	hidden := fmt.Sprintf("%s.%d", path, os.Getpid())
	nl, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, err
	}
	nl.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(hidden, mode), os.Rename(hidden, path)); err != nil {
		nl.Close()
		os.Remove(hidden)
		return nil, err
	}
	return &Listener{nl, path}, nil
}

// Listener removes its socket when it is closed.
type Listener struct {
	*net.UnixListener
	Path string
}

// Addr returns the address under the name that the socket was made for.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.Path, Net: "unix"} }

// Close stops listening and removes the socket.
func (l *Listener) Close() error {
	os.Remove(l.Path)
	return l.UnixListener.Close()
}
