package logs

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// allowance is how many lines of a key are written within a window. The others
// are counted; at its end the last of them is written, with their number.
type allowance struct {
	lines  int
	window time.Duration
}

var (
	// commandLines bounds the lines of commands that failed for the same reason
	// at the same backend: while it is down there are as many as clients can send.
	commandLines = allowance{20, time.Second}
	// otherLines bounds all others but those of sessions, which say more than one
	// thing each and have limits of their own.
	otherLines = allowance{5, 10 * time.Second}
)

// maxKeys bounds how many kinds of lines are told apart in a window.
const maxKeys = 1000

// holder holds lines back.
type holder struct {
	write func(*line)
	lines atomic.Uint64 // that were held back

	mu     sync.Mutex // guards what follows; nothing is written under it
	closed bool
	keys   map[string]*held
	ending sync.WaitGroup // ends of windows that are under way
}

// held is the lines of one key in one window.
type held struct {
	written int
	back    int   // held back
	last    *line // of them
	timer   *time.Timer
}

// pass writes a line or holds it back.
func (h *holder) pass(l *line, key string, a allowance) {
	h.mu.Lock()
	k, ok := h.keys[key]
	switch {
	case h.closed, !ok && len(h.keys) >= maxKeys:
		h.mu.Unlock()
		h.write(l)
		return
	case !ok:
		if h.keys == nil {
			h.keys = make(map[string]*held)
		}
		k = new(held)
		h.keys[key] = k
		h.ending.Add(1)
		k.timer = time.AfterFunc(a.window, func() {
			defer h.ending.Done()
			h.end(key, k)
		})
	}
	if k.written < a.lines {
		k.written++
		h.mu.Unlock()
		h.write(l)
		return
	}
	kept := *l
	kept.args = slices.Clone(l.args)
	k.last = &kept
	k.back++
	h.lines.Add(1)
	h.mu.Unlock()
}

// end ends a window.
func (h *holder) end(key string, k *held) {
	h.mu.Lock()
	if h.keys[key] == k {
		delete(h.keys, key)
	}
	h.mu.Unlock()
	h.tell(k)
}

// tell writes the last line that was held back, with what it stands for.
func (h *holder) tell(k *held) {
	if k.last != nil {
		k.last.args = append(k.last.args, "repeated", k.back)
		h.write(k.last)
	}
}

func (h *holder) close() {
	h.mu.Lock()
	h.closed = true
	keys := h.keys
	h.keys = nil
	h.mu.Unlock()
	for _, k := range keys {
		if k.timer.Stop() {
			h.tell(k)
			h.ending.Done()
		}
	}
	h.ending.Wait()
}

// keyOf is what two lines have in common that are the same but for numbers:
// ports, counts, times.
func keyOf(args []any) string {
	var b strings.Builder
	for i := 1; i < len(args); i += 2 {
		text, ok := args[i].(string)
		if !ok {
			continue
		}
		for _, r := range text {
			if r < '0' || r > '9' {
				b.WriteRune(r)
			}
		}
		b.WriteByte(0)
	}
	return b.String()
}

// exactKey is for what a logger always says: which backend, which listener.
func exactKey(args []any) string { return fmt.Sprintln(args...) }

// commandKey is how a command ended, and where.
func commandKey(args []any) string {
	var b strings.Builder
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "outcome", "backend", "client":
			fmt.Fprintf(&b, "%v\x00", args[i+1])
		}
	}
	return b.String()
}
