package doveadm

import (
	"bufio"
	"bytes"
	"io"
)

// Input is the dot-ended input that follows the request line of a command such
// as "save", in its encoded form: as in SMTP, a line that begins with a dot
// has another one in front, and a line of a single dot ends the input. Lines
// may be of any length.
//
// It must be read to its end before the next ReadCommand, whatever becomes of
// the command: what is left would be taken for commands.
type Input struct {
	conn  *ServerConn
	line  inputLine
	ended bool
}

// inputLine is how much of the current line is known to be the final one.
type inputLine int

const (
	lineStart inputLine = iota
	lineDot             // "."
	lineDotCR           // ".\r"
	lineOther
)

// ReadInput returns the input of the command that ReadCommand has just
// returned, if CommandInfo.Input says that it has one.
func (s *ServerConn) ReadInput() *Input { return &Input{conn: s} }

// Read returns the next bytes as they were sent, the final line included, and
// io.EOF behind it. If the client stops before the final line, the error is
// io.ErrUnexpectedEOF.
func (i *Input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := i.fill(); err != nil {
		return 0, err
	}
	n := copy(p, i.conn.in.buffered())
	n = i.scan(p[:n])
	i.conn.in.discard(n)
	return n, nil
}

// Next is Read without a copy: it returns what has arrived, at least one byte,
// which is valid until the next call.
func (i *Input) Next() ([]byte, error) {
	if err := i.fill(); err != nil {
		return nil, err
	}
	p := i.conn.in.buffered()
	p = p[:i.scan(p)]
	i.conn.in.discard(len(p))
	return p, nil
}

// fill has something of the input buffered, or returns why there is nothing
// more.
func (i *Input) fill() error {
	if i.ended {
		return io.EOF
	}
	b := &i.conn.in
	if b.r < b.w {
		return nil
	}
	err := b.fill(0)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// scan returns how many bytes of p belong to the input. Dovecot's decoder
// (lib-mail/istream-dot.c) takes LF and CRLF for line ends, and nothing else.
func (i *Input) scan(p []byte) int {
	for n := 0; n < len(p); {
		c := p[n]
		switch {
		case i.line == lineStart && c == '.':
			i.line = lineDot
		case i.line == lineDot && c == '\r':
			i.line = lineDotCR
		case (i.line == lineDot || i.line == lineDotCR) && c == '\n':
			i.ended = true
			return n + 1
		case c == '\n':
			i.line = lineStart
		default:
			i.line = lineOther
			end := bytes.IndexByte(p[n:], '\n')
			if end < 0 {
				return len(p)
			}
			n += end
			continue
		}
		n++
	}
	return len(p)
}

// Tunnel returns the bytes that the client sends from now on, beginning with
// those that have been read ahead. It is for "dsync-server", whose connection
// carries another protocol once its command has succeeded.
func (s *ServerConn) Tunnel() io.Reader { return tunnelReader{s} }

type tunnelReader struct{ conn *ServerConn }

func (t tunnelReader) Read(p []byte) (int, error) {
	b := &t.conn.in
	if b.r == b.w {
		return t.conn.nc.Read(p)
	}
	n := copy(p, b.buffered())
	b.discard(n)
	return n, nil
}

// InputWriter encodes what is written to it as the input of a command. Close
// ends the input; it does not close the writer beneath. Line ends become CRLF,
// as Dovecot's own clients send them.
type InputWriter struct {
	w     *bufio.Writer
	start bool // of a line
	last  byte
}

// NewInputWriter returns an InputWriter on w, usually a ClientConn's NetConn
// behind Send. The server sends its status when it has read everything, or
// earlier if it refuses the command; then it takes the rest for commands, so
// the connection must be closed.
func NewInputWriter(w io.Writer) *InputWriter {
	return &InputWriter{w: bufio.NewWriterSize(w, 32<<10), start: true}
}

// Write encodes p.
func (i *InputWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if i.start && p[n] == '.' {
			i.w.WriteByte('.')
		}
		i.start = false
		end := bytes.IndexByte(p[n:], '\n')
		if end < 0 {
			i.last = p[len(p)-1]
			_, err := i.w.Write(p[n:])
			return len(p), err
		}
		line := p[n : n+end]
		if end > 0 {
			i.last = line[end-1]
		}
		i.w.Write(line)
		if i.last != '\r' {
			i.w.WriteByte('\r')
		}
		if err := i.w.WriteByte('\n'); err != nil {
			return n, err
		}
		i.start, i.last = true, '\n'
		n += end + 1
	}
	return len(p), nil
}

// Close writes what ends the input: always a line end and the dot line, of
// which the server drops exactly one line end, so that data with and without
// a final one survives.
func (i *InputWriter) Close() error {
	i.w.WriteString("\r\n.\r\n")
	return i.w.Flush()
}
