package doveadm

import "bytes"

// maxStatusLine is the longest status line, without its LF, and the longest
// line of a server's handshake that is accepted; Dovecot's clients take 32 KiB.
const maxStatusLine = 32 << 10

// ReplyScanner finds the parts of one reply in the bytes of channel 0:
//
//	reply = *( field TAB ) LF status LF
//
// The zero value is ready for a reply.
type ReplyScanner struct {
	fields   int64
	midField bool
	midPair  bool // the output so far ends with the first byte of an escape pair
	inStatus bool
	done     bool
	line     []byte // of a status that arrives in pieces
	status   Status
}

// Scan reads the next bytes of channel 0. It returns how many of them are
// output and how many belong to the reply; the bytes between are (a part of)
// the LF, the status and its LF. consumed is less than len(p) only if the
// reply is complete and something follows it. After an error, which is a
// *ProtocolError, the scanner is of no more use.
func (s *ReplyScanner) Scan(p []byte) (output, consumed int, err error) {
	if !s.inStatus {
		output = bytes.IndexByte(p, '\n')
		end := output < 0
		if end {
			output = len(p)
		}
		if output > 0 {
			s.fields += int64(bytes.Count(p[:output], []byte{'\t'}))
			s.midField = p[output-1] != '\t'
			s.scanPair(p[:output])
		}
		if end {
			return output, output, nil
		}
		s.inStatus = true
		consumed = output + 1
	}
	if s.done {
		return output, consumed, nil
	}
	rest := p[consumed:]
	i := bytes.IndexByte(rest, '\n')
	n := i
	if i < 0 {
		n = len(rest)
	}
	if len(s.line)+n > maxStatusLine {
		return output, consumed, &ProtocolError{What: "status line is too long"}
	}
	if i < 0 {
		s.line = append(s.line, rest...)
		return output, len(p), nil
	}
	line := rest[:i]
	if len(s.line) > 0 {
		s.line = append(s.line, line...)
		line = s.line
	}
	s.status, err = ParseStatus(bytes.TrimSuffix(line, []byte{'\r'}))
	if err != nil {
		return output, consumed, err
	}
	s.done = true
	return output, consumed + i + 1, nil
}

// scanPair notes whether output ends inside an escape pair: with an odd number
// of escape bytes.
func (s *ReplyScanner) scanPair(output []byte) {
	n := len(output)
	for n > 0 && output[n-1] == escapeByte {
		n--
	}
	odd := (len(output)-n)%2 == 1
	if n > 0 {
		s.midPair = odd
	} else {
		s.midPair = s.midPair != odd
	}
}

// AppendPadding appends what makes incomplete output whole, so that a failure
// status may follow: it ends the field and pads the row to its number of
// columns with empty fields. The doveadm command crashes on an incomplete row.
func (s *ReplyScanner) AppendPadding(dst []byte, columns int) []byte {
	fields := s.fields
	if s.midPair {
		dst = append(dst, '1')
	}
	if s.midField {
		dst = append(dst, '\t')
		fields++
	}
	if columns > 0 {
		for ; fields%int64(columns) != 0; fields++ {
			dst = append(dst, '\t')
		}
	}
	return dst
}

// Done reports whether the status has been read.
func (s *ReplyScanner) Done() bool { return s.done }

// Status is the status of a reply that is Done.
func (s *ReplyScanner) Status() Status { return s.status }

// OutputEnded reports whether the LF behind the output has been read.
func (s *ReplyScanner) OutputEnded() bool { return s.inStatus }

// Fields returns the number of complete fields so far.
func (s *ReplyScanner) Fields() int64 { return s.fields }

// MidField reports whether the output stops inside a field. For the command
// "user", which prints JSON without a TAB, it does so at the end, too.
func (s *ReplyScanner) MidField() bool { return s.midField }
