package logs

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// maxEvents is how many are kept.
	maxEvents = 300
	// joinTime is within what time events that say the same are one, and
	// joinLast among how many of the newest.
	joinTime = time.Minute
	joinLast = 50
)

// Event is a line of the log that tells what happened to the proxy: states of
// backends, breakers, reloads, refused logins. Those of commands are none.
type Event struct {
	First     time.Time
	Time      time.Time // of the last
	Count     int
	Level     string
	Component string
	Message   string
	Fields    map[string]string // of the last
}

// events are the newest, the last one at the end.
type events struct {
	mu  sync.Mutex // guards what follows; nothing else is done under it
	all []Event
}

func (e *events) add(l *logger, level hclog.Level, msg string, args []any) {
	fields := make(map[string]string, (len(l.implied)+len(args))/2)
	for _, list := range [][]any{l.implied, args} {
		for i := 0; i+1 < len(list); i += 2 {
			fields[fmt.Sprint(list[i])] = fmt.Sprint(list[i+1])
		}
	}
	now := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.all) - 1; i >= max(0, len(e.all)-joinLast); i-- {
		was := e.all[i]
		if now.Sub(was.First) > joinTime || was.Message != msg || was.Component != l.component.name ||
			was.Fields["backend"] != fields["backend"] || was.Fields["outcome"] != fields["outcome"] || was.Fields["state"] != fields["state"] {
			continue
		}
		was.Count++
		was.Time, was.Fields = now, fields
		e.all = append(slices.Delete(e.all, i, i+1), was)
		return
	}
	if len(e.all) == maxEvents {
		e.all = slices.Delete(e.all, 0, 1)
	}
	e.all = append(e.all, Event{First: now, Time: now, Count: 1, Level: level.String(), Component: l.component.name, Message: msg, Fields: fields})
}

// Events returns the newest events, the last one first.
func (s *System) Events() []Event {
	s.events.mu.Lock()
	all := slices.Clone(s.events.all)
	s.events.mu.Unlock()
	slices.Reverse(all)
	return all
}
