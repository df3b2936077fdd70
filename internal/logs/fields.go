package logs

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
)

// Field is a key and its value in a line that is logged by Log.
type Field struct {
	key    string
	kind   fieldKind
	text   string
	number int64
}

type fieldKind uint8

const (
	textField fieldKind = iota
	numberField
	millisField
	truthField
)

// Text is a field of text.
func Text(key, value string) Field { return Field{key: key, kind: textField, text: value} }

// Number is a field of a whole number.
func Number(key string, value int64) Field { return Field{key: key, kind: numberField, number: value} }

// Millis is a field of milliseconds with three decimals. That is how durations
// stand in the log: one unit, to be compared and summed up.
func Millis(key string, value time.Duration) Field {
	return Field{key: key, kind: millisField, number: int64(value)}
}

// True is a field that says so.
func True(key string) Field { return Field{key: key, kind: truthField} }

// value is what other loggers are given.
func (f *Field) value() any {
	switch f.kind {
	case numberField:
		return f.number
	case millisField:
		return string(f.appendValue(nil))
	case truthField:
		return true
	}
	return f.text
}

// appendValue appends what is no text.
func (f *Field) appendValue(dst []byte) []byte {
	switch f.kind {
	case numberField:
		return strconv.AppendInt(dst, f.number, 10)
	case millisField:
		return strconv.AppendFloat(dst, float64(f.number)/float64(time.Millisecond), 'f', 3, 64)
	}
	return append(dst, "true"...)
}

// Log is log.Log for the line of a command, of which there are many: at level
// info it takes no memory, and writes the bytes that hclog would. Other lines,
// and other loggers than those of a System, take the ordinary way. The fields
// change their order.
func Log(log hclog.Logger, level hclog.Level, msg string, fields ...Field) {
	if l, ok := log.(*logger); ok && l.fast(level, msg, fields) {
		return
	}
	args := make([]any, 0, 2*len(fields))
	for i := range fields {
		args = append(args, fields[i].key, fields[i].value())
	}
	log.Log(level, msg, args...)
}

// buffers are for one line each.
var buffers = sync.Pool{New: func() any { return new([512]byte) }}

// fast writes the line if there is to be one, or reports false if it is not of
// the kind that it can write.
func (l *logger) fast(level hclog.Level, msg string, fields []Field) bool {
	if level > hclog.Info || msg != CommandMessage {
		return false
	}
	if !l.on(level) {
		return true
	}
	if level != hclog.Info || len(l.implied) > 0 {
		return false
	}
	s := l.system
	for i := range fields {
		if !s.json && strings.IndexByte(fields[i].text, '\n') >= 0 {
			return false
		}
	}
	room := buffers.Get().(*[512]byte)
	out := room[:0]
	if s.journal {
		out = append(out, "<6>"...)
	}
	if s.json {
		out = l.appendJSON(out, msg, fields)
	} else {
		out = l.appendPlain(out, msg, fields)
	}
	s.output.Write(append(out, '\n'))
	buffers.Put(room)
	return true
}

// appendPlain appends a line of level info as hclog's format for people has it.
func (l *logger) appendPlain(dst []byte, msg string, fields []Field) []byte {
	if !l.system.noTime {
		dst = time.Now().AppendFormat(dst, hclog.TimeFormat)
		dst = append(dst, ' ')
	}
	dst = append(dst, "[INFO]  "...)
	if l.name != "" {
		dst = append(dst, l.name...)
		dst = append(dst, ": "...)
	}
	dst = append(dst, msg...)
	if len(fields) > 0 {
		dst = append(dst, ':')
	}
	for i := range fields {
		dst = append(dst, ' ')
		dst = append(dst, fields[i].key...)
		dst = append(dst, '=')
		if fields[i].kind == textField {
			dst = appendText(dst, fields[i].text)
		} else {
			dst = fields[i].appendValue(dst)
		}
	}
	return dst
}

// appendJSON appends a line of level info as hclog's JSON format has it, whose
// keys are sorted.
func (l *logger) appendJSON(dst []byte, msg string, fields []Field) []byte {
	dst = append(dst, `{"@level":"info","@message":`...)
	dst = appendJSONText(dst, msg)
	if l.name != "" {
		dst = append(dst, `,"@module":`...)
		dst = appendJSONText(dst, l.name)
	}
	if !l.system.noTime {
		dst = append(dst, `,"@timestamp":"`...)
		dst = time.Now().AppendFormat(dst, hclog.TimeFormatJSON)
		dst = append(dst, '"')
	}
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(a.key, b.key) })
	for i := range fields {
		f := &fields[i]
		dst = append(dst, ',')
		dst = appendJSONText(dst, f.key)
		dst = append(dst, ':')
		switch f.kind {
		case textField:
			dst = appendJSONText(dst, f.text)
		case millisField:
			dst = append(dst, '"')
			dst = f.appendValue(dst)
			dst = append(dst, '"')
		default:
			dst = f.appendValue(dst)
		}
	}
	return append(dst, '}')
}

// appendJSONText appends a JSON string. What is not plain is left to
// encoding/json.
func appendJSONText(dst []byte, text string) []byte {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			quoted, err := json.Marshal(text)
			if err != nil { // no string is unfit
				panic(err)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, text...)
	return append(dst, '"')
}

// appendText appends a text as hclog writes it.
func appendText(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, `""`...)
	}
	plain := true
	for i := 0; i < len(text); i++ {
		if c := text[i]; c < '-' || c > '~' {
			plain = false
			break
		}
	}
	if plain {
		return append(dst, text...)
	}
	dst = append(dst, '"')
	if strings.IndexFunc(text, func(r rune) bool { return r == '"' || !unicode.IsPrint(r) }) < 0 {
		return append(append(dst, text...), '"') // bytes that are no UTF-8, too
	}
	for _, r := range text {
		switch {
		case r == '"':
			dst = append(dst, `\"`...)
		case unicode.IsPrint(r):
			dst = utf8.AppendRune(dst, r)
		default:
			dst = appendEscape(dst, r)
		}
	}
	return append(dst, '"')
}

// appendEscape appends what cannot be printed.
func appendEscape(dst []byte, r rune) []byte {
	const short, hex = "\a\b\f\n\r\t\v", "0123456789abcdef"
	if i := strings.IndexRune(short, r); i >= 0 {
		return append(dst, '\\', "abfnrtv"[i])
	}
	letter, digits := byte('u'), 4
	switch {
	case r < ' ':
		letter, digits = 'x', 2
	case r >= 0x10000:
		letter, digits = 'U', 8
	}
	dst = append(dst, '\\', letter)
	for n := digits - 1; n >= 0; n-- {
		dst = append(dst, hex[r>>(4*n)&0xf])
	}
	return dst
}
