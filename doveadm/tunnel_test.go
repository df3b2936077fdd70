package doveadm_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// TestTunnel opens a tunnel to a server of every version, which says something
// with its agreement, logs, and sends back what it is told.
func TestTunnel(t *testing.T) {
	for minor := doveadm.MinorBase; minor <= doveadm.MaxMinor; minor++ {
		srv := doveadmtest.NewServer(t, doveadmtest.Options{
			Minor: minor, Password: "secret",
			Handler: func(c *doveadmtest.Conn, cmd *doveadm.Command) {
				if cmd.User == "nouser" {
					c.Log(doveadm.LogError, "User doesn't exist")
					c.Status("-NOUSER")
					return
				}
				c.Log(doveadm.LogInfo, "tunnel")
				c.Output([]byte("\n+\nVERSION\tdsync\n\x03\xfe"))
				said, err := c.Rest()
				if err != nil {
					return
				}
				c.Log(doveadm.LogInfo, "end")
				c.Output([]byte(strings.ToUpper(said)))
				c.Close()
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var logged []string
		conn, err := doveadm.Dial(ctx, srv.Addr(), doveadm.ClientOptions{
			Password: "secret", Minor: doveadm.MaxMinor,
			OnLog: func(_ doveadm.LogLevel, text string) { logged = append(logged, text) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		var status *doveadm.StatusError
		if _, err := conn.OpenTunnel(ctx, &doveadm.Command{User: "nouser", Name: "dsync-server"}); !errors.As(err, &status) || status.Status.Code != doveadm.CodeNoUser {
			t.Errorf("1.%d: without a user: %v", minor, err)
		}
		tunnel, err := conn.OpenTunnel(ctx, &doveadm.Command{User: "alice", Name: "dsync-server", Args: []string{"-ualice"}})
		if err != nil {
			t.Fatalf("1.%d: %v", minor, err)
		}
		if _, err := conn.Do(ctx, &doveadm.Command{Name: "who"}); err == nil {
			t.Errorf("1.%d: a command in a tunnel", minor)
		}
		io.WriteString(tunnel, "a\n\nb")
		if err := tunnel.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(iotest.OneByteReader(tunnel))
		if want := "VERSION\tdsync\n\x03\xfeA\n\nB"; string(got) != want || err != nil {
			t.Errorf("1.%d: read %q (%v), want %q", minor, got, err, want)
		}
		if want := "User doesn't exist,tunnel,end"; minor > 0 && strings.Join(logged, ",") != want {
			t.Errorf("1.%d: logged %q", minor, logged)
		}
	}
}

func TestTunnelBroken(t *testing.T) {
	silent := make(chan struct{})
	srv := doveadmtest.NewServer(t, doveadmtest.Options{
		Minor: 3, Password: "secret",
		Handler: func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			switch cmd.User {
			case "cut":
				c.Raw(doveadm.AppendPacket(nil, 0, []byte("\n+\n"))[:6])
			case "wrong":
				c.Output([]byte("\nno status\n"))
			case "silent":
				close(silent)
				c.Hang()
			}
			c.Close()
		},
	})
	for user, want := range map[string]error{"gone": io.ErrUnexpectedEOF, "cut": io.ErrUnexpectedEOF, "wrong": nil, "silent": context.Canceled} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		conn, err := doveadm.Dial(ctx, srv.Addr(), doveadm.ClientOptions{Password: "secret", Minor: doveadm.MaxMinor})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if user == "silent" {
			go func() {
				<-silent
				cancel()
			}()
		}
		_, err = conn.OpenTunnel(ctx, &doveadm.Command{User: user, Name: "dsync-server"})
		var wrong *doveadm.ProtocolError
		if want != nil && !errors.Is(err, want) || want == nil && !errors.As(err, &wrong) {
			t.Errorf("%s: %v, want %v", user, err, want)
		}
		if _, err := conn.OpenTunnel(t.Context(), &doveadm.Command{User: user, Name: "dsync-server"}); err == nil {
			t.Errorf("%s: a second one", user)
		}
	}
	// A connection that cannot be closed in one direction.
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		conn := doveadm.NewServerConn(server, 0)
		var cmd doveadm.Command
		if conn.Handshake(nil) == nil && conn.ReadCommand(&cmd) == nil {
			server.Write(conn.AppendEnd(nil, doveadm.Status{OK: true}))
		}
		server.Close()
	}()
	conn, err := doveadm.NewClientConn(client, doveadm.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := conn.OpenTunnel(t.Context(), &doveadm.Command{Name: "dsync-server"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tunnel.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("half a pipe closed: %v", err)
	}
	if err := tunnel.Close(); err != nil {
		t.Error(err)
	}
}
