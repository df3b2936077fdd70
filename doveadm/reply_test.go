package doveadm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// connect logs in at a scripted server in memory.
func connect(t *testing.T, o doveadm.ClientOptions, minor doveadm.Minor, handler func(*doveadmtest.Conn, *doveadm.Command)) *doveadm.ClientConn {
	t.Helper()
	srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Minor: minor, Handler: handler})
	nc, err := srv.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := doveadm.NewClientConn(nc, o)
	if err != nil {
		nc.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func do(t *testing.T, c *doveadm.ClientConn, user string) *doveadm.Reply {
	t.Helper()
	reply, err := c.Do(t.Context(), &doveadm.Command{User: user, Name: "quota get"})
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// readText reads fields with Text until the first error.
func readText(reply *doveadm.Reply) (fields []string) {
	for reply.Next() {
		text, err := reply.Text()
		fields = append(fields, text)
		if err != nil {
			fields = append(fields, err.Error())
			break
		}
	}
	return fields
}

// packet is one packet, given as its channel and data.
func packet(s string) []byte { return doveadm.AppendPacket(nil, s[0], []byte(s[1:])) }

func TestReply(t *testing.T) {
	large := strings.Repeat("0123456789abcdef", 40_000)
	const cut = "unexpected EOF"
	tests := map[string]struct {
		packets []string
		close   bool
		want    []string // fields, and the error inside one
		logs    []string
		status  string
		err     string
	}{
		"no output":           {packets: []string{"\x00\n+\n"}, status: "+"},
		"rows":                {packets: []string{"\x00a\tb\t", "\x00c\td\t", "\x00\n+\n"}, want: []string{"a", "b", "c", "d"}, status: "+"},
		"all in one":          {packets: []string{"\x00a\tb\t\n+\n"}, want: []string{"a", "b"}, status: "+"},
		"empty fields":        {packets: []string{"\x00\t\ta\t\t\n+\n"}, want: []string{"", "", "a", ""}, status: "+"},
		"escapes":             {packets: []string{"\x00a\x01tb\x01n\x011\x010\t\x01r\t\n+\n"}, want: []string{"a\tb\n\x01\x00", "\r"}, status: "+"},
		"cut in a pair":       {packets: []string{"\x00a\x01", "\x00tb\x01", "\x00nc\t\n+\n"}, want: []string{"a\tb\nc"}, status: "+"},
		"escape before TAB":   {packets: []string{"\x00a\x01\ttext\x01", "\x00\tnext\t\n+\n"}, want: []string{"a", "text", "next"}, status: "+"},
		"a large field":       {packets: []string{"\x001\t" + large + "\t\n+\n"}, want: []string{"1", large}, status: "+"},
		"output of user":      {packets: []string{"\x00{\"alice\":{}}\n+\n"}, want: []string{`{"alice":{}}`}, status: "+"},
		"failure":             {packets: []string{"\x00\n-NOUSER\n"}, status: "-NOUSER", err: "server answered -NOUSER"},
		"failure with output": {packets: []string{"\x00a\t\n-TEMPFAIL\n"}, want: []string{"a"}, status: "-TEMPFAIL", err: "server answered -TEMPFAIL"},
		"failure twice":       {packets: []string{"\x00\n-NOUSER\n\n-\n"}, status: "-NOUSER", err: "server answered -NOUSER"},
		"logs":                {packets: []string{"L\x04one\n\x03tw", "\x00a", "Lo\n", "\x00b\t\n+\n"}, want: []string{"ab"}, logs: []string{"error one", "warning two"}, status: "+"},
		"unknown channel":     {packets: []string{"\x00a", "Xyz\t\n+\n", "\x00b\t\n+\n"}, want: []string{"ab"}, status: "+"},
		"output behind":       {packets: []string{"\x00a\t\n+\n2\t"}, want: []string{"a"}, status: "+", err: "protocol error: data behind the status line"},
		"no status":           {packets: []string{"\x00a\tb\t\nOK\n"}, want: []string{"a", "b"}, status: "-", err: `protocol error: expected a status, received "OK"`},
		"closed":              {close: true, status: "-", err: cut},
		"closed in a field":   {packets: []string{"\x00a\tbc"}, close: true, want: []string{"a", "bc", cut}, status: "-", err: cut},
		"closed in a row":     {packets: []string{"\x00a\tb\t"}, close: true, want: []string{"a", "b"}, status: "-", err: cut},
		"closed in a status":  {packets: []string{"\x00a\t\n"}, close: true, want: []string{"a"}, status: "-", err: cut},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			for _, drip := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					var logs []string
					o := doveadm.ClientOptions{Minor: doveadm.MaxMinor, OnLog: func(level doveadm.LogLevel, text string) {
						logs = append(logs, level.String()+" "+text)
					}}
					c := connect(t, o, doveadm.MaxMinor, func(c *doveadmtest.Conn, _ *doveadm.Command) {
						for _, p := range tc.packets {
							if drip && len(p) < 1000 {
								c.Drip(packet(p), time.Second)
							} else {
								c.Raw(packet(p))
							}
						}
						if tc.close {
							c.Close()
						}
					})
					reply := do(t, c, "alice")
					if diff := cmp.Diff(tc.want, readText(reply)); diff != "" {
						t.Errorf("fields (-want +got):\n%.2000s", diff)
					}
					for range 2 { // also after its end
						if reply.Next() {
							t.Error("Next after the end")
						}
						if n, err := reply.Read(make([]byte, 10)); n != 0 || err == nil {
							t.Errorf("Read after the end: %d, %v", n, err)
						}
						err := reply.Err()
						if err == nil && tc.err != "" || err != nil && err.Error() != tc.err {
							t.Errorf("Err %v, want %q", err, tc.err)
						}
						if again := reply.Close(); again != err && again.Error() != err.Error() {
							t.Errorf("Close %v, Err %v", again, err)
						}
					}
					if got := reply.Status().String(); got != tc.status {
						t.Errorf("status %q, want %q", got, tc.status)
					}
					if diff := cmp.Diff(tc.logs, logs); diff != "" {
						t.Errorf("log lines (-want +got):\n%s", diff)
					}
				})
			}
		})
	}
}

func TestReplyCutInsideAPacket(t *testing.T) {
	c := connect(t, doveadm.ClientOptions{Minor: 2}, 2, func(c *doveadmtest.Conn, _ *doveadm.Command) {
		whole := packet("\x00a\tbcdef\t\n+\n")
		c.Raw(whole[:len(whole)-7])
		c.Close()
	})
	reply := do(t, c, "alice")
	if diff := cmp.Diff([]string{"a", "bc", io.ErrUnexpectedEOF.Error()}, readText(reply)); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if err := reply.Err(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestReplyFieldAsReader(t *testing.T) {
	want := strings.Repeat("A line\r\nwith\x01and\tTAB\x00", 2000)
	for minor := doveadm.MinorBase; minor <= doveadm.MaxMinor; minor++ {
		c := connect(t, doveadm.ClientOptions{Minor: minor}, minor, func(c *doveadmtest.Conn, _ *doveadm.Command) {
			c.Fields("1", want, "3")
			c.Status("+")
		})
		for _, size := range []int{1, 2, 7, 511, 1 << 20} {
			reply := do(t, c, "alice")
			for range 2 { // the first field is skipped unread
				if !reply.Next() {
					t.Fatal(reply.Err())
				}
			}
			var got bytes.Buffer
			for {
				p := make([]byte, size)
				n, err := reply.Read(p)
				got.Write(p[:n])
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got.String() != want {
				t.Errorf("minor %d, %d bytes a read: got %d bytes, want %d", minor, size, got.Len(), len(want))
			}
			if diff := cmp.Diff([]string{"3"}, readText(reply)); diff != "" {
				t.Errorf("rest (-want +got):\n%s", diff)
			}
		}
		// A field that is skipped in its middle.
		reply := do(t, c, "alice")
		reply.Next()
		reply.Next()
		if _, err := io.ReadFull(reply, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"3"}, readText(reply)); diff != "" {
			t.Errorf("rest (-want +got):\n%s", diff)
		}
		// As the standard library wants readers to be.
		reply = do(t, c, "alice")
		reply.Next()
		reply.Next()
		if err := iotest.TestReader(reply, []byte(want)); err != nil {
			t.Error(err)
		}
		if err := reply.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestReplyWriteToReportsTheWriter(t *testing.T) {
	c := connect(t, doveadm.ClientOptions{Minor: 3}, 3, func(c *doveadmtest.Conn, _ *doveadm.Command) {
		c.Fields("abcdef", "next")
		c.Status("+")
	})
	reply := do(t, c, "alice")
	reply.Next()
	n, err := reply.WriteTo(&shortWriter{room: 2})
	if n != 2 || !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("wrote %d, %v", n, err)
	}
	if text, err := reply.Text(); text != "cdef" || err != nil {
		t.Errorf("the rest is %q, %v", text, err)
	}
	if diff := cmp.Diff([]string{"next"}, readText(reply)); diff != "" {
		t.Errorf("rest (-want +got):\n%s", diff)
	}
}

// shortWriter is full after a number of bytes.
type shortWriter struct{ room int }

func (w *shortWriter) Write(p []byte) (int, error) {
	n := min(w.room, len(p))
	w.room -= n
	if n < len(p) {
		return n, io.ErrShortBuffer
	}
	return n, nil
}

func TestSeveralCommands(t *testing.T) {
	c := connect(t, doveadm.ClientOptions{Minor: 3}, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		c.Fields(cmd.User, "rest")
		c.Status(map[string]string{"alice": "+", "bob": "-NOTFOUND"}[cmd.User])
	})
	for _, user := range []string{"alice", "bob", "alice"} {
		reply := do(t, c, user)
		reply.Next()
		if text, err := reply.Text(); text != user || err != nil {
			t.Errorf("%s: got %q, %v", user, text, err)
		}
		if _, err := c.Do(t.Context(), &doveadm.Command{Name: "who"}); err == nil {
			t.Error("a second command before the end of the first")
		}
		if err := reply.Close(); (err != nil) != (user == "bob") {
			t.Errorf("%s: %v", user, err)
		}
	}
	if err := c.NetConn().Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := c.Do(t.Context(), &doveadm.Command{Name: "who"}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("on a closed connection: %v", err)
		}
	}
}

func TestConnectionIsOfNoMoreUse(t *testing.T) {
	tests := map[string]string{
		"output behind success": "\x00\n+\n2\t",
		"second status":         "\x00\n-NOUSER\n\n-\n",
		"no status":             "\x00\nOK\n",
	}
	for name, reply := range tests {
		t.Run(name, func(t *testing.T) {
			c := connect(t, doveadm.ClientOptions{Minor: 3}, 3, func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Raw(packet(reply)) })
			if err := do(t, c, "alice").Close(); err == nil {
				t.Error("a success")
			}
			_, err := c.Do(t.Context(), &doveadm.Command{Name: "who"})
			var perr *doveadm.ProtocolError
			if !errors.As(err, &perr) {
				t.Errorf("got %v, want a ProtocolError", err)
			}
		})
	}
}

func TestRefusedCommandCostsNothing(t *testing.T) {
	c := connect(t, doveadm.ClientOptions{Minor: 3}, 3, nil)
	canceled, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no time left")
	cancel(cause)
	if _, err := c.Do(canceled, &doveadm.Command{Name: "who"}); err != cause {
		t.Errorf("got %v, want %v", err, cause)
	}
	if _, err := c.Do(t.Context(), &doveadm.Command{Name: "who", User: "\x00"}); err != doveadm.ErrNUL {
		t.Errorf("got %v, want %v", err, doveadm.ErrNUL)
	}
	if _, err := c.Do(t.Context(), &doveadm.Command{Name: strings.Repeat("x", doveadm.MaxLine)}); err != doveadm.ErrLineTooLong {
		t.Errorf("got %v, want %v", err, doveadm.ErrLineTooLong)
	}
	if err := do(t, c, "alice").Close(); err != nil {
		t.Errorf("then: %v", err)
	}
}

func TestLogLineOverTheEndOfAReply(t *testing.T) {
	var logs []string
	o := doveadm.ClientOptions{Minor: 3, OnLog: func(level doveadm.LogLevel, text string) {
		logs = append(logs, level.String()+" "+text)
	}}
	c := connect(t, o, 3, func(c *doveadmtest.Conn, cmd *doveadm.Command) {
		if cmd.User == "alice" {
			c.Raw(append(append(packet("L\x04first ha"), packet("\x00\n+\n")...), packet("Llf\n\x02behind\n\x03thi")...))
			return
		}
		c.Raw(append(packet("Lrd\n"), packet("\x00\n+\n")...))
	})
	if err := do(t, c, "alice").Close(); err != nil {
		t.Fatal(err)
	}
	// What came with the status is not kept for the next command.
	if diff := cmp.Diff([]string{"error first half", "info behind"}, logs); diff != "" {
		t.Errorf("log lines (-want +got):\n%s", diff)
	}
	if err := do(t, c, "bob").Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"error first half", "info behind", "warning third"}, logs); diff != "" {
		t.Errorf("log lines (-want +got):\n%s", diff)
	}
}

func TestContextEndsInTheMiddle(t *testing.T) {
	cause := errors.New("no time left")
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, doveadm.ClientOptions{Minor: 3}, 3, func(c *doveadmtest.Conn, _ *doveadm.Command) {
			c.Output([]byte("a\tbc"))
			c.Hang()
		})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, cause)
		defer cancel()
		start := time.Now()
		reply, err := c.Do(ctx, &doveadm.Command{Name: "fetch"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"a", "bc", cause.Error()}, readText(reply)); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
		if err := reply.Close(); err != cause || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v, want %v after a minute", err, time.Since(start), cause)
		}
		if _, err := c.Do(context.Background(), &doveadm.Command{Name: "who"}); !errors.Is(err, cause) {
			t.Errorf("the next command: %v", err)
		}
	})
}

func TestContextEndsBehindTheReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, doveadm.ClientOptions{Minor: 3}, 3, nil)
		ctx, cancel := context.WithCancel(t.Context())
		reply, err := c.Do(ctx, &doveadm.Command{Name: "who"})
		if err != nil {
			t.Fatal(err)
		}
		if err := reply.Close(); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if reply.Err() != nil || !reply.Status().OK {
			t.Errorf("became %v, %v", reply.Status(), reply.Err())
		}
		if err := do(t, c, "alice").Close(); err != nil {
			t.Errorf("the next command: %v", err)
		}
	})
}

func TestContextEndsWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := doveadmtest.Pipe()
		defer server.Close()
		go func() {
			// Logs the client in and never reads again.
			if err := doveadm.NewServerConn(server, 0).Handshake(nil); err != nil {
				t.Error(err)
			}
		}()
		c, err := doveadm.NewClientConn(client, doveadm.ClientOptions{Minor: 3})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Do(ctx, &doveadm.Command{Name: "fetch", Args: []string{strings.Repeat("x", 500_000)}})
		if err != context.DeadlineExceeded {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
