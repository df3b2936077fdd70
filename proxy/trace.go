package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// TraceFilter says whose commands are traced: those of a client, of a user, or
// of both together.
type TraceFilter struct{ Client, User string }

// Wire is something that went over a wire for a traced command.
type Wire struct {
	Time    time.Time
	Session uint64
	Number  uint64 // of the command in its session
	Way     Way
	Backend string // on the ways to and from one
	Bytes   int    // on the wire
	Text    string // of them, with *** for secrets; mails and scripts are not shown
}

// Way is between whom something went.
type Way string

// The ways.
const (
	FromClient  Way = "client>proxy"
	ToBackend   Way = "proxy>backend"
	FromBackend Way = "backend>proxy"
	ToClient    Way = "proxy>client"
	EndOf       Way = "end" // of the command, with what became of it
)

// Trace gets the wire of the commands that begin while it is there, up to a
// size. It does not slow them: one that is not read loses pieces.
type Trace struct {
	proxy  *Proxy
	filter TraceFilter
	wires  chan Wire
	lost   atomic.Uint64
	left   atomic.Int64 // bytes of text
	full   chan struct{}
	filled sync.Once
}

// Trace returns a new one, for so many bytes of text, which keeps as many pieces
// as buffer says.
func (p *Proxy) Trace(f TraceFilter, size int64, buffer int) *Trace {
	t := &Trace{proxy: p, filter: f, wires: make(chan Wire, buffer), full: make(chan struct{})}
	t.left.Store(size)
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.traces, t)
	return t
}

// Wires returns where the pieces are to be read. It is never closed.
func (t *Trace) Wires() <-chan Wire { return t.wires }

// Full returns a channel that is closed when the size is reached.
func (t *Trace) Full() <-chan struct{} { return t.full }

// Lost returns how many pieces were lost since the last call.
func (t *Trace) Lost() uint64 { return t.lost.Swap(0) }

// Close ends it.
func (t *Trace) Close() {
	t.proxy.mu.Lock()
	defer t.proxy.mu.Unlock()
	remove(&t.proxy.traces, t)
}

func (t *Trace) add(w Wire) {
	select {
	case <-t.full:
		return
	default:
	}
	if t.left.Add(-int64(len(w.Text))-64) < 0 {
		t.filled.Do(func() { close(t.full) })
	}
	select {
	case t.wires <- w:
	default:
		t.lost.Add(1)
	}
}

// traced is what a task has of the traces that it belongs to.
type traced struct {
	traces []*Trace
	lines  map[Way]*tracedLines
}

// tracedLines are what has arrived of a line on one way. What is shown is whole
// lines: only of those it can be told what is secret.
type tracedLines struct {
	text []byte
	size int
}

// longLine is how much of a line is shown.
const longLine = 4 << 10

// traceOf returns what a task traces, nil where nobody asks for it.
func (p *Proxy) traceOf(t *task) *traced {
	all := p.traces.Load()
	if all == nil {
		return nil
	}
	var mine []*Trace
	names := p.snapshot.Load().names
	user := names.User(t.cmd.User)
	for _, one := range *all {
		f := &one.filter
		if (f.Client == "" || f.Client == t.session.client) && (f.User == "" || names.User(f.User) == user) {
			mine = append(mine, one)
		}
	}
	if mine == nil {
		return nil
	}
	tr := &traced{mine, make(map[Way]*tracedLines)}
	tr.command(t, FromClient, &t.cmd)
	if t.input != nil {
		tr.input(t, FromClient, t.input.size)
	}
	return tr
}

func (tr *traced) send(t *task, way Way, size int, text string) {
	w := Wire{Time: time.Now(), Session: t.session.id, Number: t.live.number, Way: way, Bytes: size, Text: text}
	if way == ToBackend || way == FromBackend {
		w.Backend = t.res.backend
	}
	for _, one := range tr.traces {
		one.add(w)
	}
}

// command traces a command line. The fields after the name are masked as in the
// audit log; extra fields may forward a password.
func (tr *traced) command(t *task, way Way, cmd *doveadm.Command) {
	shown := *cmd
	size := len(doveadm.AppendCommand(nil, cmd, doveadm.MaxMinor))
	shown.Args = t.request.info.MaskArgs(cmd.Args)
	shown.Extra = slices.Clone(cmd.Extra)
	for i, field := range shown.Extra {
		shown.Extra[i] = doveadm.MaskText(field)
		if strings.HasPrefix(field, forwardPrefix) {
			shown.Extra[i] = forwardPrefix + doveadm.Masked
		}
	}
	tr.send(t, way, size, string(bytes.TrimSuffix(doveadm.AppendCommand(nil, &shown, doveadm.MaxMinor), []byte("\n"))))
}

// forwardPrefix begins a field that may hold anything about a login.
const forwardPrefix = "forward="

// input traces that the input of a command went a way.
func (tr *traced) input(t *task, way Way, size int64) {
	tr.send(t, way, int(size), fmt.Sprintf("(%d bytes of input)", size))
}

// data traces pieces of replies and log lines.
func (tr *traced) data(t *task, way Way, channel byte, data []byte) {
	if channel != doveadm.ChannelLog && !tr.readable(t) {
		tr.send(t, way, len(data), fmt.Sprintf("(%d bytes, which may be of mails or for administrators only)", len(data)))
		return
	}
	l := tr.lines[way]
	if l == nil {
		l = new(tracedLines)
		tr.lines[way] = l
	}
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		ends := n > 0
		if !ends {
			n = len(data)
		}
		l.size += n
		if room := longLine - len(l.text); room > 0 {
			l.text = append(l.text, data[:min(n, room)]...)
		}
		data = data[n:]
		if ends {
			tr.flush(t, way)
		}
	}
}

// flush sends what there is of a line.
func (tr *traced) flush(t *task, way Way) {
	l := tr.lines[way]
	if l == nil || l.size == 0 {
		return
	}
	text := bytes.TrimSuffix(l.text, []byte("\n"))
	fields := bytes.Split(text, []byte("\t"))
	for i, field := range fields {
		fields[i] = []byte(doveadm.MaskText(string(field)))
	}
	shown := string(bytes.Join(fields, []byte("\t")))
	if l.size > len(l.text) {
		shown += "..."
	}
	tr.send(t, way, l.size, shown)
	l.text, l.size = l.text[:0], 0
}

// readable reports whether the replies of a command are about accounts, and not
// mails or secrets of the server.
func (tr *traced) readable(t *task) bool {
	right := t.request.info.Right
	return right == doveadm.RightRead || right == doveadm.RightWrite
}

// end traces what became of the command.
func (tr *traced) end(t *task) {
	for _, way := range []Way{FromBackend, ToClient} {
		tr.flush(t, way)
	}
	text := t.res.outcome.String()
	if t.res.status != (doveadm.Status{}) {
		text += " " + t.res.status.String()
	}
	if t.res.reason != "" {
		text += ": " + printable(t.res.reason)
	}
	tr.send(t, EndOf, 0, text)
}
