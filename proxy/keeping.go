package proxy

import (
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/unixsocket"
)

// keeping lends listeners from process to process: what one opened, the next
// goes on with, and connections that arrive in between wait in the kernel.
// Its owner is who holds Proxy.reloading, or New.
type keeping struct {
	kept   map[string]net.Listener // of an earlier process, not in use yet
	keep   func(key string, file *os.File) error
	forget func(key string) error
}

// keptListener is an open listener that a later process may go on with: its
// end here is not that of the socket.
type keptListener struct {
	net.Listener
	key  string
	path string // of a UNIX socket
}

func (l *keptListener) Addr() net.Addr {
	if l.path != "" {
		return &net.UnixAddr{Name: l.path, Net: "unix"}
	}
	return l.Listener.Addr()
}

// drop closes what was kept and is not wanted: it may be in the way of an
// address that is.
func (k *keeping) drop(settings []*listenerSettings, log hclog.Logger) {
	wanted := make(map[string]bool)
	for _, set := range settings {
		wanted[listenerKey(set.Listener)] = true
	}
	for key, nl := range k.kept {
		path, isUnix := strings.CutPrefix(key, "unix:")
		if wanted[key] && (!isUnix || isSocket(path)) {
			continue
		}
		delete(k.kept, key)
		nl.Close()
		if isUnix && isSocket(path) {
			os.Remove(path)
		}
		k.forgetKey(key, log)
	}
}

func isSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}

// take returns the kept listener of a block, nil if there is none.
func (k *keeping) take(c config.Listener) net.Listener {
	key := listenerKey(c)
	nl, ok := k.kept[key]
	if !ok {
		return nil
	}
	delete(k.kept, key)
	l := &keptListener{Listener: nl, key: key}
	if c.Network == "unix" {
		l.path = c.Address
		os.Chmod(c.Address, c.Mode)
	}
	return l
}

// store keeps nl, which has just been opened, and returns it in its new form.
// A listener that cannot be kept is one as before.
func (k *keeping) store(c config.Listener, nl net.Listener, log hclog.Logger) net.Listener {
	if k.keep == nil {
		return nl
	}
	kept := &keptListener{Listener: nl, key: listenerKey(c)}
	var socket interface{ File() (*os.File, error) }
	switch l := nl.(type) {
	case *net.TCPListener:
		socket = l
	case *unixsocket.Listener:
		socket = l
		kept.Listener, kept.path = l.UnixListener, l.Path
	}
	file, err := socket.File()
	if err == nil {
		err = k.keep(kept.key, file)
		file.Close()
	}
	if err != nil {
		log.Warn("a restart will refuse connections for a moment", "listener", c.Name, "error", err)
		return nl
	}
	return kept
}

func (k *keeping) forgetKey(key string, log hclog.Logger) {
	if k.forget == nil {
		return
	}
	if err := k.forget(key); err != nil {
		log.Warn("cannot give up a listener", "listener", key, "error", err)
	}
}

// abandon closes a listener for good.
func (p *Proxy) abandon(l *listener) {
	l.close()
	if kept, ok := l.Listener.(*keptListener); ok {
		if kept.path != "" {
			os.Remove(kept.path)
		}
		p.keeping.forgetKey(kept.key, p.log)
	}
}
