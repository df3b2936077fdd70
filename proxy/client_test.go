package proxy_test

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// clientKind is a version of the protocol as a client speaks it.
type clientKind struct {
	name   string
	minor  int
	option bool // asks for the log channel, as clients of 1.3 do
}

var (
	client10     = clientKind{"1.0", 0, false}
	client13     = clientKind{"1.3", 3, true}
	client13mute = clientKind{"1.3 without OPTION", 3, false}
	client14     = clientKind{"1.4", 4, true}

	clientKinds = []clientKind{client10, {"1.1", 1, false}, {"1.2", 2, false}, client13, client13mute, client14}
)

func (k clientKind) framed() bool { return k.minor > 0 }

// stream reports whether the frames are of STREAM format.
func (k clientKind) stream() bool { return k.minor >= 4 }

func (k clientKind) logs() bool { return k.minor == 1 || k.minor == 2 || k.option }

// client speaks the protocol by hand, so that a mistake of package doveadm does
// not meet the same mistake here.
type client struct {
	clientKind
	nc  halfConn // tcp, or TLS on it
	tcp *net.TCPConn
	in  *bufio.Reader

	channel byte // of STREAM

	// ahead: commands are sent ahead, so that a reply may follow another in
	// one read. At minor versions 0 and 4 nothing marks its end but the status.
	ahead bool
	left  string // of the next reply
}

// halfConn can be closed in one direction.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// connect opens a connection that says nothing.
func (s *site) connect(t testing.TB) *client { return s.connectTo(t, "main", 0) }

// connectFrom is connect from another address of this machine.
func (s *site) connectFrom(t testing.TB, ip string) *client {
	t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	nc, err := d.Dial("tcp", s.Addr("main").String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	tcp := nc.(*net.TCPConn)
	return &client{nc: tcp, tcp: tcp, in: bufio.NewReader(nc)}
}

// connectTo is connect to a listener; with a receive buffer if it is not 0.
func (s *site) connectTo(t testing.TB, listener string, receive int) *client {
	t.Helper()
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
		if receive == 0 {
			return nil
		}
		var err error
		return errors.Join(raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receive)
		}), err)
	}}
	nc, err := d.Dial("tcp", s.Addr(listener).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	tcp := nc.(*net.TCPConn)
	return &client{nc: tcp, tcp: tcp, in: bufio.NewReader(nc)}
}

// login opens a connection that has logged in.
func (s *site) login(t testing.TB, k clientKind) *client {
	t.Helper()
	c := s.connect(t)
	must(t, c.login(k))
	return c
}

// loginSlowly is login with a socket that takes little before it is read.
func (s *site) loginSlowly(t testing.TB, k clientKind) *client {
	t.Helper()
	c := s.connectTo(t, "main", 4<<10)
	must(t, c.login(k))
	return c
}

func plain(name, password string) string {
	return "PLAIN\t" + base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password)) + "\n"
}

func versionLine(m int) string { return fmt.Sprintf("VERSION\tdoveadm-server\t1\t%d\n", m) }

func (c *client) login(k clientKind) error { return c.loginAs(clientName, k) }

func (c *client) loginAs(name string, k clientKind) error {
	return c.loginWith(name, clientPassword, k)
}

func (c *client) loginWith(name, password string, k clientKind) error {
	c.clientKind = k
	greeting := "-\n+\n"
	if k.minor > 0 {
		greeting = "VERSION\tdoveadm-client\t1\t4\n" + greeting
	}
	if k.stream() {
		greeting += "\xff\xff\xff\xff\xff\x00\x02\x03\xfe"
	}
	hello := versionLine(k.minor) + plain(name, password)
	if k.option {
		hello += "\t\tOPTION\tlog-passthrough\n"
	}
	if err := c.send(hello); err != nil {
		return err
	}
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(c.in, got); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if string(got) != greeting {
		return fmt.Errorf("login: got %q, want %q", got, greeting)
	}
	return nil
}

func (c *client) send(s string) error {
	c.nc.SetDeadline(time.Now().Add(patience))
	_, err := io.WriteString(c.nc, s)
	return err
}

// packet is a piece of what a framed client gets. At minor version 0 it is
// whatever was read, in channel 0, and in STREAM format up to a switch.
type packet struct {
	channel byte
	data    string
}

// reply is a reply as it came.
type reply struct {
	packets []packet
	output  string   // before the LF
	status  string   // without its LF; empty if the reply did not come to it
	logs    []string // lines with their level
}

func (r reply) fields() []string { return strings.Split(strings.TrimSuffix(r.output, "\t"), "\t") }

// log returns the log channel as one string.
func (r reply) log() string {
	var b strings.Builder
	for _, p := range r.packets {
		if p.channel == 'L' {
			b.WriteString(p.data)
		}
	}
	return b.String()
}

// next reads a packet, which may be cut off by an error.
func (c *client) next() (packet, error) {
	if c.left != "" {
		p := packet{0, c.left}
		c.left = ""
		return p, nil
	}
	if !c.framed() {
		if _, err := c.in.Peek(1); err != nil {
			return packet{}, err
		}
		data := make([]byte, c.in.Buffered())
		_, err := io.ReadFull(c.in, data)
		return packet{0, string(data)}, err
	}
	if c.stream() {
		return c.nextInStream()
	}
	var h [5]byte
	if _, err := io.ReadFull(c.in, h[:]); err != nil {
		return packet{}, err
	}
	data := make([]byte, binary.BigEndian.Uint32(h[1:]))
	n, err := io.ReadFull(c.in, data)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return packet{h[0], string(data[:n])}, err
}

// nextInStream is next in STREAM format: what has arrived up to a switch, which
// may be nothing. Behind a 0x03 it waits for another byte, so a proxy that ends
// a write with one is noticed.
func (c *client) nextInStream() (packet, error) {
	var data []byte
	here := func(err error) (packet, error) { return packet{c.channel, string(data)}, err }
	for len(data) == 0 || c.in.Buffered() > 0 {
		b, err := c.in.ReadByte()
		if err != nil {
			return here(err)
		}
		if b == 3 {
			next, err := c.in.Peek(1)
			if err != nil {
				return here(err)
			}
			if next[0] == 0xfe {
				c.in.Discard(1)
				kind, err := c.in.ReadByte()
				switch {
				case err != nil:
					return here(err)
				case kind == 0:
					p, _ := here(nil)
					c.channel, err = c.in.ReadByte()
					return p, err
				case kind != 1:
					return here(fmt.Errorf("escape %d", kind))
				}
			}
		}
		data = append(data, b)
	}
	return here(nil)
}

// reply reads a reply up to its status. The error is that of the connection,
// with what has arrived of the reply.
func (c *client) reply() (reply, error) {
	c.nc.SetDeadline(time.Now().Add(patience))
	var r reply
	var output strings.Builder
	var line strings.Builder // the status, once the output has ended
	ended := false
	for {
		p, err := c.next()
		if len(p.data) > 0 {
			r.packets = append(r.packets, p)
		}
		switch p.channel {
		case 0:
			data := p.data
			if !ended {
				var before string
				before, data, ended = strings.Cut(data, "\n")
				output.WriteString(before)
			}
			line.WriteString(data)
		case 'L':
		default:
			return r, fmt.Errorf("packet of an unknown channel %q: %q", p.channel, p.data)
		}
		r.output = output.String()
		status, behind, done := strings.Cut(line.String(), "\n")
		if done {
			r.status = status
			if c.ahead && (!c.framed() || c.stream()) {
				c.left, behind = behind, ""
			}
		}
		if done || err != nil {
			for line := range strings.Lines(r.log()) {
				r.logs = append(r.logs, strings.TrimSuffix(line, "\n"))
			}
		}
		switch {
		case err != nil:
			return r, err
		case done && behind != "":
			return r, fmt.Errorf("%.200q behind the status of %.200q", behind, r.output)
		case done:
			return r, nil
		}
	}
}

// try runs a command.
func (c *client) try(line string) (reply, error) {
	if err := c.send(line); err != nil {
		return reply{}, err
	}
	return c.reply()
}

// run runs a command that must be answered.
func (c *client) run(t testing.TB, line string) reply {
	t.Helper()
	r, err := c.try(line)
	if err != nil {
		t.Fatalf("%.80q: %v, after output %.200q, log %q", line, err, r.output, r.logs)
	}
	return r
}

// works checks that the session goes on.
func (c *client) works(t testing.TB) reply {
	t.Helper()
	r := c.run(t, "\talice\tquota get\n")
	if r.status != "+" {
		t.Errorf("the next command got %q, log %q, want +", r.status, r.logs)
	}
	return r
}

// refused checks that a command gets a failure that the proxy makes up, with
// its cause in front of the status where there is a log channel, and nothing
// else.
func (c *client) refused(t testing.TB, line, status string, cause ...string) {
	t.Helper()
	r := c.run(t, line)
	if r.output != "" {
		t.Errorf("%.80q: output %q", line, r.output)
	}
	c.failed(t, r, status, cause...)
}

// failed checks the end of a reply as refused does.
func (c *client) failed(t testing.TB, r reply, status string, cause ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %q, want %q; log %q", r.status, status, r.logs)
	}
	if !c.logs() {
		if len(r.logs) > 0 {
			t.Errorf("log lines for a client without a log channel: %q", r.logs)
		}
		return
	}
	if len(r.logs) == 0 {
		t.Errorf("no log line before %q", status)
		return
	}
	last := r.logs[len(r.logs)-1]
	if !strings.HasPrefix(last, "\x04doveadm-proxy: ") ||
		slices.ContainsFunc(cause, func(word string) bool { return !strings.Contains(last, word) }) {
		t.Errorf("log line %q, want an error of the proxy that says %q", last, cause)
	}
}

// ended reads to the end of the connection and returns what was there. A reset
// is no end.
func (c *client) ended(t testing.TB) string {
	t.Helper()
	c.nc.SetDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(c.in)
	if err != nil {
		t.Errorf("after %.200q: %v, want the end of the connection", rest, err)
	}
	return string(rest)
}

// closedWith checks that the session ends with a log line and without a status.
func (c *client) closedWith(t testing.TB, cause ...string) {
	t.Helper()
	r, err := c.reply()
	if err != io.EOF {
		t.Fatalf("%v after status %q, output %.200q, want the end of the connection", err, r.status, r.output)
	}
	if r.output != "" {
		t.Errorf("output %q", r.output)
	}
	c.failed(t, r, "", cause...)
}

// reset closes the connection with RST.
func (c *client) reset() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}
