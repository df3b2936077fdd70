package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// lineBackend is a backend that hands on each line as it came, OPTION too, and
// needs no memory for a command.
type lineBackend struct {
	net.Listener
	minor doveadm.Minor
	serve func(c *lineConn, line []byte)

	running sync.WaitGroup
	mu      sync.Mutex
	conns   map[*lineConn]struct{}
	count   int
}

// lineConn is one connection of a lineBackend.
type lineConn struct {
	net.Conn
	number int
	input  bool // for serve: the lines are not commands
}

// newLineBackend calls serve for each line, without its LF, which is valid
// until serve returns.
func newLineBackend(t testing.TB, minor doveadm.Minor, serve func(c *lineConn, line []byte)) *lineBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &lineBackend{Listener: l, minor: minor, serve: serve, conns: make(map[*lineConn]struct{})}
	b.running.Go(b.accept)
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for c := range b.conns {
			c.Close()
		}
		b.mu.Unlock()
		b.running.Wait()
	})
	return b
}

func (b *lineBackend) accept() {
	for {
		nc, err := b.Accept()
		if err != nil {
			return
		}
		b.mu.Lock()
		b.count++
		c := &lineConn{Conn: nc, number: b.count}
		b.conns[c] = struct{}{}
		b.mu.Unlock()
		b.running.Go(func() {
			b.run(c)
			c.Close()
			b.mu.Lock()
			delete(b.conns, c)
			b.mu.Unlock()
		})
	}
}

func (b *lineBackend) run(c *lineConn) {
	in := bufio.NewReaderSize(c, 128<<10)
	in.ReadSlice('\n') // VERSION
	if b.minor > 0 {
		fmt.Fprintf(c, "VERSION\tdoveadm-client\t1\t%d\n", b.minor)
	}
	io.WriteString(c, "-\n")
	in.ReadSlice('\n') // PLAIN
	io.WriteString(c, "+\n")
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		b.serve(c, bytes.TrimSuffix(line, []byte{'\n'}))
	}
}
