package proxy_test

import (
	"crypto/sha256"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// largeRows is more than sockets and the memory of a spool hold.
const largeRows = 150

var largeRow = strings.Repeat("large row ", 6<<10)

// large answers fetch with rows that sockets do not hold, and tells when it has
// sent all of them.
func large(sent chan struct{}) handler {
	return func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name != "fetch" {
			answer(c, cmd)
			return
		}
		row := []byte("1\t" + largeRow + "\t")
		for range largeRows {
			c.Output(row)
		}
		c.Status("+")
		sent <- struct{}{}
	}
}

const fetchLarge = "\talice\tfetch\tuid text\tall\n"

// TestSlowClientHoldsNoBackend: a backend is rid of a reply before its client
// has read any of it, and works for others.
func TestSlowClientHoldsNoBackend(t *testing.T) {
	for _, p := range []pair{{client10, 0}, {client10, 3}, {client13, 0}, {client13, 3}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			sent := make(chan struct{}, 1)
			s, srv := startWith(t, p.backend, large(sent), both(oneFailureOpens, func(c *config.Config) {
				first(c).Pool.MaxOpen, first(c).Pool.MaxIdle = 1, 1
				// Enough for one reply at a time.
				c.Limits.MaxSpool = largeRows * int64(len(largeRow)+100)
			}))
			other := s.login(t, p.client)
			for range 2 {
				slow := s.loginSlowly(t, p.client)
				must(t, slow.send(fetchLarge))
				<-sent
				if r := other.works(t); r.output != "alice\t1\t" {
					t.Errorf("another client got %q", r.output)
				}
				r, err := slow.reply()
				must(t, err)
				want := sha256.Sum256([]byte(strings.Repeat("1\t"+largeRow+"\t", largeRows)))
				if sha256.Sum256([]byte(r.output)) != want || r.status != "+" {
					t.Errorf("the slow client got %d bytes and status %q", len(r.output), r.status)
				}
				slow.works(t)
			}
			if got := srv.Accepted(); got != 1 {
				t.Errorf("%d connections to the backend, want 1", got)
			}
		})
	}
}

// truncated reads the rest of the connection, which ends inside a reply.
func (c *client) truncated(t *testing.T) {
	t.Helper()
	r, err := c.reply()
	switch {
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		t.Errorf("%v after status %q, want the end of the connection", err, r.status)
	case r.status != "" || strings.Contains(r.output, "+"):
		t.Errorf("a truncated reply has status %q", r.status)
	case len(r.output) == 0 || len(r.output) >= largeRows*len(largeRow):
		t.Errorf("%d bytes of a truncated reply", len(r.output))
	}
}

// TestMaxSpool: a reply that grows over the limit ends with the connection and
// never with a success, and gives back what it took.
func TestMaxSpool(t *testing.T) {
	for _, p := range []pair{{client10, 3}, {client13, 0}, {client13, 3}} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			sent := make(chan struct{}, 10)
			s, srv := startWith(t, p.backend, large(sent), both(oneFailureOpens, func(c *config.Config) { c.Limits.MaxSpool = 2 << 20 }))
			for range 3 {
				c := s.loginSlowly(t, p.client)
				must(t, c.send(fetchLarge))
				s.log.wait(t, "peer="+c.nc.LocalAddr().String()+" ", "command=fetch", "outcome=client-gone", "the client reads too slowly: limits.max_spool is reached")
				c.truncated(t)
				<-sent
				eventually(t, "the connection to the backend is closed", func() bool { return len(srv.Conns()) == 0 })
			}
			// What one that stays below it may take is there again.
			s.cfg.Limits.MaxSpool = 1 << 30
			if err := s.Reload(s.cfg); err != nil {
				t.Fatal(err)
			}
			c := s.loginSlowly(t, p.client)
			must(t, c.send(fetchLarge))
			<-sent
			if r, err := c.reply(); err != nil || r.status != "+" {
				t.Errorf("with room for it: status %q, %v", r.status, err)
			}
		})
	}
}

// TestWriteTimeout ends the session of a client that takes nothing, and not of
// one that takes long.
func TestWriteTimeout(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{}, 10)
	const limit = time.Second
	s, _ := startWith(t, 3, large(sent), func(c *config.Config) { c.Limits.WriteTimeout = limit })

	mute := s.loginSlowly(t, client13)
	must(t, mute.send(fetchLarge))
	begin := time.Now()
	s.log.wait(t, "command=fetch", "outcome=client-gone", "the client took nothing for 1s (limits.write_timeout)")
	if took := time.Since(begin); took < limit {
		t.Errorf("given up after %v", took)
	}
	mute.truncated(t)

	slow := s.loginSlowly(t, client13)
	must(t, slow.send(fetchLarge))
	<-sent
	const pieces = 200
	got, begin := 0, time.Now()
	for piece := make([]byte, largeRows*len(largeRow)/pieces); ; time.Sleep(2 * limit / pieces) {
		n, err := io.ReadFull(slow.in, piece)
		if got += n; err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		must(t, err)
		if got > (largeRows-1)*len(largeRow) {
			slow.nc.CloseWrite() // nothing comes behind the reply
		}
	}
	if took := time.Since(begin); got < largeRows*len(largeRow) || took < 2*limit {
		t.Errorf("a client that reads slowly got %d bytes in %v", got, took)
	}
	s.log.wait(t, "command=fetch", "outcome=answered")
}
