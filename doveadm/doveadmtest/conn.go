package doveadmtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Conn is one connection of a Server. Its methods write at once and ignore
// errors: the client may have gone. They may be called by any goroutine.
type Conn struct {
	server *Server
	number int
	mu     sync.Mutex // guards nc
	nc     net.Conn
	in     *bufio.Reader
	client doveadm.Minor
	framed bool
	stream bool // framed in STREAM format
	logs   bool

	streaming sync.Mutex // guards what follows; held until it is written
	begun     bool       // the header of STREAM has been written
	channel   byte       // of STREAM
}

// Number is 1 for the first connection of the server, 2 for the second.
func (c *Conn) Number() int { return c.number }

// ClientMinor is the version that the client announced. It and Logs are for
// the Handler.
func (c *Conn) ClientMinor() doveadm.Minor { return c.client }

// Logs reports whether the client gets log lines; Log writes them in any case
// where there is a channel for them.
func (c *Conn) Logs() bool { return c.logs }

// Context ends when the server is closed. A handler that waits for something
// waits for it, too.
func (c *Conn) Context() context.Context { return c.server.ctx }

// Fields writes output fields, all in one packet. Of STREAM format, what is
// said here of a packet is true of a write.
func (c *Conn) Fields(fields ...string) {
	var data []byte
	for _, f := range fields {
		data = doveadm.AppendEscaped(data, f)
		data = append(data, '\t')
	}
	c.Output(data)
}

// Output writes data of channel 0 as it is, in one packet.
func (c *Conn) Output(data []byte) { c.write(doveadm.ChannelReply, data) }

// Log writes one log line. At minor version 0 it writes nothing.
func (c *Conn) Log(level doveadm.LogLevel, text string) {
	c.write(doveadm.ChannelLog, []byte(string(rune(level))+text+"\n"))
}

func (c *Conn) write(channel byte, data []byte) {
	c.streaming.Lock()
	defer c.streaming.Unlock()
	c.Raw(c.frame(channel, data))
}

// Frame returns data of a channel as the client reads it, to be written by Raw
// together with other bytes: a packet, a piece of STREAM format, or at minor
// version 0 data of channel 0 as it is and of others nothing. What is framed
// is to be written in the same order, without Output or Log in between.
func (c *Conn) Frame(channel byte, data []byte) []byte {
	c.streaming.Lock()
	defer c.streaming.Unlock()
	return c.frame(channel, data)
}

func (c *Conn) frame(channel byte, data []byte) []byte {
	switch {
	case !c.framed && channel == doveadm.ChannelReply:
		return data
	case !c.framed:
		return nil
	case !c.stream:
		return doveadm.AppendPacket(nil, channel, data)
	}
	// As Dovecot does it: the header with the first data, and a switch where
	// the channel changes.
	var out string
	if !c.begun {
		c.begun = true
		out = "\xff\xff\xff\xff\xff\x00\x02\x03\xfe"
	}
	if channel != c.channel {
		c.channel = channel
		out += "\x03\xfe\x00" + string([]byte{channel})
	}
	body := strings.ReplaceAll(string(data), "\x03\xfe", "\x03\xfe\x01\xfe")
	if rest, ok := strings.CutSuffix(body, "\x03"); ok {
		body = rest + "\x03\xfe\x01"
	}
	return []byte(out + body)
}

// Status ends a reply: it writes an LF and line, such as "+" or "-NOUSER", in
// one packet.
func (c *Conn) Status(line string) { c.Output([]byte("\n" + line + "\n")) }

// Raw writes p on the connection, without a packet around it. Over TLS it is
// written as one record.
func (c *Conn) Raw(p []byte) { c.conn().Write(p) }

// Drip writes p byte by byte with a pause after each.
func (c *Conn) Drip(p []byte, pause time.Duration) {
	for i := range p {
		c.Raw(p[i : i+1])
		select {
		case <-time.After(pause):
		case <-c.Context().Done():
			return
		}
	}
}

// Close closes the connection, over TCP with FIN if the client's bytes have
// been read.
func (c *Conn) Close() { c.conn().Close() }

// Cut closes a TLS connection without saying so in TLS; without TLS it is
// Close.
func (c *Conn) Cut() { c.socket().Close() }

// conn returns the connection, which STARTTLS replaces.
func (c *Conn) conn() net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nc
}

// socket returns what is below TLS.
func (c *Conn) socket() net.Conn {
	nc := c.conn()
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if b, ok := nc.(bufferedConn); ok {
		nc = b.Conn
	}
	return nc
}

// bufferedConn is a connection that is read through a buffer.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (b bufferedConn) Read(p []byte) (int, error) { return b.in.Read(p) }

// startTLS is the end of the connection in clear text. The first bytes of TLS
// may have been read together with the STARTTLS line.
func (c *Conn) startTLS(config *tls.Config) error {
	nc := tls.Server(bufferedConn{c.nc, c.in}, config)
	if err := nc.Handshake(); err != nil {
		return err
	}
	c.mu.Lock()
	c.nc = nc
	c.mu.Unlock()
	c.in = bufio.NewReader(nc)
	return nil
}

// Reset closes the connection with RST: the client's next read or write fails.
func (c *Conn) Reset() {
	nc := c.socket()
	switch nc := nc.(type) {
	case *net.TCPConn:
		nc.SetLinger(0)
	case *pipeConn:
		nc.reset()
	}
	nc.Close()
}

// Input reads the dot-ended input of a command, to its final line, and returns
// it as it was sent. Only the Handler may call it.
func (c *Conn) Input() (string, error) {
	var all strings.Builder
	for {
		line, err := c.in.ReadString('\n')
		all.WriteString(line)
		if err != nil || line == ".\r\n" || line == ".\n" {
			return all.String(), err
		}
	}
}

// Rest reads until the client has no more to say. Only the Handler may call
// it.
func (c *Conn) Rest() (string, error) {
	text, err := io.ReadAll(c.in)
	return string(text), err
}

// Hang says nothing more: it swallows what arrives until the client or the
// server closes. Only the Handler and Connected may call it.
func (c *Conn) Hang() {
	io.Copy(io.Discard, c.socket()) // as it is: in TLS it says nothing either
	c.Close()
}

func (c *Conn) serve() {
	defer c.server.running.Done()
	defer c.server.gone(c)
	defer c.Close()
	c.in = bufio.NewReader(c.nc)
	o := &c.server.options
	if o.Connected != nil {
		o.Connected(c)
	}
	if !c.handshake(o) {
		return
	}
	for {
		line, err := c.line()
		if err != nil {
			return
		}
		var cmd doveadm.Command
		if err := cmd.Parse([]byte(line)); err != nil {
			c.Log(doveadm.LogError, "doveadm client: "+err.Error())
			return
		}
		flags, _, _ := strings.Cut(line, "\t")
		switch {
		case strings.Contains(flags, "x") && o.Minor < doveadm.MinorExtraFields:
			c.Log(doveadm.LogError, "doveadm client: Unknown flag: x")
			return
		case cmd.Name == doveadm.CommandOption && o.Minor >= doveadm.MinorExtraFields:
			c.logs = c.logs || slices.Contains(cmd.Args, doveadm.OptionLogPassthrough)
			continue
		}
		c.server.received(&cmd)
		switch {
		case cmd.Name == doveadm.CommandOption:
			// An old server takes it for a command.
			c.Log(doveadm.LogError, "doveadm: Client sent unknown command: OPTION")
			c.Status("-")
		case o.Handler != nil:
			o.Handler(c, &cmd)
		default:
			c.Status("+")
		}
	}
}

func (c *Conn) line() (string, error) {
	line, err := c.in.ReadString('\n')
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

func (c *Conn) handshake(o *Options) bool {
	greeting := "-\n"
	if o.Password == "" {
		greeting = "+\n"
	}
	greetFirst := o.Minor == doveadm.MinorBase || o.GreetFirst
	if greetFirst {
		c.Raw([]byte(greeting))
	}
	line, err := c.line()
	version, ok := strings.CutPrefix(line, "VERSION\tdoveadm-server\t1\t")
	if err != nil || !ok {
		return false
	}
	minor, err := strconv.ParseUint(version, 10, 32)
	if err != nil {
		return false
	}
	c.client = doveadm.Minor(minor)
	both := min(c.client, o.Minor)
	c.framed = both >= doveadm.MinorMultiplex
	c.stream = both >= doveadm.MinorStream
	c.logs = c.framed && both < doveadm.MinorExtraFields

	var answer string
	if c.framed {
		answer = fmt.Sprintf("VERSION\tdoveadm-client\t1\t%d\n", o.Minor)
	}
	if !greetFirst {
		answer += greeting
	}
	if answer != "" {
		c.Raw([]byte(answer))
	}
	if o.Password == "" {
		return true
	}
	if line, err = c.line(); err != nil {
		return false
	}
	if line == "STARTTLS" && o.STARTTLS {
		if c.startTLS(o.TLS) != nil {
			return false
		}
		if line, err = c.line(); err != nil {
			return false
		}
	}
	if line != "PLAIN\t"+base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00"+o.Password)) {
		c.Raw([]byte("-\n"))
		return false
	}
	c.Raw([]byte("+\n"))
	return true
}
