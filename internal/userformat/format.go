// Package userformat is Dovecot's templates for user names: what
// auth_username_format and director_username_hash hold.
//
// It reads the spelling of Dovecot 2.3 (%Lu, %n@%d, %2.256Nu, %L{user}) and the
// usual part of that of 2.4 (%{user | lower}, %{user | username}), both in the
// same template. Case is that of ASCII, as in Dovecot, which never leaves the C
// locale.
package userformat

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Format is a parsed template. It does not change; any number of goroutines
// may use it.
type Format struct {
	pieces []piece
	source string
}

// piece is literal text, or a variable and what is done with it.
type piece struct {
	literal       string
	variable      byte // u, n or d; 0 for literal text
	modifiers     []modifier
	offset, width int
	padded        bool // with zeros up to the width, instead of cut there
}

// modifier is the letter of a modifier of 2.3, or one of the filters of 2.4 that
// 2.3 does not have.
type modifier byte

const (
	beforeAt modifier = 'n' // username
	behindAt modifier = 'd' // domain
)

const (
	letters = "LUEXRHNMDT"

	maxModifiers = 10   // of one variable
	maxPadding   = 1024 // bytes
)

// Parse reads a template.
func Parse(source string) (*Format, error) {
	f := &Format{source: source}
	for rest := source; rest != ""; {
		at := strings.IndexByte(rest, '%')
		if at != 0 {
			if at < 0 {
				at = len(rest)
			}
			f.pieces = append(f.pieces, piece{literal: rest[:at]})
			rest = rest[at:]
			continue
		}
		p, after, err := parseVariable(rest[1:])
		if err != nil {
			return nil, err
		}
		f.pieces = append(f.pieces, p)
		rest = after
	}
	return f, nil
}

// String returns the template.
func (f *Format) String() string { return f.source }

// HasVariable reports whether the result depends on the user.
func (f *Format) HasVariable() bool {
	return slices.ContainsFunc(f.pieces, func(p piece) bool { return p.variable != 0 })
}

// Append appends the template with user in it. But for what dst needs to grow
// and the modifiers E and D it does not allocate.
func (f *Format) Append(dst []byte, user string) []byte {
	for i := range f.pieces {
		dst = f.pieces[i].append(dst, user)
	}
	return dst
}

// parseVariable reads [-][0][offset.][-][0][width][modifiers]name.
func parseVariable(s string) (p piece, rest string, err error) {
	whole := s
	negative := false
	sign := func() int {
		if negative {
			return -1
		}
		return 1
	}
	take := func(c string) bool {
		var ok bool
		s, ok = strings.CutPrefix(s, c)
		return ok
	}
	number := func() (int, error) {
		n := len(s) - len(strings.TrimLeft(s, "0123456789"))
		digits := s[:n]
		s = s[n:]
		if digits == "" {
			return 0, nil
		}
		value, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			return 0, fmt.Errorf("%%%s: the number %s is too large", whole, digits)
		}
		return int(value), nil
	}
	negative = take("-")
	p.padded = take("0")
	if p.width, err = number(); err != nil {
		return p, "", err
	}
	if take(".") {
		p.offset = sign() * p.width
		p.padded = take("0")
		negative = take("-")
		if p.width, err = number(); err != nil {
			return p, "", err
		}
		p.width *= sign()
	}
	for s != "" && len(p.modifiers) < maxModifiers {
		if strings.IndexByte(letters, s[0]) < 0 {
			break
		}
		p.modifiers = append(p.modifiers, modifier(s[0]))
		s = s[1:]
	}
	if p.padded && p.width > maxPadding || p.offset > maxPadding {
		return p, "", fmt.Errorf("%%%s: a number above %d", whole, maxPadding)
	}
	switch {
	case s == "":
		return p, "", fmt.Errorf("nothing behind %%%s: write a variable (%%u, %%n or %%d), or %%%% for a percent sign", whole)
	case s[0] == '{':
		inner, after, ok := strings.Cut(s[1:], "}")
		if !ok {
			return p, "", fmt.Errorf("no } behind %%%s", whole)
		}
		err = p.parseLong(inner)
		return p, after, err
	case s[0] == '%':
		p.literal, p.modifiers = "%", nil
		return p, s[1:], nil
	case strings.IndexByte("und", s[0]) >= 0:
		p.variable = s[0]
		return p, s[1:], nil
	}
	return p, "", fmt.Errorf("unknown variable %%%s: use %%u (the user), %%n (what stands before the @) or %%d (the domain)", printable(s))
}

// printable is the first character of s.
func printable(s string) string {
	for _, r := range s {
		return strings.Trim(strconv.Quote(string(r)), `"`)
	}
	return ""
}

// parseLong reads what stands between the braces: a long name of 2.3, or the
// filters of 2.4.
func (p *piece) parseLong(inner string) error {
	parts := strings.Split(inner, "|")
	name := strings.TrimSpace(parts[0])
	variable, ok := map[string]byte{"user": 'u', "username": 'n', "domain": 'd'}[name]
	if !ok {
		return fmt.Errorf("unknown variable %%{%s}: use user, username or domain", name)
	}
	p.variable = variable
	for _, part := range parts[1:] {
		filter := strings.TrimSpace(part)
		m, ok := filters[filter]
		if !ok {
			return fmt.Errorf("unknown filter %q: use lower, upper, username, domain or reverse", filter)
		}
		p.modifiers = append(p.modifiers, m)
	}
	if len(p.modifiers) > maxModifiers {
		return errors.New("too many filters")
	}
	return nil
}

func (p *piece) append(dst []byte, user string) []byte {
	start := len(dst)
	switch p.variable {
	case 0:
		return append(dst, p.literal...)
	case 'u':
		dst = append(dst, user...)
	case 'n':
		dst = append(dst, localPart(user)...)
	case 'd':
		dst = append(dst, domain(user)...)
	}
	if p.modifiers == nil && p.offset == 0 && p.width == 0 {
		return dst
	}
	rest := *p
	for _, m := range p.modifiers {
		dst = rest.modify(dst, start, m)
	}
	return rest.cut(dst, start)
}

// cut applies offset and width to what stands behind start.
func (p *piece) cut(dst []byte, start int) []byte {
	length := len(dst) - start
	switch {
	case p.offset > 0:
		dst = slices.Delete(dst, start, start+min(p.offset, length))
	case length > -p.offset && p.offset < 0:
		dst = slices.Delete(dst, start, len(dst)+p.offset)
	}
	length = len(dst) - start
	switch {
	case p.width == 0:
	case p.padded:
		for ; length < p.width; length++ {
			dst = slices.Insert(dst, start, '0')
		}
	case p.width > 0:
		dst = dst[:start+min(p.width, length)]
	case length+p.width >= 0: // a negative width leaves so many off
		dst = dst[:len(dst)+p.width]
	}
	return dst
}

func localPart(user string) string {
	local, _, _ := strings.Cut(user, "@")
	return local
}

func domain(user string) string {
	_, domain, _ := strings.Cut(user, "@")
	return domain
}

var filters = map[string]modifier{
	"lower": 'L', "upper": 'U', "reverse": 'R', "username": beforeAt, "domain": behindAt,
}

// modify applies a modifier to what stands behind start. Those that hash use up
// the width and the offset.
func (p *piece) modify(text []byte, start int, m modifier) []byte {
	switch m {
	case 'L':
		for i, c := range text[start:] {
			text[start+i] = Lower(c)
		}
	case 'U':
		for i, c := range text[start:] {
			if 'a' <= c && c <= 'z' {
				text[start+i] = c - ('a' - 'A')
			}
		}
	case 'R':
		slices.Reverse(text[start:])
	case 'T':
		for len(text) > start && strings.IndexByte(" \t\n\v\f\r", text[len(text)-1]) >= 0 {
			text = text[:len(text)-1]
		}
	case 'E':
		for i := start; i < len(text); i++ {
			if strings.IndexByte(`"\'`, text[i]) >= 0 {
				text = slices.Insert(text, i, '\\')
				i++
			}
		}
	case 'D':
		return append(text[:start], strings.ReplaceAll(string(text[start:]), ".", ",dc=")...)
	case 'X': // of a decimal number, and 0 for all else
		n, err := strconv.ParseUint(string(text[start:]), 10, 64)
		if err != nil {
			n = 0
		}
		return strconv.AppendUint(text[:start], n, 16)
	case 'M':
		sum := md5.Sum(text[start:])
		return hex.AppendEncode(text[:start], sum[:])
	case 'H':
		h := elfHash(text[start:])
		if p.width != 0 {
			h %= uint32(p.width)
		}
		return p.appendHash(text[:start], h)
	case 'N':
		sum := md5.Sum(text[start:])
		h := binary.BigEndian.Uint64(sum[:])
		if p.width != 0 {
			h %= uint64(int64(p.width))
		}
		return p.appendHash(text[:start], uint32(h))
	case beforeAt:
		if at := slices.Index(text[start:], '@'); at >= 0 {
			return text[:start+at]
		}
	case behindAt:
		at := slices.Index(text[start:], '@')
		if at < 0 {
			return text[:start]
		}
		return slices.Delete(text, start, start+at+1)
	}
	return text
}

// appendHash writes a hash with at least as many digits as the offset says.
func (p *piece) appendHash(text []byte, h uint32) []byte {
	start := len(text)
	text = strconv.AppendUint(text, uint64(h), 16)
	for len(text)-start < p.offset {
		text = slices.Insert(text, start, '0')
	}
	p.offset, p.width = 0, 0
	return text
}

func elfHash(text []byte) uint32 {
	var h uint32
	for _, c := range text {
		h = h<<4 + uint32(c)
		if g := h & 0xf0000000; g != 0 {
			h ^= g >> 24
			h ^= g
		}
	}
	return h
}

// Lower returns an ASCII letter in lower case.
func Lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
