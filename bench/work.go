package main

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// work is something to do that is measured for each of its targets, all of them
// one after the other in each round.
type work struct {
	name    string // short, for -only
	title   string
	backend backendKind
	clients int
	ops     func(k backendKind, slot int) []op
	targets []target
	volume  bool // what counts is bytes and not commands
	long    bool // left out of the short form
}

// warmUp is how long clients work before a measurement begins. A Dovecot starts a
// process for each connection that is kept, which takes it so much longer than a
// command that it would show in the figures of both the kept connections of
// clients and those of the proxy.
func (w *work) warmUp(t target) time.Duration {
	real := w.backend == dovecot23 || w.backend == dovecot24
	if !real || w.ops(w.backend, 0)[0].fresh && t != proxied && t != quiet {
		return 0
	}
	return 2 * time.Second
}

// maxUsers is how many users null backends have for the clients.
const maxUsers = 256

// user returns the name of a user of a client.
func user(k backendKind, n int) string {
	users := maxUsers
	if k == dovecot23 || k == dovecot24 {
		users = usersPerDovecot
	}
	return fmt.Sprintf("u%d@%s", n%users, k.domain())
}

// quotaSize is what the null backend answers to "quota get" on channel 0.
var quotaSize = len("User quota\tSTORAGE\t1\t1024\t0\tUser quota\tMESSAGE\t6\t-\t0\t\n+\n")

func quota(k backendKind, n int) op {
	o := op{request: fmt.Appendf(nil, "\t%s\tquota get\n", user(k, n)), replies: 1}
	if k == null || k == slow {
		o.size = quotaSize
	}
	return o
}

// connectEach is what the doveadm command and most control panels do: a
// connection for each command.
func connectEach(k backendKind, slot int) []op {
	o := quota(k, slot)
	o.fresh = true
	return []op{o}
}

func kept(k backendKind, slot int) []op { return []op{quota(k, slot)} }

// batch is how many commands a client sends ahead.
const batch = 32

func pipelined(k backendKind, slot int) []op {
	o := quota(k, 0)
	o.request, o.replies = nil, batch
	for n := range batch {
		o.request = append(o.request, quota(k, slot*batch+n).request...)
	}
	return []op{o}
}

func fetch(size int) func(backendKind, int) []op {
	return func(k backendKind, slot int) []op {
		return []op{{
			request: fmt.Appendf(nil, "\t%s\tfetch\ttext\tmailbox\tm%d\n", user(k, slot), size),
			replies: 1, size: replySize(size),
		}}
	}
}

// save returns a mail of about size bytes and the command that takes it.
func save(k backendKind, slot, size int) op {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\t%s\tsave\nSubject: benchmark\r\n\r\n", user(k, slot))
	line := append(bytes.Repeat([]byte{'x'}, 70), '\r', '\n')
	for b.Len() < size {
		b.Write(line)
	}
	b.WriteString(".\r\n")
	return op{request: b.Bytes(), replies: 1, size: len("\n+\n")}
}

func saves(size int) func(backendKind, int) []op {
	return func(k backendKind, slot int) []op { return []op{save(k, slot, size)} }
}

// mixed is seven short commands, a mail that is read, and one that is saved, of
// which every tenth begins a connection.
func mixed(k backendKind, slot int) []op {
	var ops []op
	for range 7 {
		ops = append(ops, quota(k, slot))
	}
	ops = append(ops, fetch(64<<10)(k, slot)[0], save(k, slot, 20<<10), connectEach(k, slot)[0])
	return ops
}

// works are all of them, in the order of the report.
func works() []work {
	beside := []target{proxied, direct, haproxy, nginx, ownProxy}
	all := []target{proxied, quiet, direct, haproxy, nginx, plain, looped, ownProxy}
	// Dovecot's own proxy takes one command at a time and starts a process for
	// each connection: it is left out where it could only be waited for.
	tcp := []target{proxied, quiet, direct, haproxy, nginx}
	const connectTitle, keptTitle = "connect, log in, `quota get`, close", "`quota get` on a kept connection"
	list := []work{
		{name: "null-connect-64", title: connectTitle, clients: 64, ops: connectEach, targets: tcp},
		{name: "null-kept-64", title: keptTitle, clients: 64, ops: kept, targets: append(tcp[:len(tcp):len(tcp)], plain, looped)},
		{name: "null-kept-1", title: keptTitle, clients: 1, ops: kept, targets: all},
		{name: "null-pipelined-1", title: fmt.Sprintf("%d times `quota get` sent ahead", batch), clients: 1, ops: pipelined, targets: tcp},
		{name: "null-pipelined-8", title: fmt.Sprintf("%d times `quota get` sent ahead", batch), clients: 8, ops: pipelined, targets: tcp},
		{name: "slow-pipelined-1", title: fmt.Sprintf("%d times `quota get` sent ahead", batch), backend: slow, clients: 1, ops: pipelined, targets: tcp, long: true},
		{name: "slow-pipelined-8", title: fmt.Sprintf("%d times `quota get` sent ahead", batch), backend: slow, clients: 8, ops: pipelined, targets: tcp, long: true},
		{name: "slow-connect-64", title: connectTitle, backend: slow, clients: 64, ops: connectEach, targets: tcp, long: true},
		{name: "null-5MB", title: "`fetch` of 5 MB", clients: 4, ops: fetch(5 << 20), targets: tcp, volume: true},
		{name: "null-100MB", title: "`fetch` of 100 MB", clients: 2, ops: fetch(100 << 20), targets: tcp, volume: true},
		{name: "null-save", title: "`save` of 1 MB", clients: 4, ops: saves(1 << 20), targets: tcp},
		{name: "null-mixed", title: "mixed: 7 × `quota get`, `fetch` of 64 KB, `save` of 20 KB, a new connection", clients: 16, ops: mixed, targets: tcp, long: true},
	}
	for _, k := range []backendKind{dovecot23, dovecot24} {
		for _, n := range []int{32, 128} {
			w := work{
				name: fmt.Sprintf("%s-connect-%d", k.domain(), n), title: connectTitle, backend: k, clients: n, ops: connectEach, targets: beside,
				long: k == dovecot24 || n == 128,
			}
			if n == 128 {
				// What opens a connection for each of them takes long, and is as
				// fast as without it; Dovecot's own proxy has 100 processes.
				w.targets = []target{proxied, direct, haproxy}
			}
			list = append(list, w)
		}
		for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
			w := work{
				name: fmt.Sprintf("%s-kept-%d", k.domain(), n), title: keptTitle, backend: k, clients: n, ops: kept, targets: []target{direct},
				long: k == dovecot24 || n != 8,
			}
			if n == 1 {
				w.targets = beside
			}
			list = append(list, w)
		}
	}
	return list
}

// chosen returns the works of a form whose name matches only. The short form is
// without those ways that are there to explain the figures of others.
func chosen(short bool, only string) ([]work, error) {
	match, err := regexp.Compile("^(" + only + ")$")
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	var list []work
	for _, w := range works() {
		switch {
		case only != "" && !match.MatchString(w.name), only == "" && short && w.long:
			continue
		case only == "" && short:
			w.targets = slices.DeleteFunc(slices.Clone(w.targets), func(t target) bool { return t == quiet || t == looped })
		}
		list = append(list, w)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("-only %s matches nothing; there are:%s", only, names(works()))
	}
	return list, nil
}

func names(list []work) string {
	var b bytes.Buffer
	for _, w := range list {
		fmt.Fprintf(&b, " %s", w.name)
	}
	return b.String()
}
