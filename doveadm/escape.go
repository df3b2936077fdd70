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
	i := bytes.IndexByte(p, escapeByte)
	if i < 0 {
		return p
	}
	out := p[:i]
	for ; i < len(p); i++ {
		if p[i] != escapeByte {
			out = append(out, p[i])
			continue
		}
		if i++; i < len(p) {
			out = append(out, unescaped(p[i]))
		}
	}
	return out
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
