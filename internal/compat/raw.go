package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// commandTimeout is far more than a command takes: one that gets no answer is
// a difference that is reported.
const commandTimeout = 60 * time.Second

// rawClient speaks one version of the protocol. It keeps its connection as far
// as that is safe with a Dovecot server, so that it does what the proxy does
// with those of its pool.
type rawClient struct {
	addr    string
	minor   doveadm.Minor
	proxied bool
	conn    *doveadm.ClientConn
	options bool // OPTION was sent
}

func (r *rawClient) close() {
	if r.conn != nil {
		r.conn.Close()
		r.conn = nil
	}
}

// run runs one case.
func (r *rawClient) run(ctx context.Context, c *command, user string) (observation, error) {
	info, _, _ := doveadm.LookupWords(c.name, c.args)
	global := c.line != "" || info.Kind == doveadm.GlobalCommand
	if global && !r.proxied {
		// What such a command leaves behind on a used connection would be
		// taken for the reply of the next one.
		r.close()
	}
	if r.conn == nil {
		conn, err := doveadm.Dial(ctx, r.addr, doveadm.ClientOptions{Password: password, Minor: r.minor})
		if err != nil {
			return observation{}, err
		}
		r.conn, r.options = conn, false
	}
	minor := min(r.minor, r.conn.ServerMinor())
	var request []byte
	if minor >= doveadm.MinorExtraFields && !r.options {
		r.options = true
		request = doveadm.AppendCommand(request, &doveadm.Command{Name: doveadm.CommandOption, Args: []string{doveadm.OptionLogPassthrough}}, minor)
	}
	if c.line != "" {
		request = append(request, c.line...)
	} else {
		request = doveadm.AppendCommand(request, &doveadm.Command{
			Debug: c.debug, Verbose: c.verbose, Extra: c.extra, User: user, Name: c.name, Args: c.args,
		}, minor)
	}
	if c.hasInput {
		request = appendDotted(request, c.input)
	}
	nc := r.conn.NetConn()
	nc.SetDeadline(time.Now().Add(commandTimeout))
	if _, err := nc.Write(request); err != nil {
		return observation{}, fmt.Errorf("send: %w", err)
	}
	o, stray, err := r.read()
	if err != nil {
		return o, err
	}
	tunnel := info.Tunnel && o.Status == "+"
	if tunnel {
		r.close() // what follows the status is the tunnel
		return o, nil
	}
	if len(stray) > 0 {
		o.Status += fmt.Sprintf(" and behind it %q", stray)
	}
	reusable := o.Status == "+" || o.Status == "-NOUSER" || o.Status == "-NOTFOUND"
	// A server of 2.3 has the user name in the log prefix of what follows, which
	// a line end in it would break; one of 2.4 logs more after -v and -D.
	odd := c.verbose || c.debug || strings.ContainsFunc(user, unicode.IsControl)
	if o.Status == "" || !r.proxied && (global || !reusable || odd) {
		r.close()
	}
	return o, nil
}

// read reads one reply, or what there is of it, and what has arrived behind it.
func (r *rawClient) read() (o observation, stray []byte, err error) {
	var scan doveadm.ReplyScanner
	var output, log bytes.Buffer
	defer func() {
		o.Output, o.Logs = output.String(), logLines(log.Bytes())
		if scan.Done() {
			o.Status = scan.Status().String()
		}
	}()
	for !scan.Done() || r.conn.ChunkReady() {
		chunk, err := r.conn.ReadChunk()
		switch {
		case closed(err):
			return o, stray, nil
		case err != nil:
			return o, stray, err
		}
		switch {
		case chunk.Channel == doveadm.ChannelLog:
			log.Write(chunk.Data)
		case chunk.Channel != doveadm.ChannelReply:
			return o, stray, fmt.Errorf("data on channel %q", chunk.Channel)
		case scan.Done():
			stray = append(stray, chunk.Data...)
		default:
			n, consumed, err := scan.Scan(chunk.Data)
			output.Write(chunk.Data[:n])
			if err != nil {
				return o, stray, err
			}
			stray = append(stray, chunk.Data[consumed:]...)
		}
	}
	return o, stray, nil
}

// closed reports whether err is the end of a connection. A server that dies
// with unread input ends it with a reset.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// logLines returns the lines of the log channel, each with its level in words.
func logLines(data []byte) (lines []string) {
	for line := range bytes.Lines(data) {
		text, ended := bytes.CutSuffix(line, []byte("\n"))
		s := fmt.Sprintf("%s: %s", doveadm.LogLevel(text[0]), text[1:])
		if !ended {
			s += " (without line end)"
		}
		lines = append(lines, s)
	}
	return lines
}

// appendDotted appends input in dot format, as Dovecot's clients write it: line
// ends become CRLF, and the end always begins with one.
func appendDotted(dst, input []byte) []byte {
	begin := true
	for i, b := range input {
		switch {
		case b == '.' && begin:
			dst = append(dst, '.')
		case b == '\n' && (i == 0 || input[i-1] != '\r'):
			dst = append(dst, '\r')
		}
		begin = b == '\n'
		dst = append(dst, b)
	}
	return append(dst, "\r\n.\r\n"...)
}
