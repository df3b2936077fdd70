package doveadm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Command is one request line. Its fields hold plain text; escaping is the
// codec's business.
type Command struct {
	Debug   bool // flag D, implies Verbose
	Verbose bool // flag v

	// Extra are the fields behind flag x, each "name=value", for instance
	// "proxy-ttl=5". They exist from minor version 3 on; encoding for an older
	// server leaves them out.
	Extra []string

	User string   // the mail user; empty for commands that have none
	Name string   // the full name with single spaces, e.g. "mailbox list"
	Args []string // as on a command line
}

// CommandOption is the name of the pseudo command that switches on options of
// a connection. It has no reply. Servers know it from minor version 3 on.
const CommandOption = "OPTION"

// OptionLogPassthrough asks a server of minor version 3 or higher for log
// lines on channel L.
const OptionLogPassthrough = "log-passthrough"

// MaxLine is the longest line, LF included, that a Dovecot server takes.
const MaxLine = 1 << 20

// ErrNoCommand is the error of a request line with fewer than three fields.
// Dovecot answers it with a log line of this text and closes.
//
//lint:ignore ST1005 these are Dovecot's words
var ErrNoCommand = errors.New("No command given")

// ErrNUL is the error of a request line with a NUL byte, raw or escaped.
// Dovecot would silently cut the text there.
var ErrNUL = errors.New("NUL byte in command")

// UnknownFlagError is the error of a request line with an unknown flag.
type UnknownFlagError byte

func (e UnknownFlagError) Error() string {
	// Dovecot prints the byte as it is; a control character must not reach a
	// log.
	if e < ' ' || e > '~' {
		return fmt.Sprintf("Unknown flag: \\x%02x", byte(e))
	}
	return "Unknown flag: " + string(rune(e))
}

// AppendCommand appends the request line of c, LF included, as it is sent to a
// server of minor version m.
func AppendCommand(dst []byte, c *Command, m Minor) []byte {
	switch {
	case c.Debug:
		dst = append(dst, 'D')
	case c.Verbose:
		dst = append(dst, 'v')
	}
	extra := len(c.Extra) > 0 && m >= MinorExtraFields
	if extra {
		dst = append(dst, 'x')
	}
	dst = append(dst, '\t')
	if extra {
		// Escaped twice: each value inside the list, then the list as one
		// field, so that the TABs between values become escapes too.
		var room [256]byte
		list := room[:0]
		for i, e := range c.Extra {
			if i > 0 {
				list = append(list, '\t')
			}
			list = AppendEscaped(list, e)
		}
		dst = AppendEscaped(dst, list)
		dst = append(dst, '\t')
	}
	dst = AppendEscaped(dst, c.User)
	dst = append(dst, '\t')
	dst = AppendEscaped(dst, c.Name)
	for _, a := range c.Args {
		dst = append(dst, '\t')
		dst = AppendEscaped(dst, a)
	}
	return append(dst, '\n')
}

// Parse sets c to the request of line, which has no line end. The text is
// copied, so line may be overwritten afterwards; the Args and Extra slices of
// c are used again. The error is ErrNoCommand, ErrNUL or an UnknownFlagError,
// each of which ends a connection; then c is of no use.
func (c *Command) Parse(line []byte) error { return c.parse(string(line)) }

// parse is Parse of text that does not change.
func (c *Command) parse(line string) error {
	*c = Command{Args: c.Args[:0], Extra: c.Extra[:0]}
	if strings.IndexByte(line, 0) >= 0 {
		return ErrNUL
	}
	if strings.Count(line, "\t") < 2 {
		return ErrNoCommand
	}
	field, rest, _ := strings.Cut(line, "\t")
	flags, ok := unescapeString(field)
	if !ok {
		return ErrNUL
	}
	extras := 0
	for i := 0; i < len(flags); i++ {
		switch flags[i] {
		case 'D':
			c.Debug = true
		case 'v':
			c.Verbose = true
		case 'x':
			extras++
		default:
			return UnknownFlagError(flags[i])
		}
	}
	for range extras { // Dovecot takes a field for each x
		var field string
		field, rest, _ = strings.Cut(rest, "\t")
		list, ok := unescapeString(field)
		for e := range strings.SplitSeq(list, "\t") {
			e, okEntry := unescapeString(e)
			if !ok || !okEntry {
				return ErrNUL
			}
			c.Extra = append(c.Extra, e)
		}
	}
	field, rest, ok = strings.Cut(rest, "\t")
	if !ok {
		return ErrNoCommand
	}
	if c.User, ok = unescapeString(field); !ok {
		return ErrNUL
	}
	field, rest, more := strings.Cut(rest, "\t")
	if c.Name, ok = unescapeString(field); !ok {
		return ErrNUL
	}
	for more {
		field, rest, more = strings.Cut(rest, "\t")
		a, ok := unescapeString(field)
		if !ok {
			return ErrNUL
		}
		c.Args = append(c.Args, a)
	}
	return nil
}

// hasNUL reports whether a server would cut one of the fields short.
func (c *Command) hasNUL() bool {
	has := func(s string) bool { return strings.IndexByte(s, 0) >= 0 }
	return has(c.User) || has(c.Name) || slices.ContainsFunc(c.Args, has) || slices.ContainsFunc(c.Extra, has)
}

// unescapeString reports false if the text holds a NUL byte.
func unescapeString(s string) (string, bool) {
	if strings.IndexByte(s, escapeByte) < 0 {
		return s, true
	}
	p := Unescape([]byte(s))
	return string(p), bytes.IndexByte(p, 0) < 0
}
