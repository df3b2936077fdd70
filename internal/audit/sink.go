package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// Sink is where records go. It belongs to the Log that uses it.
type Sink struct {
	buffer int64
	refuse bool
	name   string // for the log
	target
}

// target takes whole lines. Only one goroutine uses it at a time.
type target interface {
	// write returns how many bytes of lines are written for good, which ends
	// with a line.
	write(lines []byte) (int, error)
	// reopen begins anew, after a file was renamed for instance. What was
	// open stays in use if it fails.
	reopen() error
	close() error
}

// Open opens what c names; it returns nil if that is no audit log.
func Open(c config.Audit) (*Sink, error) {
	s := &Sink{buffer: c.Buffer, refuse: c.Refuse, name: c.To + " " + c.Path}
	switch c.To {
	case "":
		return nil, nil
	case config.AuditSyslog:
		host, err := os.Hostname()
		if err != nil {
			host = "-"
		}
		s.target = &socket{path: c.Path, frame: syslogFrame(host, os.Getpid())}
	case config.AuditJournal:
		s.target = &socket{path: c.Path, frame: journalFrame}
	default:
		s.target = &file{path: c.Path, mode: c.Mode, limit: c.MaxSize, keep: c.Keep}
	}
	if err := s.reopen(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return s, nil
}

// Close closes a sink that no Log uses.
func (s *Sink) Close() {
	if s != nil {
		s.close()
	}
}

// file is an append-only file.
type file struct {
	path  string
	mode  fs.FileMode
	limit int64 // bytes; 0: none
	keep  int

	f    *os.File
	size int64
	// regular: it is a file, and not a terminal or the like.
	regular bool
}

func (t *file) reopen() error {
	// Without O_NONBLOCK a pipe that somebody put there would block for ever.
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, t.mode)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
		err = fmt.Errorf("%s is not a regular file", t.path)
	}
	if err != nil {
		f.Close()
		return err
	}
	t.close()
	t.f, t.size, t.regular = f, info.Size(), info.Mode().IsRegular()
	return nil
}

func (t *file) close() error {
	if t.f == nil {
		return nil
	}
	return t.f.Close()
}

func (t *file) write(lines []byte) (done int, err error) {
	for done < len(lines) {
		part := lines[done:]
		if t.limit > 0 && t.regular {
			if part = t.fitting(part); part == nil {
				if err := t.rotate(); err != nil {
					return done, err
				}
				continue
			}
		}
		n, err := t.f.Write(part)
		if err != nil {
			// What is there of a line is taken back: the next attempt writes
			// it whole, perhaps into another file.
			whole := bytes.LastIndexByte(part[:n], '\n') + 1
			if t.regular && n > whole {
				t.f.Truncate(t.size + int64(whole))
			}
			t.size += int64(whole)
			return done + whole, err
		}
		t.size += int64(n)
		done += n
	}
	return done, nil
}

// fitting returns the lines for which there is room, nil if there is none for
// the first one. An empty file has room for any.
func (t *file) fitting(lines []byte) []byte {
	room := t.limit - t.size
	if int64(len(lines)) <= room {
		return lines
	}
	end := 0
	if room > 0 {
		end = bytes.LastIndexByte(lines[:room], '\n') + 1
	}
	if end == 0 && t.size == 0 {
		end = bytes.IndexByte(lines, '\n') + 1
	}
	if end == 0 {
		return nil
	}
	return lines[:end]
}

// rotate renames the full file and begins a new one, unless somebody else has
// done so: a process that this one replaces may write to it, too.
func (t *file) rotate() error {
	ours, err := t.f.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(t.path); err == nil && !os.SameFile(ours, there) {
		return t.reopen()
	}
	numbered := func(n int) string { return t.path + "." + strconv.Itoa(n) }
	for n := t.keep - 1; n >= 1; n-- {
		if err := os.Rename(numbered(n), numbered(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(t.path, numbered(1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.reopen()
}

// socket is a datagram socket, with one message for each record.
type socket struct {
	path  string
	frame func(b []byte, record []byte, at time.Time) []byte
	conn  *net.UnixConn
	buf   []byte
}

// socketTimeout is how long a reader that takes nothing is waited for.
const socketTimeout = 5 * time.Second

func (t *socket) reopen() error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: t.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	t.close()
	t.conn = conn
	return nil
}

func (t *socket) close() error {
	if t.conn == nil {
		return nil
	}
	return t.conn.Close()
}

func (t *socket) write(lines []byte) (done int, err error) {
	for done < len(lines) {
		end := bytes.IndexByte(lines[done:], '\n')
		t.buf = t.frame(t.buf[:0], lines[done:done+end], time.Now())
		t.conn.SetWriteDeadline(time.Now().Add(socketTimeout))
		if _, err := t.conn.Write(t.buf); err != nil {
			// The reader may have been started anew.
			t.reopen()
			return done, err
		}
		done += end + 1
	}
	return done, nil
}

// syslogFrame makes messages of RFC 5424: facility authpriv, severity
// informational.
func syslogFrame(host string, pid int) func(b, record []byte, at time.Time) []byte {
	const authpriv, informational = 10, 6
	begin := fmt.Sprintf("<%d>1 ", authpriv<<3|informational)
	rest := fmt.Sprintf(" %s doveadm-proxy %d audit - ", host, pid)
	return func(b, record []byte, at time.Time) []byte {
		b = append(b, begin...)
		b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
		b = append(b, rest...)
		return append(b, record...)
	}
}

// journalFrame makes messages of the journal's native protocol
// (systemd.io/JOURNAL_NATIVE_PROTOCOL). A record has no line end in it.
func journalFrame(b, record []byte, _ time.Time) []byte {
	b = append(b, "PRIORITY=6\nSYSLOG_IDENTIFIER=doveadm-proxy-audit\nMESSAGE="...)
	b = append(b, record...)
	return append(b, '\n')
}
