package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
	"github.com/doveadm-proxy/doveadm-proxy/internal/unixsocket"
)

// cancelled is a context that is over.
var cancelled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// listener is an open listener. Its settings may change by a reload, its
// address may not.
type listener struct {
	net.Listener
	settings atomic.Pointer[listenerSettings]
	sessions atomic.Int64
	running  bool // an accept loop was started; guarded by Proxy.mu
}

// listenerSettings are a listener block and what it needs. They do not change.
type listenerSettings struct {
	config.Listener
	tls *tlsfiles.Files // nil without TLS
}

// listenerSettings makes the settings of the listeners of cfg, in their order.
// Where the files of TLS are the same as before, what was made of them stays:
// clients can resume their sessions.
func (p *Proxy) listenerSettings(cfg *config.Config) []*listenerSettings {
	before := make(map[string]*listenerSettings)
	p.mu.Lock()
	for key, l := range p.listeners {
		before[key] = l.settings.Load()
	}
	p.mu.Unlock()
	var all []*listenerSettings
	for _, c := range cfg.Listeners {
		set, was := &listenerSettings{Listener: c}, before[listenerKey(c)]
		switch {
		case c.TLS.Mode == "":
		case was != nil && was.tls != nil && sameFiles(was.TLS, c.TLS):
			set.tls = was.tls
		default:
			set.tls = tlsfiles.NewServer(tlsfiles.Server{
				CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ClientCAFile: c.TLS.ClientCAFile,
			}, p.log.With("listener", c.Name))
		}
		all = append(all, set)
	}
	return all
}

func sameFiles(a, b config.ListenerTLS) bool {
	a.Mode = b.Mode
	return a == b
}

func (l *listener) config() *config.Listener { return &l.settings.Load().Listener }

func (l *listener) key() string { return listenerKey(*l.config()) }

// listenerKey is what makes two listener blocks the same socket. Port 0 is
// another port for each.
func listenerKey(c config.Listener) string {
	if c.Network == "tcp" && strings.HasSuffix(c.Address, ":0") {
		return c.Name + " " + c.Address
	}
	return c.Network + ":" + c.Address
}

// configure takes the settings of a reloaded block.
func (l *listener) configure(c *listenerSettings) {
	was := l.settings.Swap(c)
	if c.Network == "unix" && c.Mode != was.Mode {
		os.Chmod(c.Address, c.Mode)
	}
}

// close stops accepting. Sessions go on.
func (l *listener) close() { l.Close() }

// openListeners opens those listeners that are not open yet: all, or none if
// one of them fails.
func (p *Proxy) openListeners(settings []*listenerSettings) ([]*listener, error) {
	p.mu.Lock()
	have := make(map[string]bool)
	for key := range p.listeners {
		have[key] = true
	}
	p.mu.Unlock()

	var opened []*listener
	var errs []error
	for _, set := range settings {
		if have[listenerKey(set.Listener)] {
			continue
		}
		nl, err := p.open(set.Listener)
		if err != nil {
			errs = append(errs, fmt.Errorf("listener %q: %w", set.Name, err))
			continue
		}
		l := &listener{Listener: nl}
		l.settings.Store(set)
		opened = append(opened, l)
	}
	if len(errs) > 0 {
		for _, l := range opened {
			p.abandon(l)
		}
		return nil, errors.Join(errs...)
	}
	return opened, nil
}

// tcpSockets makes listening sockets. The connections that Linux accepts have the
// options of the socket that they came to, so that these need not be set for
// each of them: what Go sets by itself, four system calls a connection.
var tcpSockets = func() net.ListenConfig {
	lc := net.ListenConfig{
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if failed := raw.Control(func(fd uintptr) { err = keepAlive(int(fd)) }); failed != nil {
				return failed
			}
			return err
		},
	}
	lc.SetMultipathTCP(false) // whose sockets know only some of the options
	return lc
}()

// keepAlive finds out about peers that vanish: one that is silent is asked every
// 15 seconds, and is gone when it has not answered nine times.
func keepAlive(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9))
}

func (p *Proxy) open(c config.Listener) (net.Listener, error) {
	if nl, ok := p.sockets[c.Name]; ok {
		delete(p.sockets, c.Name) // a reload that needs it again opens its own
		return nl, nil
	}
	if nl := p.keeping.take(c); nl != nil {
		return nl, nil
	}
	var nl net.Listener
	var err error
	if c.Network == "tcp" {
		nl, err = tcpSockets.Listen(context.Background(), "tcp", c.Address)
	} else {
		nl, err = unixsocket.Listen(c.Address, c.Mode)
	}
	if err != nil {
		return nil, err
	}
	return p.keeping.store(c, nl, p.log), nil
}

// accept starts the accept loop of l. The caller holds mu.
func (p *Proxy) accept(l *listener) {
	if !l.running {
		l.running = true
		log := p.log.With("listener", l.config().Name, "address", l.Addr())
		if mode := l.config().TLS.Mode; mode != "" {
			log = log.With("tls", mode)
		}
		log.Info("listening")
		p.accepting.Go(func() { p.acceptLoop(l) })
	}
}

// The pause after an accept that failed, usually for want of file descriptors.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

func (p *Proxy) acceptLoop(l *listener) {
	pause := minAcceptPause
	for {
		nc, err := l.Accept()
		switch {
		case err == nil:
			pause = minAcceptPause
			p.admit(l, nc)
			continue
		case errors.Is(err, net.ErrClosed):
			return
		}
		p.log.Error("cannot accept", "listener", l.config().Name, "error", err)
		time.Sleep(pause)
		pause = min(2*pause, maxAcceptPause)
	}
}

// peerName returns the address of a client, which a UNIX socket has none of.
func peerName(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil && a.Network() != "unix" {
		return a.String()
	}
	return "local"
}

// probe connects to addr, has nothing to say, and reads until the peer shows a
// sign of life: that it closes.
func probe(ctx context.Context, addr net.Addr) error {
	nc, err := new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
	if err != nil {
		return err
	}
	defer nc.Close()
	if deadline, ok := ctx.Deadline(); ok {
		nc.SetDeadline(deadline)
	}
	closeWrite(nc)
	var b [1]byte
	if _, err := nc.Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%s does not answer: %w", addr, err)
	}
	return nil
}
