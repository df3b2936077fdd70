// Package audit writes the audit log: one JSON object for each command and for
// each login that was refused, to a file, to syslog or to the journal.
//
//	log := audit.New(logger)
//	sink, err := audit.Open(cfg.Audit)
//	log.Use(sink)
//	...
//	if log.On() {
//		log.Add(&audit.Record{...})
//	}
//
// Records are encoded by who adds them and written by one goroutine, in the
// order in which they were added. Nobody waits for a disk or a socket: the
// records that wait are bounded, and what happens above the bound, or when
// nothing can be written, is a choice of the configuration.
package audit

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// Record is one line. Text may be of any length and bytes; the line has bounds.
type Record struct {
	Time  time.Time
	Event string // EventCommand or EventLoginRefused

	Session     uint64
	Listener    string
	Address     string // of the client, with its port; "local" on a UNIX socket
	Client      string // who logged in, or the name that was tried
	Certificate string // subject of the client's certificate; empty: none

	// Of a command:
	User      string
	Command   string
	Arguments []string // with secrets masked
	Shard     string
	Backend   string // empty: no backend had to do with it
	Status    string
	Duration  time.Duration
	Input     int64 // bytes
	Output    int64 // bytes

	Outcome string
	Reason  string
}

// The events.
const (
	EventCommand      = "command"
	EventLoginRefused = "login-refused"
)

// Bounds of the text in a record, in bytes before JSON's escapes.
const (
	maxText      = 512
	maxArguments = 4096 // all together
)

// ran reports whether a backend had to do with it.
func (r *Record) ran() bool { return r.Backend != "" }

// appendTo appends the record as a line of JSON. Text that is cut ends in "...".
func (r *Record) appendTo(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = r.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","event":`...)
	b = appendText(b, r.Event, maxText)
	b = append(b, `,"session":`...)
	b = strconv.AppendUint(b, r.Session, 10)
	b = appendField(b, "listener", r.Listener)
	b = appendField(b, "address", r.Address)
	b = appendField(b, "client", r.Client)
	b = appendOptional(b, "certificate", r.Certificate)
	if r.Event == EventCommand {
		b = r.appendCommand(b)
	}
	b = appendField(b, "outcome", r.Outcome)
	b = appendOptional(b, "reason", r.Reason)
	return append(b, "}\n"...)
}

func (r *Record) appendCommand(b []byte) []byte {
	b = appendField(b, "user", r.User)
	b = appendField(b, "command", r.Command)
	b = append(b, `,"arguments":[`...)
	room := maxArguments
	for i, arg := range r.Arguments {
		if i > 0 {
			b = append(b, ',')
		}
		if room <= 0 {
			b = append(b, `"..."`...)
			break
		}
		b = appendText(b, arg, room)
		room -= max(len(arg), 16) // many empty ones have a bound, too
	}
	b = append(b, ']')
	b = appendOptional(b, "shard", r.Shard)
	b = appendOptional(b, "backend", r.Backend)
	b = appendField(b, "status", r.Status)
	b = append(b, `,"duration_ms":`...)
	b = strconv.AppendFloat(b, float64(r.Duration)/float64(time.Millisecond), 'f', 3, 64)
	b = append(b, `,"input_bytes":`...)
	b = strconv.AppendInt(b, r.Input, 10)
	b = append(b, `,"output_bytes":`...)
	return strconv.AppendInt(b, r.Output, 10)
}

func appendOptional(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return appendField(b, name, text)
}

func appendField(b []byte, name, text string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendText(b, text, maxText)
}

// appendText appends a JSON string of at most limit bytes of text. What is not
// UTF-8, and what a terminal might take for a command, is written as \uXXXX.
func appendText(b []byte, text string, limit int) []byte {
	cut := len(text) > limit
	if cut {
		text = text[:limit]
		// Not through the middle of a character.
		for i := 0; i < utf8.UTFMax && len(text) > 0; i++ {
			if r, n := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || n != 1 {
				break
			}
			text = text[:len(text)-1]
		}
	}
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == utf8.RuneError && n == 1:
			b = append(b, `\ufffd`...)
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029':
			b = append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			b = append(b, text[i:i+n]...)
		}
		i += n
	}
	if cut {
		b = append(b, "..."...)
	}
	return append(b, '"')
}
