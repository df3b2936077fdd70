package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// nullBackend answers as a Dovecot of version 1.2 or 1.3 does, in the same
// packets, and does nothing else: what is left of a command is what lies before
// the backend. It takes one read and one write for each command, in one thread.
//
//   - quota get: two rows and the status, three packets in one write
//   - fetch ... mSIZE: one field of SIZE bytes in packets of 8 KiB
//   - save: "+" when its input has ended
//
// Commands of one connection are run one after the other, each for delay.
type nullBackend struct {
	poll      *poller
	listeners map[int]bool // by descriptor
	delay     time.Duration
	minor     doveadm.Minor
	conns     []*nullConn // by descriptor
	due       []*nullConn // with a reply that waits for its time, in that order
	in        []byte      // what was just read
	greeting  []byte
}

// nullConn is one connection.
type nullConn struct {
	fd      int
	state   int
	pending []byte // of a line that has not ended, or commands behind one that runs
	tail    [5]byte
	out     output
	at      time.Time // when out is due
	waiting bool      // for that time
	blocked bool      // the socket takes no more
}

const (
	wantsVersion = iota
	wantsLogin
	wantsCommand
	wantsInput
)

// output is a reply: a block again and again, and an end.
type output struct {
	block  []byte
	blocks int
	part   []byte // of a block
	end    []byte
}

func (o *output) empty() bool { return o.blocks == 0 && len(o.part) == 0 && len(o.end) == 0 }

var (
	quotaReply = packets("User quota\tSTORAGE\t1\t1024\t0\t", "User quota\tMESSAGE\t6\t-\t0\t", "\n+\n")
	okReply    = packets("\n+\n")
	fieldEnd   = packets("\t\n+\n")
	fieldBlock = packets(repeated(fieldPacket, blockPackets)...)
)

const (
	fieldPacket  = 8 << 10
	blockPackets = 32 // 256 KiB of field in one write
)

func packets(data ...string) []byte {
	var p []byte
	for _, d := range data {
		p = doveadm.AppendPacket(p, doveadm.ChannelReply, []byte(d))
	}
	return p
}

func repeated(size, times int) []string {
	all := make([]string, times)
	for i := range all {
		all[i] = string(bytes.Repeat([]byte{'x'}, size))
	}
	return all
}

// replySize is how many bytes of channel 0 the reply to a fetch of size has,
// which is rounded up to packets.
func replySize(size int) int { return (size+fieldPacket-1)/fieldPacket*fieldPacket + len("\t\n+\n") }

// runNull is the program's mode "null". It returns only with an error.
func runNull(args []string) error {
	flags := flag.NewFlagSet("null", flag.ContinueOnError)
	addresses := flags.String("listen", "127.0.0.1:0", "`addresses`, with commas: so many backends are one process")
	delay := flags.Duration("delay", 0, "how long each command takes")
	minor := flags.Int("minor", int(doveadm.MinorExtraFields), "minor version that it announces")
	if err := flags.Parse(args); err != nil {
		return err
	}
	runtime.LockOSThread()
	b := &nullBackend{delay: *delay, minor: doveadm.Minor(*minor), in: make([]byte, 256<<10), listeners: make(map[int]bool)}
	b.greeting = fmt.Appendf(nil, "VERSION\tdoveadm-client\t1\t%d\n-\n", b.minor)
	var err error
	if b.poll, err = newPoller(); err != nil {
		return err
	}
	for address := range strings.SplitSeq(*addresses, ",") {
		addr, err := net.ResolveTCPAddr("tcp4", address)
		if err != nil {
			return err
		}
		fd, err := listen(addr, false)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", address, err)
		}
		if err := b.poll.add(fd, fd, unix.EPOLLIN); err != nil {
			return err
		}
		b.listeners[fd] = true
	}
	fmt.Println("listening")
	// The end of standard input is the end of the program that started this one.
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return b.serve()
}

// accept accepts a connection, or returns errAgain if there is none. As in Dovecot,
// each reply is one write, which is not to wait.
func accept(listener int) (fd int, err error) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			return fd, nil
		case unix.EAGAIN:
			return -1, errAgain
		case unix.ECONNABORTED, unix.EINTR:
		default:
			return -1, fmt.Errorf("accept: %w", err)
		}
	}
}

// listen opens a listening socket that never blocks. If it is shared, others of
// the same user may listen there, too, and the kernel spreads the clients.
func listen(addr *net.TCPAddr, shared bool) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	reusePort := 0
	if shared {
		reusePort = 1
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, reusePort),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, sa),
		unix.Listen(fd, 4096))
}

func (b *nullBackend) serve() error {
	for {
		timeout := time.Duration(-1)
		if len(b.due) > 0 {
			timeout = max(0, time.Until(b.due[0].at))
		}
		events, err := b.poll.wait(timeout)
		if err != nil {
			return err
		}
		for _, e := range events {
			if b.listeners[int(e.Fd)] {
				err = b.accept(int(e.Fd))
			} else if c := b.conns[e.Fd]; c != nil && !b.handle(c, e.Events) {
				unix.Close(c.fd)
				b.conns[c.fd] = nil
				c.fd = -1
			}
			if err != nil {
				return err
			}
		}
		if len(b.due) > 0 {
			b.answerDue(time.Now())
		}
	}
}

func (b *nullBackend) accept(listener int) error {
	for {
		fd, err := accept(listener)
		if err == errAgain {
			return nil
		}
		if err != nil {
			return err
		}
		for len(b.conns) <= fd {
			b.conns = append(b.conns, nil)
		}
		b.conns[fd] = &nullConn{fd: fd}
		if err := b.poll.add(fd, fd, unix.EPOLLIN); err != nil {
			return err
		}
	}
}

// handle reports false if the connection is at its end.
func (b *nullBackend) handle(c *nullConn, events uint32) bool {
	if c.blocked {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			return false
		}
		return b.send(c)
	}
	n, err := read(c.fd, b.in)
	if err == errAgain {
		return true
	}
	if n == 0 || err != nil {
		return false
	}
	p := b.in[:n]
	if c.state == wantsInput {
		return b.input(c, p)
	}
	if len(c.pending) > 0 {
		c.pending = append(c.pending, p...)
		p = c.pending
	}
	return b.lines(c, p)
}

// lines handles the lines in p and keeps what it cannot handle yet.
func (b *nullBackend) lines(c *nullConn, p []byte) bool {
	for !c.waiting && !c.blocked {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		line := p[:i]
		p = p[i+1:]
		if !b.line(c, line) {
			return false
		}
		if c.state == wantsInput {
			c.pending = c.pending[:0]
			c.tail = [5]byte{'\n', '\n', '\n', '\n', '\n'}
			return len(p) == 0 || b.input(c, p)
		}
	}
	c.pending = append(c.pending[:0], p...)
	return true
}

func (b *nullBackend) line(c *nullConn, line []byte) bool {
	switch c.state {
	case wantsVersion:
		c.state = wantsLogin
		return writeAll(c.fd, b.greeting)
	case wantsLogin:
		c.state = wantsCommand
		return writeAll(c.fd, []byte("+\n"))
	}
	switch {
	case bytes.HasPrefix(line, []byte("\t\tOPTION\t")):
		return true
	case bytes.Contains(line, []byte("\tsave")):
		c.state = wantsInput
		return true
	case bytes.Contains(line, []byte("\tfetch\t")):
		i := bytes.LastIndexByte(line, 'm')
		size, err := strconv.Atoi(string(line[i+1:]))
		if err != nil {
			return false
		}
		n := (size + fieldPacket - 1) / fieldPacket
		c.out = output{
			block: fieldBlock, blocks: n / blockPackets,
			part: fieldBlock[:n%blockPackets*(len(fieldBlock)/blockPackets)],
			end:  fieldEnd,
		}
	default:
		c.out = output{end: quotaReply}
	}
	return b.reply(c)
}

// input looks for the end of a command's input: nothing comes behind it before
// there is an answer.
func (b *nullBackend) input(c *nullConn, p []byte) bool {
	if n := len(p); n >= len(c.tail) {
		copy(c.tail[:], p[n-len(c.tail):])
	} else {
		copy(c.tail[:], c.tail[n:])
		copy(c.tail[len(c.tail)-n:], p)
	}
	if !bytes.HasSuffix(c.tail[:], []byte("\n.\r\n")) && !bytes.HasSuffix(c.tail[:], []byte("\n.\n")) {
		return true
	}
	c.state = wantsCommand
	c.out = output{end: okReply}
	return b.reply(c)
}

// reply answers, when it is time.
func (b *nullBackend) reply(c *nullConn) bool {
	if b.delay > 0 {
		c.at, c.waiting = time.Now().Add(b.delay), true
		b.due = append(b.due, c)
		return true
	}
	return b.send(c)
}

func (b *nullBackend) answerDue(now time.Time) {
	n := 0
	for _, c := range b.due {
		if c.at.After(now) {
			break
		}
		n++
		c.waiting = false
		if c.fd >= 0 && (!b.send(c) || !c.blocked && !b.lines(c, c.pending)) {
			// The end of the stream will be found by a read.
			unix.Shutdown(c.fd, unix.SHUT_RDWR)
		}
	}
	b.due = b.due[:copy(b.due, b.due[n:])]
}

// send writes what the socket takes, and has it watched for the rest. A reply
// without blocks is one write.
func (b *nullBackend) send(c *nullConn) bool {
	o := &c.out
	for !o.empty() {
		p := &o.end
		switch {
		case len(o.part) > 0:
			p = &o.part
		case o.blocks > 0:
			o.blocks--
			o.part = o.block
			p = &o.part
		}
		rest, err := write(c.fd, *p)
		if err != nil {
			return false
		}
		*p = rest
		if len(rest) > 0 {
			if !c.blocked {
				c.blocked = true
				return b.poll.change(c.fd, c.fd, unix.EPOLLOUT) == nil
			}
			return true
		}
	}
	if c.blocked {
		c.blocked = false
		if b.poll.change(c.fd, c.fd, unix.EPOLLIN) != nil {
			return false
		}
		return b.lines(c, c.pending)
	}
	return true
}

func writeAll(fd int, p []byte) bool {
	rest, err := write(fd, p)
	return err == nil && len(rest) == 0
}
