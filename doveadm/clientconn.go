package doveadm

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
)

// ErrLoginRefused is what a server's "-" after the login means: wrong name or
// password, or no password configured. A server never says which.
var ErrLoginRefused = errors.New("login refused")

// Phase is a step of the handshake.
type Phase int

// The phases of a handshake.
const (
	PhaseGreeting Phase = iota // nothing received yet
	PhaseLogin                 // greeted, not logged in
)

func (p Phase) String() string {
	if p == PhaseGreeting {
		return "greeting"
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

	// Minor is the version that is announced.
	Minor Minor

	// OnLog, if not nil, is called with each log line that arrives while a
	// Reply is read. The text has no line end and is the server's own.
	OnLog func(level LogLevel, text string)
}

// DefaultUsername is the only user name that Dovecot's servers accept.
const DefaultUsername = "doveadm"

// ClientConn is the client's side of one logged-in connection. It runs one
// command at a time and must not be used by two goroutines at once. Deadlines
// are set on NetConn.
type ClientConn struct {
	nc      net.Conn
	in      readBuffer
	chunks  chunkReader
	minor   Minor // of the server; what both know is min(minor, ours)
	ours    Minor
	options bool // OPTION was sent
	out     []byte
	onLog   func(LogLevel, string)
}

// NewClientConn speaks the handshake on nc and returns the logged-in
// connection. On an error, which is a *HandshakeError, nc is left open.
func NewClientConn(nc net.Conn, o ClientOptions) (*ClientConn, error) {
	c := &ClientConn{nc: nc, in: newReadBuffer(nc), ours: min(o.Minor, MaxMinor), onLog: o.OnLog}
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
	// A client speaks first: servers since 2.2.34 are silent until then.
	c.out = appendVersion(c.out[:0], serviceWantedByClient, c.ours)
	if _, err := c.nc.Write(c.out); err != nil {
		return PhaseGreeting, err
	}
	phase, sentLogin := PhaseGreeting, false
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
			if !ok {
				return phase, &ProtocolError{What: fmt.Sprintf("server is not compatible: %.64q", line)}
			}
			c.minor = minor
		case string(line) == "+":
			return phase, nil
		case string(line) == "-" && !sentLogin:
			sentLogin = true
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

// NetConn returns the connection beneath, for deadlines and addresses.
func (c *ClientConn) NetConn() net.Conn { return c.nc }

// ServerMinor returns the version that the server announced.
func (c *ClientConn) ServerMinor() Minor { return c.minor }

// Logs reports whether log lines arrive on this connection.
func (c *ClientConn) Logs() bool { return c.chunks.framed }

// Send writes the request of one command. On a connection on which both sides
// know minor version 3 the first one is preceded by the OPTION that switches
// the log channel on.
func (c *ClientConn) Send(cmd *Command) error {
	c.out = c.out[:0]
	both := min(c.minor, c.ours)
	if both >= MinorExtraFields && !c.options {
		c.options = true
		c.out = AppendCommand(c.out, &Command{Name: CommandOption, Args: []string{OptionLogPassthrough}}, both)
	}
	c.out = AppendCommand(c.out, cmd, both)
	if len(c.out) > MaxLine {
		return ErrLineTooLong
	}
	_, err := c.nc.Write(c.out)
	if cap(c.out) > readSize {
		c.out = nil
	}
	return err
}

// ReadChunk returns the next piece of what the server sends. Its error is
// io.EOF or io.ErrUnexpectedEOF at the end of the stream.
func (c *ClientConn) ReadChunk() (Chunk, error) { return c.chunks.next(&c.in) }

// ChunkReady reports whether ReadChunk has something without reading from the
// network.
func (c *ClientConn) ChunkReady() bool { return c.chunks.ready(&c.in) }

// Clean reports whether everything received has been consumed. Only a clean
// connection may be used for another command.
func (c *ClientConn) Clean() bool { return c.chunks.clean(&c.in) }

// Shrink gives memory back that a large packet needed. Call it before a clean
// connection rests.
func (c *ClientConn) Shrink() { c.in.shrink() }

// Close closes the connection. A command that runs on the server goes on: the
// server notices at its end.
func (c *ClientConn) Close() error { return c.nc.Close() }
