// Package logs is the log of the process: hclog, with levels that can be
// changed for each component while it runs, lines that repeat held back, the
// priorities of the journal, and the newest lines kept for those who ask.
package logs

import (
	"fmt"
	"io"
	"log"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// CommandMessage is the message of the line that each command leaves. Such lines
// are no events.
const CommandMessage = "command"

// Options of a System.
type Options struct {
	Name   string // that all lines begin with
	Level  hclog.Level
	JSON   bool
	Output io.Writer
	// Journal: Output is the journal, and lines get its priorities.
	Journal bool
	NoTime  bool
}

// System is the log of a process. Its loggers may be used by any goroutine.
type System struct {
	name    string
	json    bool
	journal bool
	noTime  bool
	output  io.Writer    // for whole lines
	out     hclog.Logger // writes everything but what fast does
	held    holder
	events  events

	mu         sync.Mutex // guards what follows
	level      hclog.Level
	set        map[string]hclog.Level // levels of components of their own
	components map[string]*component
}

// component is what loggers of one name share.
type component struct {
	name  string // without that of the system; empty: the rest
	level atomic.Int32
}

// New returns a log. Close ends it.
func New(o Options) *System {
	output := &locked{w: o.Output}
	var w io.Writer = output
	if o.Journal {
		w = journal(w)
	}
	s := &System{
		name: o.Name, json: o.JSON, journal: o.Journal, noTime: o.NoTime, output: output, level: o.Level,
		set: make(map[string]hclog.Level), components: make(map[string]*component),
		out: hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: w, JSONFormat: o.JSON, DisableTime: o.NoTime}),
	}
	s.held.write = s.write
	return s
}

// locked takes one line at a time.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Logger returns the root of all loggers.
func (s *System) Logger() hclog.Logger {
	return &logger{system: s, name: s.name, component: s.component(""), inner: s.out.ResetNamed(s.name)}
}

// Close writes what is held back. What is logged later is written at once.
func (s *System) Close() { s.held.close() }

// HeldBack returns how many lines were held back and are told by a count.
func (s *System) HeldBack() uint64 { return s.held.lines.Load() }

func (s *System) component(name string) *component {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.components[name]
	if !ok {
		c = &component{name: name}
		s.components[name] = c
		s.apply()
	}
	return c
}

// apply gives each component its level: its own, or that of the component it is
// part of. The caller holds mu.
func (s *System) apply() {
	for name, c := range s.components {
		level := s.level
		for part := name; part != ""; {
			if own, ok := s.set[part]; ok {
				level = own
				break
			}
			part = part[:max(0, strings.LastIndexByte(part, '.'))]
		}
		c.level.Store(int32(level))
	}
}

// Levels are those of all components.
type Levels struct {
	Level      string            `json:"level"`      // of all that have none of their own
	Components map[string]string `json:"components"` // that each component has now
	Own        []string          `json:"own"`        // those with one of their own
}

// Levels returns the levels as they are.
func (s *System) Levels() Levels {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := Levels{Level: s.level.String(), Components: make(map[string]string), Own: []string{}}
	for name, c := range s.components {
		if name != "" {
			l.Components[name] = hclog.Level(c.level.Load()).String()
		}
	}
	for name := range s.set {
		l.Own = append(l.Own, name)
	}
	slices.Sort(l.Own)
	return l
}

// SetLevel changes the level of a component, of all without one of their own if
// component is empty. An empty level takes a component's own away.
func (s *System) SetLevel(component, level string) error {
	to := hclog.LevelFromString(level)
	if to == hclog.NoLevel && (level != "" || component == "") {
		return fmt.Errorf("unknown level %q: use trace, debug, info, warn or error", level)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.components[component]; !ok {
		var names []string
		for name := range s.components {
			if name != "" {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return fmt.Errorf("unknown component %q: use one of %s, or none for all", component, strings.Join(names, ", "))
	}
	switch {
	case component == "":
		s.level = to
	case level == "":
		delete(s.set, component)
	default:
		s.set[component] = to
	}
	s.apply()
	return nil
}

// line is one that is to be written.
type line struct {
	inner hclog.Logger
	level hclog.Level
	msg   string
	args  []any
}

func (s *System) write(l *line) { l.inner.Log(l.level, l.msg, l.args...) }

// logger is an hclog.Logger of a System.
type logger struct {
	system    *System
	name      string
	component *component
	inner     hclog.Logger
	implied   []any
	session   bool   // implied has one
	key       string // of implied
}

func (l *logger) on(level hclog.Level) bool { return level >= hclog.Level(l.component.level.Load()) }

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	on := l.on(level)
	event := level >= hclog.Info && level < hclog.Off && msg != CommandMessage
	if !on && !event {
		return
	}
	if l.system.json || level >= hclog.Info && (event || level > hclog.Info) {
		args = flat(args)
	}
	if event {
		l.system.events.add(l, level, msg, args)
	}
	if !on {
		return
	}
	out := &line{l.inner, level, msg, args}
	switch {
	case level >= hclog.Warn && msg == CommandMessage:
		l.system.held.pass(out, commandKey(args), commandLines)
	case level >= hclog.Warn && !l.session:
		l.system.held.pass(out, l.name+"\x00"+msg+"\x00"+l.key+"\x00"+keyOf(args), otherLines)
	default:
		l.system.write(out)
	}
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) IsTrace() bool { return l.on(hclog.Trace) }
func (l *logger) IsDebug() bool { return l.on(hclog.Debug) }
func (l *logger) IsInfo() bool  { return l.on(hclog.Info) }
func (l *logger) IsWarn() bool  { return l.on(hclog.Warn) }
func (l *logger) IsError() bool { return l.on(hclog.Error) }

func (l *logger) ImpliedArgs() []any { return l.implied }
func (l *logger) Name() string       { return l.name }

func (l *logger) With(args ...any) hclog.Logger {
	args = flat(args)
	n := *l
	n.inner = l.inner.With(args...)
	n.implied = append(slices.Clone(l.implied), args...)
	n.session = l.session || has(args, "session")
	if !n.session {
		n.key += exactKey(args)
	}
	return &n
}

func (l *logger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *logger) ResetNamed(name string) hclog.Logger {
	n := *l
	n.name = name
	n.component = l.system.component(strings.TrimPrefix(strings.TrimPrefix(name, l.system.name), "."))
	n.inner = l.inner.ResetNamed(name)
	return &n
}

// SetLevel sets the level of all components that have none of their own.
func (l *logger) SetLevel(level hclog.Level) {
	l.system.mu.Lock()
	defer l.system.mu.Unlock()
	l.system.level = level
	l.system.apply()
}

func (l *logger) GetLevel() hclog.Level { return hclog.Level(l.component.level.Load()) }

func (l *logger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

func (l *logger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	level := hclog.Info
	if o != nil && o.ForceLevel != hclog.NoLevel {
		level = o.ForceLevel
	}
	return &lineWriter{l, level}
}

// lineWriter logs what other packages write to a standard logger.
type lineWriter struct {
	logger *logger
	level  hclog.Level
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.logger.Log(w.level, strings.TrimRight(string(p), " \t\n"))
	return len(p), nil
}

// flat makes text of everything that is no text, number or truth: JSON shall
// have no objects in it, and what is kept shall not change any more.
func flat(args []any) []any {
	var out []any
	for i := 1; i < len(args); i += 2 {
		text := ""
		switch v := args[i].(type) {
		case nil, string, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64:
			continue
		case time.Time:
			text = v.Format(time.RFC3339Nano)
		case hclog.Format:
			text = fmt.Sprintf(v[0].(string), v[1:]...)
		default:
			text = fmt.Sprint(v) // of an error or a fmt.Stringer what it says
		}
		if out == nil {
			out = slices.Clone(args)
		}
		out[i] = text
	}
	if out == nil {
		return args
	}
	return out
}

func has(args []any, key string) bool {
	for i := 0; i < len(args); i += 2 {
		if args[i] == key {
			return true
		}
	}
	return false
}
