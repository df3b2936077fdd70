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
	serve func(w io.Writer, conn int, line []byte)

	running sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
}

// newLineBackend calls serve for each line, without its LF, which is valid
// until serve returns.
func newLineBackend(t testing.TB, minor doveadm.Minor, serve func(w io.Writer, conn int, line []byte)) *lineBackend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &lineBackend{Listener: l, minor: minor, serve: serve}
	b.running.Go(b.accept)
	t.Cleanup(func() {
		l.Close()
		b.mu.Lock()
		for _, nc := range b.conns {
			nc.Close()
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
		b.conns = append(b.conns, nc)
		n := len(b.conns)
		b.mu.Unlock()
		b.running.Go(func() {
			defer nc.Close()
			b.run(nc, n)
		})
	}
}

func (b *lineBackend) run(nc net.Conn, n int) {
	in := bufio.NewReaderSize(nc, 128<<10)
	in.ReadSlice('\n') // VERSION
	if b.minor > 0 {
		fmt.Fprintf(nc, "VERSION\tdoveadm-client\t1\t%d\n", b.minor)
	}
	io.WriteString(nc, "-\n")
	in.ReadSlice('\n') // PLAIN
	io.WriteString(nc, "+\n")
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		b.serve(nc, n, bytes.TrimSuffix(line, []byte{'\n'}))
	}
}
