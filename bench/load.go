package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// op is what a client does before it does its next: it sends request and reads
// the replies to the commands in it.
type op struct {
	request []byte
	replies int
	size    int  // of each reply in bytes of channel 0; 0: any
	fresh   bool // on a connection of its own
}

// endpoint is something to connect to.
type endpoint struct{ addr, password string }

// client runs its ops one after the other, and then again. It does the same
// whatever it is connected to, with bytes made beforehand, and allocates
// nothing.
type client struct {
	load  *load
	slot  int
	addr  unix.SockaddrInet4
	login []byte
	ops   []op
	turn  int

	fd      int // below 0: not connected
	state   int
	out     []byte // that the socket has not taken
	writing bool   // watched for room
	begun   time.Time
	replies int // to come
	text    []byte
	frames  frames
}

// States of a client, behind those of a connection's handshake.
const (
	connecting = iota
	greeting
	loggingIn
	running
	stopped
)

var version = []byte("VERSION\tdoveadm-server\t1\t2\n")

// frames finds the ends of replies in what a server sends to a client of
// version 1.2. It looks at each packet and not at each byte.
type frames struct {
	header  [5]byte
	have    int // of header
	channel byte
	left    int     // of the packet
	size    int     // of this reply so far, on channel 0
	tail    [3]byte // of channel 0
	ended   bool    // the LF behind the output was the end of a packet
}

// read returns how many replies p ends, each of which must be a success of the
// given size.
func (f *frames) read(p []byte, size int) (replies int, err error) {
	for len(p) > 0 {
		if f.left == 0 {
			n := copy(f.header[f.have:], p)
			p = p[n:]
			if f.have += n; f.have < len(f.header) {
				return replies, nil
			}
			f.have = 0
			f.channel = f.header[0]
			f.left = int(binary.BigEndian.Uint32(f.header[1:]))
			continue
		}
		n := min(f.left, len(p))
		f.left -= n
		data := p[:n]
		p = p[n:]
		if f.channel != doveadm.ChannelReply {
			continue
		}
		f.size += n
		if n >= len(f.tail) {
			copy(f.tail[:], data[n-len(f.tail):])
		} else {
			copy(f.tail[:], f.tail[n:])
			copy(f.tail[len(f.tail)-n:], data)
		}
		if f.left > 0 || f.tail[2] != '\n' {
			continue
		}
		switch {
		case f.tail == [3]byte{'\n', '+', '\n'}:
			if size > 0 && f.size != size {
				return replies, fmt.Errorf("a reply has %d bytes and not %d", f.size, size)
			}
			replies++
			f.size, f.ended = 0, false
		case f.ended || f.size > 1 && f.tail[1] != '\t':
			return replies, fmt.Errorf("a command failed: its reply ends in %q", f.tail)
		default:
			f.ended = true
		}
	}
	return replies, nil
}

// load is what clients did together in one measurement.
type load struct {
	poll     *poller
	clients  []*client
	in       []byte
	until    time.Time
	together int   // how many clients work at the same time, in turns; 0: all
	turns    turns // of the others
	active   int
	commands int       // that ended within the measurement
	all      int       // also those that ended after it
	bytes    int64     // of replies
	took     []float32 // microseconds of each op
	warming  bool
}

func newLoad(to endpoint, users [][]op) (*load, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	addr, err := net.ResolveTCPAddr("tcp4", to.addr)
	if err != nil {
		return nil, err
	}
	l := &load{poll: poll, in: make([]byte, 256<<10), took: make([]float32, 0, 1<<20), turns: turns{waiting: make([]*client, len(users))}}
	login := "PLAIN\t" + base64.StdEncoding.EncodeToString([]byte("\x00doveadm\x00"+to.password)) + "\n"
	for slot, ops := range users {
		l.clients = append(l.clients, &client{
			load: l, slot: slot, fd: -1, login: []byte(login), ops: ops, state: stopped,
			addr: unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())},
		})
	}
	return l, nil
}

// turns are clients that wait for others to end what they do.
type turns struct {
	waiting  []*client // a ring
	first, n int
}

func (t *turns) add(c *client) {
	t.waiting[(t.first+t.n)%len(t.waiting)] = c
	t.n++
}

func (t *turns) next() *client {
	c := t.waiting[t.first]
	t.first = (t.first + 1) % len(t.waiting)
	t.n--
	return c
}

func (l *load) close() {
	for _, c := range l.clients {
		c.disconnect()
	}
	l.poll.close()
}

// done is what a load did.
type done struct {
	commands int
	all      int // also those that ended after the measurement
	bytes    int64
	length   time.Duration
	own      time.Duration // CPU time of the clients
	p50, p99 time.Duration
	longest  time.Duration
}

// grace is how long an op may take beyond its measurement. One that takes
// longer hangs, and fails.
const grace = 30 * time.Second

// run lets the clients work for a while. Before that counts they work for
// warmUp, and each of them does one op at least: it opens kept connections, and
// gives the target time to have those to the backends. between is called then.
func (l *load) run(warmUp, duration time.Duration, between func() error) (done, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.warming = true
	if err := l.work(time.Now().Add(warmUp)); err != nil {
		return done{}, err
	}
	l.warming = false
	if err := between(); err != nil {
		return done{}, err
	}
	l.commands, l.all, l.bytes, l.took = 0, 0, 0, l.took[:0]
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_THREAD, &before)
	begin := time.Now()
	if err := l.work(begin.Add(duration)); err != nil {
		return done{}, err
	}
	unix.Getrusage(unix.RUSAGE_THREAD, &after)
	if len(l.took) == 0 {
		return done{}, fmt.Errorf("nothing ended within %s: take a longer -time", duration)
	}
	slices.Sort(l.took)
	d := done{commands: l.commands, all: l.all, bytes: l.bytes, length: time.Since(begin)}
	d.own = time.Duration(after.Utime.Nano()+after.Stime.Nano()) - time.Duration(before.Utime.Nano()+before.Stime.Nano())
	d.p50, d.p99 = percentile(l.took, 50), percentile(l.took, 99)
	d.longest = percentile(l.took, 100)
	return d, nil
}

func percentile(sorted []float32, p int) time.Duration {
	return time.Duration(sorted[(len(sorted)*p+99)/100-1] * float32(time.Microsecond))
}

// work has each client go on with its ops until the time is over, and end what
// it has begun.
func (l *load) work(until time.Time) error {
	l.until = until
	l.active = len(l.clients)
	for i, c := range l.clients {
		if l.together > 0 && i >= l.together {
			c.state = stopped
			l.turns.add(c)
			continue
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	end := until.Add(grace)
	for l.active > 0 {
		events, err := l.poll.wait(time.Second)
		if err != nil {
			return err
		}
		for _, e := range events {
			c := l.clients[e.Fd]
			if err := c.handle(e.Events); err != nil {
				return fmt.Errorf("client %d: %w", c.slot, err)
			}
		}
		if len(events) == 0 && time.Now().After(end) {
			return fmt.Errorf("%d clients wait for replies for more than %s", l.active, grace)
		}
	}
	return nil
}

// next begins the next op.
func (c *client) next() error {
	c.begun = time.Now()
	o := &c.ops[c.turn%len(c.ops)]
	if o.fresh {
		c.disconnect()
	}
	c.replies = o.replies
	if c.fd < 0 {
		return c.connect()
	}
	c.state = running
	return c.send(o.request)
}

func (c *client) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.fd, c.state, c.text, c.frames, c.out = fd, greeting, c.text[:0], frames{}, nil
	c.writing = false
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	switch err := unix.Connect(fd, &c.addr); err {
	case nil:
	case unix.EINPROGRESS:
		c.state, c.writing = connecting, true
		return c.load.poll.add(fd, c.slot, unix.EPOLLOUT)
	default:
		return fmt.Errorf("connect: %w", err)
	}
	if err := c.load.poll.add(fd, c.slot, unix.EPOLLIN); err != nil {
		return err
	}
	return c.send(version)
}

func (c *client) disconnect() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

func (c *client) send(p []byte) error {
	rest, err := write(c.fd, p)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	c.out = rest
	if wants := len(rest) > 0; wants != c.writing {
		c.writing = wants
		events := uint32(unix.EPOLLIN)
		if wants {
			events |= unix.EPOLLOUT
		}
		return c.load.poll.change(c.fd, c.slot, events)
	}
	return nil
}

func (c *client) handle(events uint32) error {
	if c.fd < 0 || c.state == stopped {
		return errors.New("something arrived that nobody asked for, or the connection ended between two commands")
	}
	if c.writing && events&unix.EPOLLOUT != 0 {
		if c.state == connecting {
			c.state = greeting
			c.out = version
		}
		if err := c.send(c.out); err != nil {
			return err
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return nil
	}
	n, err := read(c.fd, c.load.in)
	switch {
	case err == errAgain:
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return errors.New("the connection was closed")
	}
	p := c.load.in[:n]
	for c.state == greeting || c.state == loggingIn {
		if p, err = c.handshake(p); p == nil || err != nil {
			return err
		}
	}
	return c.read(p)
}

// handshake takes the text of one step; nil is returned when there is more to
// come.
func (c *client) handshake(p []byte) ([]byte, error) {
	for i, b := range p {
		c.text = append(c.text, b)
		if b != '\n' {
			continue
		}
		n := len(c.text)
		switch {
		case c.state == greeting && n >= 2 && c.text[n-2] == '-' && (n == 2 || c.text[n-3] == '\n'):
			c.state, c.text = loggingIn, c.text[:0]
			return nil, c.send(c.login)
		case c.state == loggingIn && string(c.text) == "+\n":
			c.state, c.text = running, c.text[:0]
			if err := c.send(c.ops[c.turn%len(c.ops)].request); err != nil {
				return nil, err
			}
			return p[i+1:], nil
		case c.state == loggingIn || n > 100:
			return nil, fmt.Errorf("handshake: got %q", c.text)
		}
	}
	return nil, nil
}

func (c *client) read(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	l := c.load
	o := &c.ops[c.turn%len(c.ops)]
	n, err := c.frames.read(p, o.size)
	if err != nil {
		return err
	}
	now := time.Now()
	in := now.Before(l.until)
	l.all += n
	if in {
		l.commands += n
		l.bytes += int64(len(p))
	}
	if c.replies -= n; c.replies > 0 {
		return nil
	}
	if c.replies < 0 {
		return errors.New("more replies than commands")
	}
	if o.fresh && !l.warming {
		c.disconnect()
		now = time.Now()
	}
	if !l.warming && len(l.took) < cap(l.took) {
		l.took = append(l.took, float32(now.Sub(c.begun))/float32(time.Microsecond))
	}
	c.turn++
	if !in {
		c.state = stopped
		l.active--
		if l.warming && l.turns.n > 0 {
			return l.turns.next().next()
		}
		l.active -= l.turns.n
		l.turns.n = 0
		return nil
	}
	if l.together > 0 {
		c.state = stopped
		l.turns.add(c)
		c = l.turns.next()
	}
	return c.next()
}
