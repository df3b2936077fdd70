// Package glob matches names against patterns in which * stands for any
// characters or none and ? for exactly one; all else stands for itself. There
// are no escapes and no classes, and / is a character as any other.
package glob

import (
	"strings"
	"unicode/utf8"
)

// HasWildcard reports whether pattern may match another name than itself.
func HasWildcard(pattern string) bool { return strings.ContainsAny(pattern, "*?") }

// Match reports whether all of s matches pattern.
//
// On a mismatch only the last * takes one character more: what earlier ones
// took cannot have been too little, since they took as little as they could.
// So the time is at most len(pattern) times len(s), whatever the pattern is.
func Match(pattern, s string) bool {
	p, i := 0, 0
	star, taken := -1, 0 // where the last * stands, and the end of what it took
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, taken = p, i
			p++
		case p < len(pattern) && pattern[p] == '?':
			p++
			i += charLen(s[i:])
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			taken += charLen(s[taken:])
			p, i = star+1, taken
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// charLen is the length of the first character, which ? counts as one; bytes
// that are not UTF-8 count each.
func charLen(s string) int {
	_, size := utf8.DecodeRuneInString(s)
	return size
}
