package pool

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

func TestDial(t *testing.T) {
	tests := map[string]struct {
		server doveadmtest.Options
		want   error
		text   string
	}{
		"login":          {server: doveadmtest.Options{Password: "secret"}},
		"no login":       {server: doveadmtest.Options{}},
		"wrong password": {doveadmtest.Options{Password: "other"}, ErrBackendLogin, "doveadm_password"},
		"no greeting":    {doveadmtest.Options{Connected: (*doveadmtest.Conn).Hang}, ErrNoProcess, "process_limit"},
		"closed":         {doveadmtest.Options{Minor: 3, Connected: (*doveadmtest.Conn).Close}, nil, "without ssl?"},
		"another protocol": {
			doveadmtest.Options{Minor: 3, Connected: func(c *doveadmtest.Conn) { c.Raw([]byte("* OK IMAP\r\n")); c.Hang() }},
			nil, `"* OK IMAP"`,
		},
		"no such port": {doveadmtest.Options{Password: "closed"}, syscall.ECONNREFUSED, "connection refused"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			srv := doveadmtest.NewServer(t, tc.server)
			if tc.server.Password == "closed" {
				srv.Close()
			}
			b := defaults()
			b.Address = srv.Addr()
			b.Timeouts.Handshake = 200 * time.Millisecond
			c, err := Dial(t.Context(), b)
			if err == nil {
				defer c.Close()
			}
			switch {
			case tc.text == "" && err != nil:
				t.Error(err)
			case tc.text != "" && (err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), b.Address)):
				t.Errorf("got %v, want %q and the address in it", err, tc.text)
			case tc.want != nil && !errors.Is(err, tc.want):
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestLoginIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		srv := doveadmtest.NewPipeServer(t, doveadmtest.Options{Connected: (*doveadmtest.Conn).Hang})
		nc, err := srv.Dial(ctx, "", "")
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Hour, func() { cancel(cause) })
		if _, err := login(ctx, nc, config.Backend{}); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
		synctest.Wait()
		if n := len(srv.Conns()); n != 0 {
			t.Error("the connection was left open")
		}
	})
}
