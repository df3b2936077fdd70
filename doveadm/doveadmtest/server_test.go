package doveadmtest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func login(t *testing.T, srv *doveadmtest.Server, o doveadm.ClientOptions) (*doveadm.ClientConn, error) {
	t.Helper()
	nc, err := srv.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return doveadm.NewClientConn(nc, o)
}

func quota(c *doveadmtest.Conn, cmd *doveadm.Command) {
	c.Log(doveadm.LogInfo, "for "+cmd.User)
	c.Fields("User quota", "a\tb\x03\xfe\x03", "")
	c.Status("-NOTFOUND")
}

func TestEveryVersion(t *testing.T) {
	for server := doveadm.MinorBase; server <= doveadm.MaxMinor; server++ {
		for client := doveadm.MinorBase; client <= doveadm.MaxMinor; client++ {
			for _, greetFirst := range []bool{false, true} {
				for _, password := range []string{"", "secret"} {
					if greetFirst && password == "" && server > 0 {
						continue // clients cannot read that, Dovecot's neither
					}
					name := fmt.Sprintf("server %d client %d greets first %v password %q", server, client, greetFirst, password)
					t.Run(name, func(t *testing.T) {
						o := doveadmtest.Options{Minor: server, GreetFirst: greetFirst, Password: password, Handler: quota}
						for _, srv := range []*doveadmtest.Server{doveadmtest.NewServer(t, o), doveadmtest.NewPipeServer(t, o)} {
							exchange(t, srv, client, min(client, server) >= doveadm.MinorMultiplex)
						}
					})
				}
			}
		}
	}
}

func exchange(t *testing.T, srv *doveadmtest.Server, client doveadm.Minor, logs bool) {
	t.Helper()
	var got []string
	c, err := login(t, srv, doveadm.ClientOptions{Password: "secret", Minor: client, OnLog: func(l doveadm.LogLevel, text string) {
		got = append(got, l.String()+" "+text)
	}})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := c.Do(t.Context(), &doveadm.Command{User: "alice", Name: "quota get"})
	if err != nil {
		t.Fatal(err)
	}
	for reply.Next() {
		text, err := reply.Text()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text)
	}
	got = append(got, reply.Status().String())
	want := []string{"User quota", "a\tb\x03\xfe\x03", "", "-NOTFOUND"}
	if logs {
		want = append([]string{"info for alice"}, want...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]doveadm.Command{{User: "alice", Name: "quota get"}}, srv.Commands()); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if srv.Accepted() != 1 || srv.MaxOpen() != 1 {
		t.Errorf("accepted %d, at most %d at once, want 1", srv.Accepted(), srv.MaxOpen())
	}
}

// The bytes that a client of each version gets behind the login.
func TestStreamIsForWhoKnowsIt(t *testing.T) {
	packets := "L\x00\x00\x00\x07\x02x\x03\xfe\x04\x03\n\x00\x00\x00\x00\x03\x03\xfe\x03\x00\x00\x00\x00\x03\n+\n"
	stream := "\xff\xff\xff\xff\xff\x00\x02\x03\xfe\x03\xfe\x00L\x02x\x03\xfe\x01\xfe\x04\x03\n\x03\xfe\x00\x00\x03\xfe\x01\xfe\x03\xfe\x01\n+\n"
	for client, want := range map[doveadm.Minor]string{3: packets, 4: stream, 9: stream} {
		srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Minor: 4, Handler: func(c *doveadmtest.Conn, _ *doveadm.Command) {
			c.Log(doveadm.LogInfo, "x\x03\xfe\x04\x03")
			c.Output([]byte("\x03\xfe\x03"))
			c.Status("+")
			c.Close()
		}})
		nc, err := srv.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		fmt.Fprintf(nc, "VERSION\tdoveadm-server\t1\t%d\n\t\twho\n", client)
		got, err := io.ReadAll(nc)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("VERSION\tdoveadm-client\t1\t4\n+\n"+want, string(got)); diff != "" {
			t.Errorf("client of 1.%d (-want +got):\n%s", client, diff)
		}
	}
}

func TestTLS(t *testing.T) {
	ca := certtest.NewCA(t, "test")
	server := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "localhost").TLS()}}
	client := &tls.Config{ServerName: "localhost", RootCAs: ca.Pool()}
	for _, startTLS := range []bool{false, true} {
		s := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 2, Password: "secret", TLS: server, STARTTLS: startTLS})
		nc, err := s.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(10 * time.Second))
		o := doveadm.ClientOptions{Password: "secret", Minor: doveadm.MaxMinor}
		if startTLS {
			nc = &joiningConn{Conn: nc}
			o.StartTLS = func(nc net.Conn) (net.Conn, error) { return tls.Client(nc, client), nil }
		} else {
			nc = tls.Client(nc, client)
		}
		c, err := doveadm.NewClientConn(nc, o)
		if err != nil {
			t.Fatalf("STARTTLS %v: %v", startTLS, err)
		}
		reply, err := c.Do(t.Context(), &doveadm.Command{Name: "who"})
		if err == nil {
			err = reply.Close()
		}
		if err != nil {
			t.Errorf("STARTTLS %v: %v", startTLS, err)
		}
		s.Conns()[0].Close()
		if _, err := c.ReadChunk(); err != io.EOF {
			t.Errorf("STARTTLS %v: closed with %v", startTLS, err)
		}
	}
}

// joiningConn sends the STARTTLS line together with the first bytes of TLS.
type joiningConn struct {
	net.Conn
	held []byte
}

func (j *joiningConn) Write(p []byte) (int, error) {
	if string(p) == "STARTTLS\n" {
		j.held = bytes.Clone(p)
		return len(p), nil
	}
	_, err := j.Conn.Write(append(j.held, p...))
	j.held = nil
	return len(p), err
}

func TestWrongPassword(t *testing.T) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 3, Password: "secret"})
	_, err := login(t, srv, doveadm.ClientOptions{Password: "other", Minor: 3})
	if !errors.Is(err, doveadm.ErrLoginRefused) {
		t.Errorf("got %v, want %v", err, doveadm.ErrLoginRefused)
	}
}

func TestNeverGreets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Minor: 3, Connected: (*doveadmtest.Conn).Hang})
		nc, err := srv.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(time.Minute))
		_, err = doveadm.NewClientConn(nc, doveadm.ClientOptions{Minor: 3})
		var herr *doveadm.HandshakeError
		var timeout net.Error
		if !errors.As(err, &herr) || herr.Phase != doveadm.PhaseGreeting || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %v, want a timeout waiting for the greeting", err)
		}
	})
}

func TestFaults(t *testing.T) {
	tests := map[string]struct {
		handler func(c *doveadmtest.Conn, cmd *doveadm.Command)
		want    error
	}{
		"close":          {func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Close() }, io.ErrUnexpectedEOF},
		"in a row":       {func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Output([]byte("a\tb")); c.Close() }, io.ErrUnexpectedEOF},
		"in a packet":    {func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Raw([]byte("\x00\x00\x00\x00\x09a")); c.Close() }, io.ErrUnexpectedEOF},
		"dripping":       {func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Drip([]byte("\x00\x00\x00\x00\x03\n+\n"), time.Hour) }, nil},
		"default OPTION": {nil, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Minor: 3, Handler: tc.handler})
				c, err := login(t, srv, doveadm.ClientOptions{Minor: 3})
				if err != nil {
					t.Fatal(err)
				}
				reply, err := c.Do(context.Background(), &doveadm.Command{Name: "reload"})
				if err != nil {
					t.Fatal(err)
				}
				if err := reply.Close(); !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
			})
		})
	}
}

func TestReset(t *testing.T) {
	o := doveadmtest.Options{Handler: func(c *doveadmtest.Conn, _ *doveadm.Command) { c.Reset() }}
	for _, srv := range []*doveadmtest.Server{doveadmtest.NewServer(t, o), doveadmtest.NewPipeServer(t, o)} {
		c, err := login(t, srv, doveadm.ClientOptions{})
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.Do(t.Context(), &doveadm.Command{Name: "reload"})
		if err != nil {
			t.Fatal(err)
		}
		if err := reply.Close(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v, want %v", err, syscall.ECONNRESET)
		}
	}
}

func TestIdleConnection(t *testing.T) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{Minor: 1})
	c, err := login(t, srv, doveadm.ClientOptions{Minor: 1})
	if err != nil {
		t.Fatal(err)
	}
	// As a server that is told to stop.
	conns := srv.Conns()
	if len(conns) != 1 || conns[0].Number() != 1 {
		t.Fatalf("connections: %v", conns)
	}
	conns[0].Log(doveadm.LogWarning, "Killed with signal 15")
	conns[0].Close()
	chunk, err := c.ReadChunk()
	if err != nil || chunk.Channel != doveadm.ChannelLog || string(chunk.Data) != "\x03Killed with signal 15\n" {
		t.Errorf("got %v, %v, want the log line", chunk, err)
	}
	if _, err := c.ReadChunk(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestServerComesBack(t *testing.T) {
	srv := doveadmtest.NewServer(t, doveadmtest.Options{})
	srv.Close()
	if nc, err := srv.Dial(t.Context(), "", ""); err == nil {
		nc.Close()
		t.Error("dialled a closed server")
	}
	again := doveadmtest.NewServer(t, doveadmtest.Options{Address: srv.Addr()})
	if _, err := login(t, again, doveadm.ClientOptions{}); err != nil {
		t.Error(err)
	}
}
