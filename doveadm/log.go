package doveadm

import (
	"bytes"
	"strings"
)

// LogLevel is the type byte of a line on the log channel.
type LogLevel byte

// The levels as they stand on the wire.
const (
	LogDebug   LogLevel = 1
	LogInfo    LogLevel = 2
	LogWarning LogLevel = 3
	LogError   LogLevel = 4
	LogFatal   LogLevel = 5
	LogPanic   LogLevel = 6
)

// String returns the level's name in lower case.
func (l LogLevel) String() string {
	switch l {
	case LogDebug:
		return "debug"
	case LogInfo:
		return "info"
	case LogWarning:
		return "warning"
	case LogError:
		return "error"
	case LogFatal:
		return "fatal"
	case LogPanic:
		return "panic"
	}
	return "unknown"
}

// maxLogLine is the length of the longest log line that Dovecot's clients
// accept. What is behind it in a longer one is dropped, in both roles.
const maxLogLine = 32 << 10

// appendLogLine appends text as a line of the log channel. Control characters
// become spaces, so that no text can forge a second line.
func appendLogLine(dst []byte, l LogLevel, text string) []byte {
	dst = append(dst, byte(l))
	text = strings.TrimRight(text, "\n")
	text = text[:min(len(text), maxLogLine-2)]
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		dst = append(dst, c)
	}
	return append(dst, '\n')
}

// logLines cuts the data of the log channel into lines. A line may be spread
// over packets, and end behind the status of its command.
type logLines struct {
	line []byte // the beginning of a line that has not ended
}

func (l *logLines) read(data []byte, emit func(level LogLevel, text string)) {
	for {
		part, rest, ended := bytes.Cut(data, []byte{'\n'})
		l.line = append(l.line, part[:min(len(part), maxLogLine-len(l.line))]...)
		if !ended {
			return
		}
		data = rest
		line := l.line
		if l.line = line[:0]; cap(line) > readSize {
			l.line = nil
		}
		if len(line) > 0 {
			emit(LogLevel(line[0]), string(line[1:]))
		}
	}
}
