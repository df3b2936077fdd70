package doveadm

import "bytes"

// escapeByte introduces an escape pair. The same table is used in fields of
// requests and of output (Dovecot's lib/strescape.c, "tabescape").
const escapeByte = 0x01

// escapedAs maps a byte that may not stand in a field to the second byte of
// its escape pair, all others to 0.
var escapedAs = [256]byte{0: '0', escapeByte: '1', '\t': 't', '\r': 'r', '\n': 'n'}

// AppendEscaped appends the escaped form of s to dst. What it appends contains
// no NUL, TAB, CR or LF.
func AppendEscaped[T ~string | ~[]byte](dst []byte, s T) []byte {
	start := 0
	for i := 0; i < len(s); i++ {
		e := escapedAs[s[i]]
		if e == 0 {
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = append(dst, escapeByte, e)
		start = i + 1
	}
	return append(dst, s[start:]...)
}

// Unescape replaces every escape pair of p in place and returns the shortened
// slice. As in Dovecot, a pair with an unknown second byte stands for that
// byte and a lone escape byte at the end is dropped.
func Unescape(p []byte) []byte {
	p, _ = unescapePiece(p, false)
	return p
}

// unescapePiece unescapes a piece of a field in place. open says that the piece
// before it ended inside an escape pair; the second result says the same of p.
func unescapePiece(p []byte, open bool) ([]byte, bool) {
	r, w := 0, 0
	if open {
		if len(p) == 0 {
			return p, true
		}
		p[0] = unescaped(p[0])
		r, w = 1, 1
	}
	for {
		i := bytes.IndexByte(p[r:], escapeByte)
		if i < 0 {
			w += copy(p[w:], p[r:])
			return p[:w], false
		}
		w += copy(p[w:], p[r:r+i])
		r += i + 1
		if r == len(p) {
			return p[:w], true
		}
		p[w] = unescaped(p[r])
		r, w = r+1, w+1
	}
}

// unescaped returns the byte that an escape pair ending in c stands for.
func unescaped(c byte) byte {
	switch c {
	case '0':
		return 0
	case '1':
		return escapeByte
	case 't':
		return '\t'
	case 'r':
		return '\r'
	case 'n':
		return '\n'
	}
	return c
}
