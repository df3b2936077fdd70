package proxy_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// TestPipeline: commands that are sent ahead run side by side, those of one
// user one after the other, and replies come in the order of the commands.
func TestPipeline(t *testing.T) {
	t.Parallel()
	const depth, commands = 4, 200
	var running, most atomic.Int64
	var busy sync.Map // users with a command that runs
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name != "search" {
			answer(c, cmd)
			return
		}
		if _, twice := busy.LoadOrStore(cmd.User, true); twice {
			t.Errorf("two commands of %s at once", cmd.User)
		}
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		// The later one of two tends to end first.
		var i int
		fmt.Sscan(cmd.Args[0], &i)
		time.Sleep(time.Duration(commands-i) * 10 * time.Microsecond)
		c.Fields(cmd.User, cmd.Args[0])
		if i%3 == 0 {
			c.Log(doveadm.LogInfo, "log of "+cmd.Args[0])
			c.Fields(strings.Repeat("x", 100_000), "")
		}
		busy.Delete(cmd.User)
		running.Add(-1)
		c.Status("+")
	}
	for _, k := range []clientKind{clientKinds[1], client13, client14} {
		most.Store(0)
		s, _ := startWith(t, 2, h, func(c *config.Config) { c.Clients[0].PipelineDepth = depth })
		c := s.login(t, k)
		c.ahead = true
		var all strings.Builder
		for i := range commands {
			fmt.Fprintf(&all, "\tu%d@s1\tsearch\t%d\n", i%7, i)
		}
		go c.send(all.String())
		for i := range commands {
			r, err := c.reply()
			must(t, err)
			if f := r.fields(); f[0] != fmt.Sprintf("u%d@s1", i%7) || f[1] != fmt.Sprint(i) || r.status != "+" {
				t.Fatalf("reply %d: %.100q, status %s", i, f, r.status)
			}
			for _, line := range r.logs {
				if !strings.HasSuffix(line, fmt.Sprintf("log of %d", i)) {
					t.Errorf("reply %d has the log line %q", i, line)
				}
			}
		}
		if n := most.Load(); n < 2 || n > depth {
			t.Errorf("%d commands at once, pipeline_depth is %d", n, depth)
		}
		c.works(t)
	}
}

// TestPipelineSpeed: a batch over one session has the parallelism of the whole
// cluster. Compared are the backends' own delays, with much to spare.
func TestPipelineSpeed(t *testing.T) {
	const commands, delay = 1000, 20 * time.Millisecond
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		time.Sleep(delay)
		c.Fields(cmd.Args[0])
		c.Status("+")
	}
	var addrs []string
	for range 4 {
		addrs = append(addrs, newBackend(t, 2, h).Addr())
	}
	s := start(t, configure(t, nil, addrs...))
	c := s.login(t, client13)
	var all strings.Builder
	for i := range commands {
		fmt.Fprintf(&all, "\tu%d@s%d\tquota get\t%d\n", i, i%4+1, i)
	}
	begin := time.Now()
	go c.send(all.String())
	for i := range commands {
		r, err := c.reply()
		must(t, err)
		if r.output != fmt.Sprintf("%d\t", i) {
			t.Fatalf("reply %d is %q", i, r.output)
		}
	}
	took := time.Since(begin)
	if serial := commands * delay; took > serial/4 {
		t.Errorf("%d commands of %v took %v, one after the other would take %v", commands, delay, took, serial)
	}
}

// TestPipelineEnds: what comes behind a reply with which the session ends is
// not answered, and nothing is left behind.
func TestPipelineEnds(t *testing.T) {
	h := func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.Name == "nonsense" {
			c.Output([]byte("half a ro"))
			c.Close()
			return
		}
		answer(c, cmd)
	}
	s, _ := startWith(t, 2, h, neverOpens)
	c := s.login(t, client13)
	must(t, c.send("\ta@s1\tmailbox list\n\tb@s1\tnonsense\n\tc@s1\tmailbox list\n\td@s1\tmailbox list\n"))
	r, err := c.reply()
	must(t, err)
	if r.status != "+" {
		t.Errorf("status %s", r.status)
	}
	rest := c.ended(t)
	if strings.Contains(rest, "+\n") || strings.Contains(rest, "c@s1") {
		t.Errorf("behind the interrupted reply: %q", rest)
	}
}
