package doveadm

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// ErrLoginRefused is what a server's "-" after the login means: wrong name or
// password, or no password configured. A server never says which.
var ErrLoginRefused = errors.New("login refused")

// ErrNoSTARTTLS is a server with which ClientOptions.StartTLS cannot be done.
// Nothing secret has been sent to it.
var ErrNoSTARTTLS = errors.New("server does not offer STARTTLS")

// Phase is a step of the handshake.
type Phase int

// The phases of a handshake.
const (
	PhaseGreeting Phase = iota // nothing received yet
	PhaseSTARTTLS              // STARTTLS was sent, and there is no TLS yet
	PhaseLogin                 // greeted, not logged in
)

func (p Phase) String() string {
	switch p {
	case PhaseGreeting:
		return "greeting"
	case PhaseSTARTTLS:
		return "STARTTLS"
	}
	return "login"
}

// HandshakeError is a handshake that failed, and where. A server that accepts
// a connection and never greets has usually reached its process limit.
type HandshakeError struct {
	Phase Phase
	Err   error
}

func (e *HandshakeError) Error() string { return e.Phase.String() + ": " + e.Err.Error() }

func (e *HandshakeError) Unwrap() error { return e.Err }

// ClientOptions say how a client introduces itself.
type ClientOptions struct {
	// Username is "doveadm" if empty. Dovecot's servers accept no other name.
	Username string
	Password string

	// Minor is the version that is announced, at most MaxMinor. At the zero
	// value no log lines arrive, so that failures come without explanation;
	// write MaxMinor unless there is a reason.
	Minor Minor

	// StartTLS, if not nil, is called when the server asks for the login and
	// has been sent STARTTLS. It speaks the TLS handshake on nc and returns the
	// connection on which everything else is said, the login first. Servers
	// know STARTTLS from minor version 2 on; with others, and with one that
	// wants no login, the handshake fails and ErrNoSTARTTLS is the cause. For a
	// listener that begins with TLS, hand NewClientConn a TLS connection
	// instead.
	StartTLS func(nc net.Conn) (net.Conn, error)

	// OnLog, if not nil, is called with each log line that arrives while a
	// Reply is read, by the goroutine that reads. The text has no line end and
	// is the server's own; a server may send a level that has no name here. Of
	// a line of more than 32 KiB only the beginning is handed on.
	OnLog func(level LogLevel, text string)
}

// DefaultUsername is the only user name that Dovecot's servers accept.
const DefaultUsername = "doveadm"

// ClientConn is the client's side of one logged-in connection. It runs one
// command at a time and must not be used by two goroutines at once, except
// Close. Deadlines are set on NetConn.
//
// A tool calls Do. A program that passes replies on uses Send, ReadChunk and a
// ReplyScanner instead; the two ways are not to be mixed on one connection.
type ClientConn struct {
	nc      net.Conn
	in      readBuffer
	chunks  chunkReader
	minor   Minor // of the server; what both know is min(minor, ours)
	ours    Minor
	options bool // OPTION was sent
	out     []byte
	onLog   func(LogLevel, string)
	logs    logLines
	busy    bool  // a Reply has not been read to its end
	broken  error // why Do can send nothing more
}

// NewClientConn speaks the handshake on nc and returns the logged-in
// connection. It waits for ever unless nc has a deadline. On an error, which is
// a *HandshakeError, nc is left open.
func NewClientConn(nc net.Conn, o ClientOptions) (*ClientConn, error) {
	c := &ClientConn{nc: nc, in: newReadBuffer(nc, readSize), ours: min(o.Minor, MaxMinor), onLog: o.OnLog}
	if phase, err := c.handshake(o); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, &HandshakeError{Phase: phase, Err: err}
	}
	c.chunks.framed = min(c.minor, c.ours) >= MinorMultiplex
	return c, nil
}

func (c *ClientConn) handshake(o ClientOptions) (Phase, error) {
	if strings.IndexByte(o.Username, 0) >= 0 || strings.IndexByte(o.Password, 0) >= 0 {
		return PhaseGreeting, errors.New("NUL byte in user name or password")
	}
	// A client speaks first: servers since 2.2.34 are silent until then.
	c.out = appendVersion(c.out[:0], serviceWantedByClient, c.ours)
	if _, err := c.nc.Write(c.out); err != nil {
		return PhaseGreeting, err
	}
	phase, greeted, sentLogin := PhaseGreeting, false, false
	for {
		line, err := c.in.line(maxStatusLine)
		if err != nil {
			return phase, err
		}
		phase = PhaseLogin
		switch {
		case bytes.HasPrefix(line, versionPrefix):
			// Before "-"; servers 2.2.33 send it after "-".
			minor, ok := parseVersion(line, serviceWantedByServer)
			if !ok || greeted {
				return phase, &ProtocolError{What: fmt.Sprintf("server is not compatible: %.64q", line)}
			}
			c.minor, greeted = minor, true
		case string(line) == "+" && o.StartTLS != nil && !sentLogin:
			return phase, fmt.Errorf("%w: it asks for no login", ErrNoSTARTTLS)
		case string(line) == "+":
			return phase, nil
		case string(line) == "-" && !sentLogin:
			sentLogin = true
			if o.StartTLS != nil {
				if err := c.startTLS(o.StartTLS); err != nil {
					return PhaseSTARTTLS, err
				}
			}
			c.out = appendPlain(c.out[:0], o)
			_, err = c.nc.Write(c.out)
			clear(c.out)
			if err != nil {
				return phase, err
			}
		case string(line) == "-":
			return phase, ErrLoginRefused
		default:
			return phase, &ProtocolError{What: fmt.Sprintf("invalid handshake line: %.64q", line)}
		}
	}
}

// startTLS changes to TLS, which begins at once: the server sends no answer to
// the STARTTLS line, and nothing is repeated afterwards.
func (c *ClientConn) startTLS(start func(net.Conn) (net.Conn, error)) error {
	if c.minor < MinorSTARTTLS {
		return fmt.Errorf("%w: its version is 1.%d, STARTTLS came with 1.%d", ErrNoSTARTTLS, c.minor, MinorSTARTTLS)
	}
	if len(c.in.buffered()) > 0 {
		// Whoever put it there wants it to be read as if it had come encrypted.
		return &ProtocolError{What: "data between the greeting and the TLS handshake"}
	}
	if _, err := io.WriteString(c.nc, startTLSLine+"\n"); err != nil {
		return err
	}
	nc, err := start(c.nc)
	if err != nil {
		return err
	}
	c.nc, c.in = nc, newReadBuffer(nc, readSize)
	return nil
}

const startTLSLine = "STARTTLS"

var plainPrefix = []byte("PLAIN\t")

func appendPlain(dst []byte, o ClientOptions) []byte {
	name := o.Username
	if name == "" {
		name = DefaultUsername
	}
	msg := make([]byte, 0, len(name)+len(o.Password)+2)
	msg = append(msg, 0)
	msg = append(msg, name...)
	msg = append(msg, 0)
	msg = append(msg, o.Password...)
	dst = append(dst, plainPrefix...)
	dst = base64.StdEncoding.AppendEncode(dst, msg)
	clear(msg)
	return append(dst, '\n')
}

// NetConn returns the connection beneath, for deadlines and addresses. After
// STARTTLS it is the one that ClientOptions.StartTLS returned.
func (c *ClientConn) NetConn() net.Conn { return c.nc }

// ServerMinor returns the version that the server announced.
func (c *ClientConn) ServerMinor() Minor { return c.minor }

// OnLog has log lines go to on from now on, instead of where ClientOptions sent
// them. It must not be called while a reply is read.
func (c *ClientConn) OnLog(on func(level LogLevel, text string)) { c.onLog = on }

// Logs reports whether log lines arrive on this connection.
func (c *ClientConn) Logs() bool { return c.chunks.framed }

// Send writes the request of one command. On a connection on which both sides
// know minor version 3 the first one is preceded by the OPTION that switches
// the log channel on. If the error is ErrNUL or ErrLineTooLong, nothing was
// sent; after any other one the command may have arrived, whole or in part.
func (c *ClientConn) Send(cmd *Command) error {
	if cmd.hasNUL() {
		return ErrNUL
	}
	out := c.out[:0]
	both := min(c.minor, c.ours)
	option := both >= MinorExtraFields && !c.options
	if option {
		out = AppendCommand(out, &Command{Name: CommandOption, Args: []string{OptionLogPassthrough}}, both)
	}
	start := len(out)
	out = AppendCommand(out, cmd, both)
	if len(out)-start > MaxLine {
		return ErrLineTooLong
	}
	c.options = c.options || option
	_, err := c.nc.Write(out)
	if c.out = out; cap(out) > readSize {
		c.out = nil
	}
	return err
}

// ReadChunk returns the next piece of what the server sends. Chunks of other
// channels than ChannelReply and ChannelLog are to be ignored. Its error is
// io.EOF at the end of the stream, and io.ErrUnexpectedEOF if that is inside a
// packet or an escape; what arrived of the packet is returned first. After a
// timeout ReadChunk can be called again.
func (c *ClientConn) ReadChunk() (Chunk, error) { return c.chunks.next(&c.in) }

// ChunkReady reports whether ReadChunk would return without reading from the
// network: a chunk, or an error that is already known behind the last one.
func (c *ClientConn) ChunkReady() bool { return c.chunks.ready(&c.in) }

// Clean reports whether everything received has been consumed. Only a clean
// connection may be used for another command.
func (c *ClientConn) Clean() bool { return c.chunks.clean(&c.in) }

// Shrink gives memory back that a large packet needed; about 4 KiB remain. Call
// it before a connection rests. A Chunk stays valid.
func (c *ClientConn) Shrink() { c.in.shrink() }

// Close closes the connection. A command that runs on the server goes on: the
// server notices at its end.
func (c *ClientConn) Close() error { return c.nc.Close() }
