package doveadm

import "strings"

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

// appendLogLine appends text as a line of the log channel. Control characters
// become spaces, so that no text can forge a second line.
func appendLogLine(dst []byte, l LogLevel, text string) []byte {
	dst = append(dst, byte(l))
	text = strings.TrimRight(text, "\n")
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		dst = append(dst, c)
	}
	return append(dst, '\n')
}
