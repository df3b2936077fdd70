package authmaster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// The protocol is the one of Dovecot's src/auth/auth-master-connection.c and
// src/lib-auth-client/auth-master.c (src/lib-auth in 2.3): lines of fields
// between TABs, escaped as in the doveadm protocol.
const (
	majorVersion = 1
	minorVersion = 2
	// maxRequest is what the server reads of a line: it closes the connection of
	// a client that sends more.
	maxRequest = 8192 - 1
	// maxReply bounds what is read of a line. Passdbs give a few fields.
	maxReply = 64 << 10
)

// errProtocol is what a server says that no auth server of Dovecot would.
var errProtocol = errors.New("not the auth-master protocol")

// Field is a field of a reply; those without a value are there or not.
type Field struct{ Key, Value string }

// Reply is what the passdb says of a user.
type Reply struct {
	Fields []Field
}

// Get returns the value of the last field of a name, which is the one that
// counts for Dovecot.
func (r Reply) Get(key string) (value string, ok bool) {
	for _, f := range r.Fields {
		if f.Key == key {
			value, ok = f.Value, true
		}
	}
	return value, ok
}

// readLine returns the next line without its end. It is valid until the next
// call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w: a line of more than %d bytes", errProtocol, r.Size())
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}

// handshake reads the greeting of a server to its end.
func handshake(r *bufio.Reader) error {
	versioned := false
	for range 100 { // a login socket greets with a line for each mechanism
		line, err := readLine(r)
		if err != nil {
			return err
		}
		command, rest, _ := bytes.Cut(line, []byte("\t"))
		switch string(command) {
		case "VERSION":
			major, _, _ := bytes.Cut(rest, []byte("\t"))
			if string(major) != strconv.Itoa(majorVersion) {
				return fmt.Errorf("%w: version %.20q, and %d is needed", errProtocol, major, majorVersion)
			}
			versioned = true
		case "SPID":
			if !versioned {
				return fmt.Errorf("%w: no VERSION before SPID", errProtocol)
			}
			return nil
		case "MECH", "CUID", "COOKIE", "DONE":
			return fmt.Errorf("%w: this is a socket for logins; use auth-userdb, auth-master or another unix_listener or inet_listener of Dovecot's service auth whose type is userdb or master", errProtocol)
		default:
			return fmt.Errorf("%w: a greeting that begins with %.40q", errProtocol, line)
		}
	}
	return fmt.Errorf("%w: a greeting without an end", errProtocol)
}

// result is what a server answers to one request.
type result struct {
	reply Reply
	found bool
	err   error
}

// parseReply takes a line apart that answers a PASS request.
func parseReply(line []byte) (id uint32, r result, err error) {
	fields := bytes.Split(line, []byte("\t"))
	if len(fields) < 2 {
		return 0, r, fmt.Errorf("%w: a reply without a number: %.40q", errProtocol, line)
	}
	n, err := strconv.ParseUint(string(fields[1]), 10, 32)
	if err != nil {
		return 0, r, fmt.Errorf("%w: a reply without a number: %.40q", errProtocol, line)
	}
	id = uint32(n)
	switch command := string(fields[0]); command {
	case "NOTFOUND":
	case "FAIL":
		r.err = errors.New("the passdb failed: see the log of Dovecot's auth process")
		for _, f := range fields[2:] {
			if reason, ok := strings.CutPrefix(string(doveadm.Unescape(f)), "reason="); ok {
				r.err = fmt.Errorf("the passdb failed: %q", reason)
			}
		}
	case "PASS":
		r.found = true
		for _, f := range fields[2:] {
			key, value, _ := strings.Cut(string(doveadm.Unescape(f)), "=")
			if key != "" {
				r.reply.Fields = append(r.reply.Fields, Field{key, value})
			}
		}
	default:
		return id, r, fmt.Errorf("%w: a reply that begins with %.40q", errProtocol, command)
	}
	return id, r, nil
}

// appendRequest appends a PASS request. It names the protocol once for 2.4 and
// once, as a service, for 2.3; each ignores the other's.
func appendRequest(dst []byte, id uint32, user string) ([]byte, error) {
	start := len(dst)
	dst = append(dst, "PASS\t"...)
	dst = strconv.AppendUint(dst, uint64(id), 10)
	dst = append(dst, '\t')
	dst = doveadm.AppendEscaped(dst, user)
	dst = append(dst, "\tservice=doveadm\tprotocol=doveadm\n"...)
	if len(dst)-start > maxRequest {
		return dst[:start], fmt.Errorf("the user name has %d bytes: Dovecot's auth process takes fewer", len(user))
	}
	return dst, nil
}
