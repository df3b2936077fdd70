package doveadm

import (
	"bytes"
	"fmt"
)

// Status is the line that ends a reply.
type Status struct {
	OK   bool   // "+"
	Code string // of a failure: CodeNoUser, ..., a number, or empty
	Text string // what follows the code and a space; only REFERRAL uses it
}

// The codes of failures. A server may send others, and a plain "-" without
// code; all of them are relayed as they are.
const (
	CodeUsage     = "USAGE"       // exit status 64: bad arguments
	CodeDataErr   = "DATAERR"     // 65: not possible, e.g. the mailbox exists
	CodeNoUser    = "NOUSER"      // 67: no such user
	CodeNotFound  = "NOTFOUND"    // 68: no such mailbox, key or script
	CodeTempFail  = "TEMPFAIL"    // 75: try again later
	CodeProtocol  = "PROTOCOL"    // 76
	CodeNoPerm    = "NOPERM"      // 77: not allowed
	CodeReferral  = "REFERRAL"    // 1002, 2.4: the text names another host
	CodeChanged   = "CHANGED"     // 2, 2.4: changes during a dsync
	CodeExpired   = "EXPIRED"     // 1003, 2.4
	CodeUnknown   = "UNKNOWN"     // a code without name, e.g. over quota
	CodeNoReplica = "NOREPLICATE" // 1001, 2.3: dsync of a user with noreplicate
)

// Failure returns the status "-code".
func Failure(code string) Status { return Status{Code: code} }

// ParseStatus parses a status line without its line end. A line that begins
// neither with '+' nor with '-' is a *ProtocolError.
func ParseStatus(line []byte) (Status, error) {
	if len(line) == 0 {
		return Status{}, &ProtocolError{What: "empty status line"}
	}
	switch line[0] {
	case '+':
		return Status{OK: true, Text: string(line[1:])}, nil
	case '-':
		code, text, _ := bytes.Cut(line[1:], []byte{' '})
		return Status{Code: internCode(code), Text: string(text)}, nil
	}
	return Status{}, &ProtocolError{What: fmt.Sprintf("expected a status, received %.64q", line)}
}

// internCode returns the constants without copying.
func internCode(code []byte) string {
	for _, c := range [...]string{CodeNoUser, CodeNotFound, CodeTempFail, CodeUsage, CodeDataErr} {
		if string(code) == c {
			return c
		}
	}
	return string(code)
}

// AppendStatus appends the status line, LF included. An LF in the code or text
// becomes a space.
func AppendStatus(dst []byte, s Status) []byte {
	start := len(dst)
	if s.OK {
		dst = append(dst, '+')
	} else {
		dst = append(dst, '-')
		dst = append(dst, s.Code...)
		if s.Text != "" {
			dst = append(dst, ' ')
		}
	}
	dst = append(dst, s.Text...)
	for i := start; i < len(dst); i++ {
		if dst[i] == '\n' {
			dst[i] = ' '
		}
	}
	return append(dst, '\n')
}

// String returns the status line without its line end.
func (s Status) String() string {
	b := AppendStatus(nil, s)
	return string(b[:len(b)-1])
}

// StatusError is a failure status as an error: the peer's answer, not a
// failure of the connection.
type StatusError struct {
	Status Status
}

func (e *StatusError) Error() string {
	if e.Status.Code == "" {
		return "server answered -"
	}
	return "server answered " + e.Status.String()
}

// ProtocolError is something a peer may not send.
type ProtocolError struct {
	What string
}

func (e *ProtocolError) Error() string { return "protocol error: " + e.What }
