package pool

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsconn"
)

// link is one connection in the books of a pool. Its fields belong to whom the
// connection belongs to: the pool's mu, or a Conn.
type link struct {
	client   *doveadm.ClientConn
	epoch    uint64    // of its dial's start
	expires  time.Time // by max_lifetime; zero: never
	until    time.Time // idle: end of its rest; zero: none
	rested   bool      // has been idle
	broken   bool      // the backend may not read what is written
	commands int

	tls  *tlsconn.Socket // nil without TLS
	raw  syscall.RawConn // nil with TLS, or where there is no socket to look at
	peek func(fd uintptr)
	seen CloseReason
	buf  [1]byte
}

func newLink(client *doveadm.ClientConn, epoch uint64, lifetime time.Duration) *link {
	l := &link{client: client, epoch: epoch}
	if lifetime > 0 {
		l.expires = time.Now().Add(jittered(lifetime))
	}
	switch nc := client.NetConn().(type) {
	case *tls.Conn:
		l.tls, _ = nc.NetConn().(*tlsconn.Socket)
	case syscall.Conn:
		l.raw, _ = nc.SyscallConn()
		l.peek = l.look
	}
	return l
}

// close closes the connection. Over TLS it says so, which may take seconds
// where the backend does not read.
func (l *link) close() {
	if l.broken {
		cut(l.client)
	} else {
		l.client.Close()
	}
}

// cut closes a connection without a word and without waiting.
func cut(client *doveadm.ClientConn) {
	nc := client.NetConn()
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	nc.Close()
}

// jittered returns d less up to a tenth of it, so that connections opened
// together do not end together.
func jittered(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/10+1))
}

// spent returns why l is not used again after a command, or "" with l ready
// for another one.
func (l *link) spent(o Outcome, now time.Time, maxCommands int) CloseReason {
	l.broken = o == Failed || o == Abandoned
	switch {
	case o == Failed:
		return ClosedLost
	case o == Abandoned:
		return closedAbandoned
	case o != Reusable:
		return closedUsedUp
	case !l.client.Clean():
		return closedUnclean
	case maxCommands > 0 && l.commands >= maxCommands:
		return closedCommands
	case !l.expires.IsZero() && !now.Before(l.expires):
		return closedLifetime
	case l.client.NetConn().SetDeadline(time.Time{}) != nil:
		return ClosedLost
	}
	l.client.Shrink()
	return ""
}

// restFrom notes how long l may be idle.
func (l *link) restFrom(now time.Time, timeout time.Duration) {
	l.until = l.expires
	if timeout > 0 {
		if t := now.Add(timeout); l.until.IsZero() || t.Before(l.until) {
			l.until = t
		}
	}
}

// overdue returns why an idle l may not rest any longer, or "".
func (l *link) overdue(now time.Time) CloseReason {
	switch {
	case l.until.IsZero() || now.Before(l.until):
		return ""
	case l.until.Equal(l.expires):
		return closedLifetime
	}
	return closedIdle
}

// unusable looks at an idle connection without blocking and returns why it is
// of no more use, or "". Anything readable speaks against it: the end of the
// stream, the log line of a process that was told to stop, or output that came
// behind a status.
func (l *link) unusable(now time.Time) CloseReason {
	why := l.overdue(now)
	switch {
	case why != "":
		return why
	case l.tls != nil:
		return l.lookThroughTLS()
	case l.raw == nil:
		return ""
	}
	// Control and not Read: deadlines do not matter here.
	if l.raw.Control(l.peek) != nil {
		return closedDead
	}
	return l.seen
}

// look is what the raw connection calls for unusable. It is bound once and
// keeps what it needs in l, because it runs for each command.
func (l *link) look(fd uintptr) {
	n, _, err := syscall.Recvfrom(int(fd), l.buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	switch {
	case err == syscall.EAGAIN:
		l.seen = ""
	case err == nil && n > 0:
		l.seen = closedStray
	default:
		l.seen = closedDead
	}
}

// lookThroughTLS is look for what comes encrypted. What it reads of TLS's own
// affairs is for nobody else; after anything else the connection is closed.
func (l *link) lookThroughTLS() CloseReason {
	n := 0
	err := l.tls.Now(func() (err error) {
		n, err = l.client.NetConn().Read(l.buf[:])
		return err
	})
	switch {
	case n > 0:
		return closedStray
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return closedDead
	case l.tls.Inside():
		return closedStray // half of something
	}
	return ""
}
