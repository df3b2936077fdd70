package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// grace is how long a command may take beyond its measurement. One that takes
// longer hangs, and fails.
const grace = 30 * time.Second

// sample is what one measurement of one row found.
type sample struct {
	rate      float64 // commands a second
	p50, p99  time.Duration
	processes int           // doveadm-server processes of one backend at the same time, at most
	dovecot   time.Duration // CPU time of all processes of all backends, per command
	proxy     time.Duration // CPU time of the proxy, per command
	commands  int
}

// client runs one command after the other. It does the same work whatever it
// is connected to, so that its share of the machine is the same in all rows.
type client struct {
	to      endpoint
	dialer  net.Dialer // its deadline is that of everything else, too
	users   []string   // of one backend, in turns
	turn    int
	conn    *doveadm.ClientConn // nil between commands, unless keep
	keep    bool
	command doveadm.Command
	got     bytes.Buffer

	took     []time.Duration // of each command
	inWindow int             // how many ended within the measurement
}

// run runs one command: connect and log in, ask, read and check the whole
// reply, close. A kept connection is opened by the first and not closed.
func (c *client) run() error {
	if c.conn == nil {
		if err := c.open(); err != nil {
			return err
		}
	}
	if !c.keep {
		defer c.close()
	}
	c.command.User = c.users[c.turn%len(c.users)]
	c.turn++
	reply, err := c.conn.Do(context.Background(), &c.command)
	if err != nil {
		return err
	}
	c.got.Reset()
	for reply.Next() {
		reply.WriteTo(&c.got) // its error is that of Err
		c.got.WriteByte('\t')
	}
	if err := reply.Err(); err != nil {
		return err
	}
	// Two rows of five fields, whose numbers are the mail's.
	if got := c.got.String(); !strings.HasPrefix(got, "User quota\tSTORAGE\t") || strings.Count(got, "\t") != 10 {
		return fmt.Errorf("%s of %s: unexpected reply %q", c.command.Name, c.command.User, got)
	}
	return nil
}

func (c *client) open() error {
	nc, err := c.dialer.Dial("tcp", c.to.addr)
	if err != nil {
		return err
	}
	nc.SetDeadline(c.dialer.Deadline)
	c.conn, err = doveadm.NewClientConn(nc, doveadm.ClientOptions{
		Password: c.to.password,
		// What the doveadm command of the backends' Dovecot announces; a higher
		// version would be used by the proxy alone.
		Minor: doveadm.MinorSTARTTLS,
	})
	if err != nil {
		nc.Close()
	}
	return err
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// repeat runs commands until end.
func (c *client) repeat(end time.Time) error {
	for now := time.Now(); now.Before(end); {
		begin := now
		if err := c.run(); err != nil {
			return err
		}
		now = time.Now()
		c.took = append(c.took, now.Sub(begin))
		if now.Before(end) {
			c.inWindow++
		}
	}
	return nil
}

// measure lets clients work on one way for a while. Each of them runs one
// command before that counts: it opens kept connections, and gives the proxy
// time to have those to the backends.
func measure(ctx context.Context, s *site, w way, keep bool, clients int, duration time.Duration) (sample, error) {
	idle, err := settle(ctx, s)
	if err != nil {
		return sample{}, err
	}
	cs := make([]*client, clients)
	for n := range cs {
		// One backend for each client, because a kept direct connection has
		// only one; the numbers are spread evenly.
		b := n % backends
		cs[n] = &client{
			to:      s.endpoints[w][b],
			dialer:  net.Dialer{Deadline: time.Now().Add(duration + grace)},
			users:   s.servers[b].Users,
			turn:    n / backends,
			keep:    keep,
			command: doveadm.Command{Name: "quota get"},
		}
		defer cs[n].close()
	}
	if err := together(cs, (*client).run); err != nil {
		return sample{}, err
	}

	before, err := readUsage(s)
	if err != nil {
		return sample{}, err
	}
	stop := watchProcesses(s)
	end := time.Now().Add(duration)
	err = together(cs, func(c *client) error { return c.repeat(end) })
	processes, errWatch := stop()
	if err := cmp.Or(err, errWatch, ctx.Err()); err != nil {
		return sample{}, err
	}
	after, err := readUsage(s)
	if err != nil {
		return sample{}, err
	}
	if w == direct {
		processes = max(0, processes-idle) // which are the proxy's
	}
	got := summarize(cs, duration)
	if got.rate == 0 {
		return sample{}, fmt.Errorf("no command ended within %s: take a longer -time", duration)
	}
	got.processes = processes
	got.dovecot = (after.dovecot - before.dovecot) / time.Duration(got.commands)
	got.proxy = (after.proxy - before.proxy) / time.Duration(got.commands)
	return got, nil
}

// together runs work for all clients at the same time and returns the first
// error.
func together(cs []*client, work func(*client) error) error {
	var g errgroup.Group
	for _, c := range cs {
		g.Go(func() error { return work(c) })
	}
	return g.Wait()
}

func summarize(cs []*client, duration time.Duration) sample {
	var took []time.Duration
	inWindow := 0
	for _, c := range cs {
		took = append(took, c.took...)
		inWindow += c.inWindow
	}
	slices.Sort(took)
	return sample{
		rate:     float64(inWindow) / duration.Seconds(),
		p50:      percentile(took, 50),
		p99:      percentile(took, 99),
		commands: len(took),
	}
}
