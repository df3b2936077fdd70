package doveadm

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
)

// ErrLoginFailed is the error of Handshake when authenticate said no.
var ErrLoginFailed = errors.New("login failed")

// maxHandshakeLine bounds the lines of a peer that is not logged in.
const maxHandshakeLine = 8 << 10

// ServerConn is the server's side of one connection: Handshake, then
// ReadCommand and one reply for each command. It must not be used by two
// goroutines at once, except Close, and after the handshake Logs and the Append
// methods: they keep no state, so that replies can be made side by side, sent
// in another order than they were made in, and dropped. Deadlines are set on
// NetConn; without them it waits for a silent client for ever.
type ServerConn struct {
	// StartTLS, if it is set before Handshake, lets clients say STARTTLS
	// instead of their login. It speaks the TLS handshake on nc and returns the
	// connection on which everything else is said, the login first. For a
	// listener that begins with TLS, hand NewServerConn a TLS connection
	// instead.
	StartTLS func(nc net.Conn) (net.Conn, error)

	nc      net.Conn
	in      readBuffer
	minor   Minor // of the client
	logs    atomic.Bool
	started bool // the client's VERSION was read, so that it expects an answer
	maxLine int
	last    string // the line of the last command, for a client that repeats it
}

// keepLine is how long a line may be that is kept while its client is idle.
const keepLine = 512

// NewServerConn returns the server's side of nc. Lines after the handshake may
// be up to maxLine bytes long; 0 means MaxLine.
func NewServerConn(nc net.Conn, maxLine int) *ServerConn {
	if maxLine <= 0 {
		maxLine = MaxLine
	}
	return &ServerConn{nc: nc, in: newReadBuffer(nc, firstSize), maxLine: maxLine}
}

// Handshake reads the client's VERSION, greets, and reads its login, which
// authenticate decides. A nil authenticate greets with "+": the connection is
// trusted already, and such a client cannot say STARTTLS. The error is
// ErrLoginFailed if authenticate said no, its own error or that of StartTLS if
// they had one, a *ProtocolError, or that of the connection. The caller then
// closes; RefuseLogin says no to the client first, where that is due.
//
// Whether a login was sent in clear text authenticate sees from NetConn.
func (s *ServerConn) Handshake(authenticate func(username, password string) (bool, error)) error {
	if err := s.readVersion(); err != nil {
		return err
	}
	var room [64]byte // enough for all that is said here
	out := room[:0]
	if s.minor >= MinorMultiplex {
		out = appendVersion(out, serviceWantedByServer, MaxMinor)
	}
	if authenticate == nil {
		_, err := s.nc.Write(append(out, s.welcome()...))
		return err
	}
	if _, err := s.nc.Write(append(out, "-\n"...)); err != nil {
		return err
	}
	line, err := s.in.line(maxHandshakeLine)
	if err == nil && string(line) == startTLSLine && s.StartTLS != nil {
		if err := s.startTLS(); err != nil {
			return err
		}
		line, err = s.in.line(maxHandshakeLine)
	}
	if err != nil {
		return handshakeEOF(err, "before its login")
	}
	username, password, err := parsePlain(line)
	if err != nil {
		return err
	}
	ok, err := authenticate(username, password)
	if err != nil {
		return err
	}
	if !ok {
		return ErrLoginFailed
	}
	_, err = s.nc.Write(append(room[:0], s.welcome()...))
	return err
}

// welcome ends the handshake. Dovecot sends the header of STREAM with the first
// data; it belongs to no reply, which might be dropped.
func (s *ServerConn) welcome() string {
	if s.stream() {
		return "+\n" + StreamHeader
	}
	return "+\n"
}

// stream reports whether the client reads STREAM format.
func (s *ServerConn) stream() bool { return s.minor >= MinorStream }

// startTLS changes to TLS. A client may have begun with it already; whatever
// else it sent behind the line breaks the TLS handshake, so that nothing that
// came in clear text is read afterwards.
func (s *ServerConn) startTLS() error {
	nc := s.nc
	if early := s.in.buffered(); len(early) > 0 {
		nc = &unreadConn{Conn: nc, unread: early}
	}
	s.started = false
	nc, err := s.StartTLS(nc)
	if err != nil {
		return err
	}
	s.nc, s.in, s.started, s.StartTLS = nc, newReadBuffer(nc, firstSize), true, nil
	return nil
}

// unreadConn is a connection of which something was read ahead.
type unreadConn struct {
	net.Conn
	unread []byte
}

func (c *unreadConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// handshakeEOF says when the peer went away.
func handshakeEOF(err error, when string) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("client disconnected %s: %w", when, err)
	case errors.Is(err, ErrLineTooLong):
		return &ProtocolError{What: fmt.Sprintf("handshake line longer than %d bytes", maxHandshakeLine)}
	}
	return err
}

func (s *ServerConn) readVersion() error {
	// The first bytes of a TLS ClientHello hold no line end, so that waiting
	// for one would only run into the deadline.
	if s.in.r == s.in.w {
		if err := s.in.fill(0); err != nil {
			return handshakeEOF(err, "before its VERSION line")
		}
	}
	if p := s.in.buffered(); len(p) > 0 && p[0] == 0x16 {
		if s.StartTLS != nil {
			return &ProtocolError{What: "TLS handshake on a listener that expects STARTTLS first"}
		}
		return &ProtocolError{What: "TLS handshake on a listener without TLS"}
	}
	line, err := s.in.line(maxHandshakeLine)
	if err != nil {
		return handshakeEOF(err, "before its VERSION line")
	}
	minor, ok := parseVersion(line, serviceWantedByClient)
	if !ok {
		if bytes.HasPrefix(line, plainPrefix) {
			return &ProtocolError{What: "login without a VERSION line before it"}
		}
		return &ProtocolError{What: fmt.Sprintf("not a doveadm client: %.64q", line)}
	}
	s.minor = minor
	s.started = true
	// Servers 1.3 and higher send log lines to clients of 1 and 2 on their
	// own, and to later ones when they ask.
	s.logs.Store(minor == MinorMultiplex || minor == MinorSTARTTLS)
	return nil
}

// parsePlain parses the PLAIN line. Its errors never hold a part of the line,
// which may contain a password.
func parsePlain(line []byte) (username, password string, err error) {
	data, ok := bytes.CutPrefix(line, plainPrefix)
	if !ok {
		if string(line) == startTLSLine {
			return "", "", &ProtocolError{What: "STARTTLS where it is not offered"}
		}
		return "", "", &ProtocolError{What: "login by another mechanism than PLAIN"}
	}
	// The padding may be missing.
	msg, err := base64.RawStdEncoding.AppendDecode(nil, bytes.TrimRight(data, "="))
	defer clear(msg)
	if err != nil {
		return "", "", &ProtocolError{What: "login is not valid base64"}
	}
	parts := bytes.SplitN(msg, []byte{0}, 3)
	if len(parts) != 3 {
		return "", "", &ProtocolError{What: "login is not of the form PLAIN asks for"}
	}
	if len(parts[0]) > 0 {
		return "", "", &ProtocolError{What: "login with an authorization id"}
	}
	return string(parts[1]), string(parts[2]), nil
}

// RefuseLogin writes the "-" that tells a client that its login failed.
// Dovecot does so for a failed login only and closes without a word on a bad
// VERSION line.
func (s *ServerConn) RefuseLogin() error {
	if !s.started {
		return nil
	}
	_, err := io.WriteString(s.nc, "-\n")
	return err
}

// Refuse is Handshake, or what follows the error of an authenticate, for a
// client that is not let in for a reason that is not its login. The doveadm
// command prints the reason, which is one line of text.
func (s *ServerConn) Refuse(reason string) error {
	var out []byte
	if !s.started {
		if err := s.readVersion(); err != nil {
			return err
		}
		if s.minor >= MinorMultiplex {
			out = appendVersion(out, serviceWantedByServer, MaxMinor)
		}
	}
	_, err := s.nc.Write(append(append(append(out, '-'), reason...), '\n'))
	return err
}

// ReadCommand reads the next request into cmd, whose slices are used again as
// Command.Parse says. OPTION requests are obeyed and not returned, as they have
// no reply. The error is io.EOF if the client
// closed between two commands, ErrLineTooLong, ErrNoCommand, ErrNUL, an
// UnknownFlagError or that of the connection; after each the connection can
// only be closed.
func (s *ServerConn) ReadCommand(cmd *Command) error {
	for {
		line, err := s.in.line(s.maxLine)
		if err != nil {
			return err
		}
		text := s.last
		if text != string(line) {
			if text = string(line); len(text) <= keepLine {
				s.last = text
			}
		}
		if err := cmd.parse(text); err != nil {
			return err
		}
		if cmd.Name != CommandOption {
			return nil
		}
		if slices.Contains(cmd.Args, OptionLogPassthrough) && s.minor >= MinorMultiplex {
			s.logs.Store(true)
		}
	}
}

// NetConn returns the connection beneath, for deadlines and addresses. After
// STARTTLS it is the one that StartTLS returned.
func (s *ServerConn) NetConn() net.Conn { return s.nc }

// ClientMinor returns the version that the client announced.
func (s *ServerConn) ClientMinor() Minor { return s.minor }

// Logs reports whether the client receives log lines.
func (s *ServerConn) Logs() bool { return s.logs.Load() }

// Pipelined reports whether bytes of a further command have arrived.
func (s *ServerConn) Pipelined() bool { return s.in.r < s.in.w }

// ReadAhead reads from the connection once, so that Pipelined knows of what has
// come since. Over TLS each record takes a read of its own.
func (s *ServerConn) ReadAhead() error { return s.in.fill(0) }

// Shrink gives memory back that a long line needed; about 4 KiB remain. Call it
// before the connection rests.
func (s *ServerConn) Shrink() { s.in.shrink() }

// AppendReply appends data of channel 0 as this client reads it: in STREAM
// format, as one packet, or as it is at minor version 0. Of no data it makes no
// packet.
func (s *ServerConn) AppendReply(dst, data []byte) []byte {
	if s.minor < MinorMultiplex {
		return append(dst, data...)
	}
	return s.appendFrame(dst, ChannelReply, data)
}

func (s *ServerConn) appendFrame(dst []byte, channel byte, data []byte) []byte {
	switch {
	case len(data) == 0:
		return dst
	case s.stream():
		return AppendStream(dst, channel, data)
	}
	return AppendPacket(dst, channel, data)
}

// AppendNothing appends a frame without data, which clients pass over: what a
// server can send to see whether the client is still there. At minor version 0
// there is nothing of the kind.
func (s *ServerConn) AppendNothing(dst []byte) []byte {
	switch {
	case s.minor < MinorMultiplex:
		return dst
	case s.stream():
		return append(append(dst, streamEscape...), streamSwitch, ChannelReply)
	}
	return AppendPacket(dst, ChannelReply, nil)
}

// AppendLogs appends data of the log channel. Without one, it appends nothing.
func (s *ServerConn) AppendLogs(dst, data []byte) []byte {
	if !s.Logs() {
		return dst
	}
	return s.appendFrame(dst, ChannelLog, data)
}

// AppendLog appends one log line. Control characters in text become spaces and
// what is longer than a client's 32 KiB is cut off.
// It belongs in front of the status of its command: clients drop what arrives
// later.
func (s *ServerConn) AppendLog(dst []byte, level LogLevel, text string) []byte {
	if !s.Logs() {
		return dst
	}
	return s.AppendLogs(dst, appendLogLine(nil, level, text))
}

// AppendEnd appends the LF that ends the output and the status line.
func (s *ServerConn) AppendEnd(dst []byte, status Status) []byte {
	var room [64]byte
	return s.AppendReply(dst, AppendStatus(append(room[:0], '\n'), status))
}

// Close closes the connection.
func (s *ServerConn) Close() error { return s.nc.Close() }
